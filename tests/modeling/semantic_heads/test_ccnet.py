"""CCNetHead and FCNHead: values and parameter counts of the published network, and losses."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.modeling.meta_arch.semantic_seg import build_sem_seg_head

from ccsa.config import add_ccsa_config
from ccsa.modeling import CategoryConsistentLoss, CCNetHead, FCNHead, OhemCrossEntropy
from ccsa.ops import criss_cross_attention

SMALL = {"num_classes": 5, "channels": 16, "aux_channels": 8, "norm": "BN"}


def test_layers_follow_the_paper(shapes, features):
    head = CCNetHead(shapes, **SMALL, activation="leaky_relu").eval()
    torch.nn.init.constant_(head.attention.gamma, 0.6)

    def layer(conv, x):
        x = F.conv2d(x, conv.weight, padding=1)
        return F.leaky_relu(conv.norm(x), 0.01)

    with torch.no_grad():
        x = features["res5"]
        reduced = layer(head.reduction, x)
        attended = reduced
        for _ in range(2):
            qkv = (
                getattr(head.attention, f"{n}_conv")(attended) for n in ("query", "key", "value")
            )
            attended = attended + 0.6 * criss_cross_attention(*qkv, backend="reference")
        assert not torch.allclose(attended, reduced, atol=1e-3)
        fused = layer(head.fusion, torch.cat([x, layer(head.refine, attended)], 1))
        wanted = F.conv2d(fused, head.predictor.weight, head.predictor.bias)
        torch.testing.assert_close(head.layers(features), wanted)


def test_official_size():
    """With 19 classes, the official head has 23,934,100 parameters, its auxiliary FCN 4,729,875."""
    from detectron2.layers import ShapeSpec

    shapes = {
        "res4": ShapeSpec(channels=1024, stride=8),
        "res5": ShapeSpec(channels=2048, stride=8),
    }
    with torch.device("meta"):
        head = CCNetHead(shapes, num_classes=19, aux_channels=512)
    auxiliary = sum(p.numel() for p in head.auxiliary.parameters())
    assert auxiliary == 4_729_875
    assert sum(p.numel() for p in head.parameters()) - auxiliary == 23_934_100


@pytest.mark.parametrize("head_class", [CCNetHead, FCNHead])
def test_losses_by_hand(shapes, features, labels, head_class):
    head = head_class(shapes, **SMALL, dropout=0.0, align_corners=True, loss_weight=3.0)
    result, losses = head(features, labels)
    assert result is None
    main, auxiliary = (
        F.cross_entropy(
            F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=True),
            labels,
            ignore_index=255,
        )
        for logits in (head.layers(features), head.auxiliary(features["res4"]))
    )
    assert set(losses) == {"loss_sem_seg", "loss_aux"}
    torch.testing.assert_close(losses["loss_sem_seg"], 3 * main)
    torch.testing.assert_close(losses["loss_aux"], 3 * 0.4 * auxiliary)


def test_ohem_serves_the_main_loss_only(shapes, features, labels):
    head = CCNetHead(shapes, **SMALL, dropout=0.0, criterion=OhemCrossEntropy(255, 0.2, 0))
    _, losses = head(features, labels)
    upsampled = head.resize(head.layers(features), labels.shape[1:])
    torch.testing.assert_close(
        losses["loss_sem_seg"], OhemCrossEntropy(255, 0.2, 0)(upsampled, labels)
    )
    auxiliary = head.plain_loss(head.auxiliary(features["res4"]), labels)
    torch.testing.assert_close(losses["loss_aux"], 0.4 * auxiliary)


@pytest.mark.parametrize("at", ["context_input", "context_output"])
def test_category_consistent_loss_takes_the_features_it_is_told(shapes, features, labels, at):
    consistency = CategoryConsistentLoss(16, channels=3)
    head = CCNetHead(shapes, **SMALL, dropout=0.0, consistency=consistency, consistency_at=at)
    torch.nn.init.constant_(head.attention.gamma, 0.6)
    _, losses = head(features, labels)
    tap = head.reduction(features["res5"])
    if at == "context_output":
        tap = head.attention(tap)
    for name, wanted in consistency(tap, labels).items():
        torch.testing.assert_close(losses[name], wanted)
    assert len(losses) == 5
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize("head_class", [CCNetHead, FCNHead])
def test_inference_upsamples_by_the_stride(shapes, features, head_class):
    head = head_class(shapes, **SMALL).eval()
    with torch.no_grad():
        result, losses = head(features)
        assert losses == {}
        wanted = F.interpolate(head.layers(features), (40, 48), mode="bilinear")
        torch.testing.assert_close(result, wanted)


def test_no_auxiliary(shapes, features, labels):
    head = CCNetHead(shapes, **{**SMALL, "aux_weight": 0.0})
    assert head.auxiliary is None
    assert list(head(features, labels)[1]) == ["loss_sem_seg"]


def test_all_ignored_trains_on(shapes, features, labels):
    head = CCNetHead(
        shapes,
        **SMALL,
        criterion=OhemCrossEntropy(255),
        consistency=CategoryConsistentLoss(16),
    )
    _, losses = head(features, torch.full_like(labels, 255))
    assert [v.item() for v in losses.values()] == [0] * 5
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in head.parameters())


def config(**keys):
    cfg = get_cfg()
    add_ccsa_config(cfg)
    head = cfg.MODEL.SEM_SEG_HEAD
    head.NAME, head.IN_FEATURES, head.CONVS_DIM, head.NORM = "CCNetHead", ["res5"], 16, "BN"
    for key, value in keys.items():
        cfg.merge_from_list([f"MODEL.SEM_SEG_HEAD.{key.replace('__', '.')}", value])
    return cfg


def test_every_key_reaches_the_head(shapes):
    cfg = config(
        NUM_CLASSES=7,
        ACTIVATION="leaky_relu",
        DROPOUT=0.3,
        ALIGN_CORNERS=True,
        IGNORE_VALUE=0,
        LOSS_WEIGHT=2.0,
        BLOCKS=[{"block": "NonLocal", "reduction": 4}],
        AUX__CHANNELS=9,
        AUX__IN_FEATURE="res3",
        AUX__WEIGHT=0.1,
        CLASS_WEIGHTS=[3, 1, 1, 1, 1, 1, 1],
        OHEM__ENABLED=True,
        OHEM__THRESHOLD=0.6,
        OHEM__MIN_KEPT=2000,
        CCL__ENABLED=True,
        CCL__WEIGHTS=[1.0, 2.0, 3.0],
        CCL__DELTAS=[0.1, 0.2],
        CCL__CHANNELS=4,
        CCL__AT="context_input",
        CCL__SCOPE="image",
    )
    head = build_sem_seg_head(cfg, shapes)
    assert head.predictor.out_channels == head.auxiliary.predictor.out_channels == 7
    assert (head.fusion.activation.negative_slope, head.dropout.p) == (0.01, 0.3)
    assert (head.align_corners, head.ignore_value, head.loss_weight) == (True, 0, 2.0)
    assert type(head.attention).__name__ == "NonLocal"
    assert head.attention.theta.out_channels == 4
    assert (head.auxiliary.conv.in_channels, head.auxiliary.conv.out_channels) == (10, 9)
    assert (head.aux_feature, head.aux_weight) == ("res3", 0.1)
    ohem, ccl = head.criterion, head.consistency
    assert (ohem.threshold, ohem.min_kept, ohem.ignore_value) == (0.6, 2000, 0)
    assert ohem.weight.tolist() == [3, 1, 1, 1, 1, 1, 1]
    assert (ccl.weights, ccl.deltas, ccl.ignore_value) == ((1.0, 2.0, 3.0), (0.1, 0.2), 0)
    assert (ccl.reduction.out_channels, ccl.align_corners, head.consistency_index) == (4, True, 0)


@pytest.mark.parametrize("recurrence", [1, 2, 3])
def test_recurrence_by_key(shapes, recurrence):
    block = {"block": "CrissCross", "recurrence": recurrence}
    head = build_sem_seg_head(config(BLOCKS=[block]), shapes)
    assert head.attention.recurrence == recurrence


def test_no_context_leaves_no_parameters(shapes):
    head = build_sem_seg_head(config(BLOCKS=[]), shapes)
    assert not [name for name, _ in head.named_parameters() if name.startswith("attention")]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"IN_FEATURES": ["p2", "p3"]}, r'\["res5"\]'),
        ({"IN_FEATURES": ["p5"]}, "returns res2, res3, res4, res5"),
        ({"AUX__IN_FEATURE": "p4"}, "returns res2, res3, res4, res5"),
        ({"ACTIVATION": "gelu"}, "relu, leaky_relu"),
        ({"NORM": "batch"}, "SyncBN"),
        ({"NUM_CLASSES": 5, "CLASS_WEIGHTS": [1, 2]}, "each of the 5 classes"),
        ({"BLOCKS": [{"block": "CrisCross"}]}, "CrissCross"),
        ({"BLOCKS": [{"recurrence": 2}]}, "block: name"),
        ({"CCL__ENABLED": True, "CCL__AT": "fusion"}, "context_input, context_output"),
    ],
)
def test_wrong_settings_name_the_valid_ones(shapes, keys, message):
    with pytest.raises(ValueError, match=message):
        build_sem_seg_head(config(**keys), shapes)


def test_training_without_labels(shapes, features):
    with pytest.raises(ValueError, match="sem_seg"):
        CCNetHead(shapes, **SMALL)(features)
