"""SANetHead: its three predictions and losses, together and separately."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.modeling.meta_arch.semantic_seg import build_sem_seg_head

from ccsa.config import add_ccsa_config
from ccsa.modeling import FCNHead, SANetHead
from ccsa.modeling.losses.cross_entropy import presence_loss

SMALL = {"num_classes": 5, "channels": 16, "stage_channels": 8, "norm": "BN", "dropout": 0.0}
SE = [{"block": "SqueezeExcitation", "reduction": 2, "residual": False}]


def by_hand(head, features):
    """Return the mask, category and dense predictions by the equations of the module docstring."""
    stages = []
    for name in ("res2", "res3", "res4", "res5"):
        project, block = head.stages[name]
        s = block(project(features[name]))
        if name == "res2":
            s = F.interpolate(s, (5, 6), mode="bilinear")
        stages.append(s)
    joined = torch.cat(stages, 1)
    dense = head.dense(features["res5"]) + head.dense_stage(stages[-1])
    return head.mask(joined), head.category(joined.mean((2, 3))), dense


@pytest.mark.parametrize("blocks", [SE, [{"block": "SqueezeAttention", "residual": False}]])
def test_losses_by_hand(shapes, features, labels, blocks):
    head = SANetHead(shapes, **SMALL, blocks=blocks, loss_weight=2.0)
    _, losses = head(features, labels)
    mask, category, dense = by_hand(head, features)

    def ce(logits):
        upsampled = F.interpolate(logits, labels.shape[1:], mode="bilinear")
        return F.cross_entropy(upsampled, labels, ignore_index=255)

    wanted = {
        "loss_mask_sem_seg": ce(mask),
        "loss_dense_sem_seg": 0.8 * ce(dense),
        "loss_category": 0.2 * presence_loss(category, labels, 255),
    }
    assert set(losses) == set(wanted)
    for name, value in wanted.items():
        torch.testing.assert_close(losses[name], 2 * value)
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize("prediction", ["dense", "mask", "sum"])
def test_final_prediction(shapes, features, prediction):
    head = SANetHead(shapes, **SMALL, prediction=prediction).eval()
    with torch.no_grad():
        mask, _, dense = by_hand(head, features)
        wanted = {"dense": dense, "mask": mask, "sum": dense + mask}[prediction]
        torch.testing.assert_close(head.layers(features), wanted)
        assert head(features)[0].shape == (2, 5, 40, 48)


def test_everything_off_is_the_plain_fcn(shapes, features, labels):
    head = SANetHead(
        shapes, **SMALL, blocks=[], mask_weight=0.0, category_weight=0.0, dense_weight=1.0
    )
    baseline = FCNHead(shapes, num_classes=5, channels=16, norm="BN", dropout=0.0, aux_weight=0.0)
    state = head.state_dict()
    baseline.load_state_dict(
        {k.replace("dense.", "fcn."): v for k, v in state.items()}, strict=True
    )
    losses, wanted = head(features, labels)[1], baseline(features, labels)[1]
    assert torch.equal(losses["loss_dense_sem_seg"], wanted["loss_sem_seg"])
    assert torch.equal(head.eval()(features)[0], baseline.eval()(features)[0])


@pytest.mark.parametrize(
    ("weights", "built", "losses"),
    [
        ({"mask_weight": 0.0}, 4, {"loss_category", "loss_dense_sem_seg"}),
        ({"category_weight": 0.0}, 4, {"loss_mask_sem_seg", "loss_dense_sem_seg"}),
        ({"mask_weight": 0.0, "category_weight": 0.0}, 1, {"loss_dense_sem_seg"}),
        ({"dense_weight": 0.0, "prediction": "mask"}, 4, {"loss_mask_sem_seg", "loss_category"}),
    ],
)
def test_a_weight_of_0_leaves_nothing_unused(shapes, features, labels, weights, built, losses):
    head = SANetHead(shapes, **SMALL, **weights)
    assert len(head.stages) == built
    found = head(features, labels)[1]
    assert set(found) == losses
    sum(found.values()).backward()
    assert all(p.grad is not None for p in head.parameters())


def test_all_ignored(shapes, features, labels):
    head = SANetHead(shapes, **SMALL)
    _, losses = head(features, torch.full_like(labels, 255))
    assert [v.item() for v in losses.values()] == [0, 0, 0]
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def config(**keys):
    cfg = get_cfg()
    add_ccsa_config(cfg)
    head = cfg.MODEL.SEM_SEG_HEAD
    head.NAME, head.IN_FEATURES, head.NORM = "SANetHead", ["res2", "res3", "res4", "res5"], "BN"
    for key, value in keys.items():
        cfg.merge_from_list([f"MODEL.SEM_SEG_HEAD.SANET.{key}", value])
    return cfg


def test_squeeze_excitation_by_one_key(shapes):
    head = build_sem_seg_head(config(BLOCKS=SE), shapes)
    assert {type(stage[1]).__name__ for stage in head.stages.values()} == {"SqueezeExcitation"}


def test_every_key_reaches_the_head(shapes):
    cfg = config(
        CHANNELS=24,
        MASK_WEIGHT=0.5,
        CATEGORY_WEIGHT=0.3,
        DENSE_WEIGHT=0.7,
        CATEGORY_REDUCTION="mean",
        PREDICTION="sum",
    )
    head = build_sem_seg_head(cfg, shapes)
    assert head.mask.in_channels == 4 * 24
    assert head.weights == {"mask": 0.5, "category": 0.3, "dense": 0.7}
    assert (head.category_reduction, head.parts) == ("mean", ("dense", "mask"))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"PREDICTION": "fcn"}, "dense, mask, sum"),
        ({"DENSE_WEIGHT": 0.0}, "above 0 of dense"),
        ({"MASK_WEIGHT": -1.0}, "none may be below 0"),
        ({"CATEGORY_REDUCTION": "max"}, "sum, mean"),
        ({"BLOCKS": [{"block": "SqueezeAttention", "pol": 2}]}, "did you mean pool"),
    ],
)
def test_wrong_settings_name_the_valid_ones(shapes, keys, message):
    with pytest.raises(ValueError, match=message):
        build_sem_seg_head(config(**keys), shapes)
