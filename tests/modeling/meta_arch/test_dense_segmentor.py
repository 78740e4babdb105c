"""DenseSegmentor built from configurations: training, odd sizes, padding, context blocks."""

import pytest
import torch
import torch.nn.functional as F
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from ccsa.config import add_ccsa_config

HEADS = {"CCNetHead": ["res5"], "FCNHead": ["res5"], "SANetHead": ["res2", "res3", "res4", "res5"]}


def config(head="CCNetHead", architecture="DenseSegmentor"):
    cfg = get_cfg()
    add_ccsa_config(cfg)
    model = cfg.MODEL
    model.DEVICE, model.META_ARCHITECTURE = "cpu", architecture
    model.BACKBONE.NAME, model.BACKBONE.FREEZE_AT = "build_dilated_resnet_backbone", 0
    resnet = model.RESNETS
    resnet.NORM, resnet.STEM_TYPE, resnet.STEM_OUT_CHANNELS = "BN", "deeplab", 16
    resnet.RES2_OUT_CHANNELS, resnet.WIDTH_PER_GROUP = 16, 4
    resnet.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    keys = model.SEM_SEG_HEAD
    keys.NAME, keys.IN_FEATURES, keys.NUM_CLASSES = head, HEADS[head], 5
    keys.CONVS_DIM, keys.NORM, keys.AUX.CHANNELS, keys.SANET.CHANNELS = 16, "BN", 8, 8
    return cfg


def image(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("architecture", ["DenseSegmentor", "SemanticSegmentor"])
def test_a_training_step_on_images_of_two_sizes(head, architecture):
    torch.manual_seed(0)
    model = build_model(config(head, architecture)).train()
    batch = [
        {"image": image(h, w, h), "sem_seg": torch.randint(0, 5, (h, w))}
        for h, w in ((33, 57), (49, 40))
    ]
    losses = model(batch)
    sum(losses.values()).backward()
    assert all(torch.isfinite(v) for v in losses.values())
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == []


def test_padding_does_not_count():
    """Labels are padded with the head's ignore value. A loss that included the padding would depend
    on the class that fills it."""
    cfg = config()
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 3
    cfg.MODEL.SEM_SEG_HEAD.DROPOUT = 0.0
    model = build_model(cfg).train()
    small = {"image": image(20, 24), "sem_seg": torch.randint(0, 3, (20, 24))}
    large = {"image": image(40, 48, 1), "sem_seg": torch.full((40, 48), 3)}
    features, targets = {}, {}

    def keep(module, args):
        features.update(args[0])
        targets["labels"] = args[1]

    model.sem_seg_head.register_forward_pre_hook(keep)
    losses = model([small, large])
    assert (targets["labels"][0, 20:] == 3).all()
    assert (targets["labels"][0, :, 24:] == 3).all()
    logits = model.sem_seg_head.resize(model.sem_seg_head.layers(features), (40, 48))
    wanted = F.cross_entropy(logits[:1, :, :20, :24], small["sem_seg"][None])
    torch.testing.assert_close(losses["loss_sem_seg"], wanted)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(33, 41), (40, 50)])
def test_logits_are_brought_to_the_exact_size(align_corners, size):
    cfg = config()
    cfg.MODEL.SEM_SEG_HEAD.ALIGN_CORNERS = align_corners
    model = build_model(cfg).eval()
    x = image(*size)
    with torch.no_grad():
        features = model.backbone(((x - model.pixel_mean) / model.pixel_std)[None])
        wanted = F.interpolate(
            model.sem_seg_head.layers(features), size, mode="bilinear", align_corners=align_corners
        )[0]
        torch.testing.assert_close(model([{"image": x}])[0]["sem_seg"], wanted)
        larger = model([{"image": x, "height": 66, "width": 80}])[0]["sem_seg"]
        wanted = F.interpolate(wanted[None], (66, 80), mode="bilinear")[0]
        torch.testing.assert_close(larger, wanted)


def test_images_of_two_sizes_in_one_batch_are_cut_from_the_padding():
    model = build_model(config()).eval()
    with torch.no_grad():
        results = model([{"image": image(33, 41)}, {"image": image(25, 57)}])
    assert [r["sem_seg"].shape for r in results] == [(5, 33, 41), (5, 25, 57)]


def test_same_as_detectron2s_where_the_stride_divides_the_image():
    model = build_model(config()).eval()
    plain = build_model(config(architecture="SemanticSegmentor")).eval()
    plain.load_state_dict(model.state_dict(), strict=True)
    x = [{"image": image(40, 48)}]
    with torch.no_grad():
        torch.testing.assert_close(model(x)[0]["sem_seg"], plain(x)[0]["sem_seg"])


@pytest.mark.parametrize("head", HEADS)
def test_context_blocks_inside_the_backbone_and_the_head(head):
    cfg = config(head, "ContextModel")
    cfg.MODEL.CONTEXT.META_ARCHITECTURE = "DenseSegmentor"
    inner = {"CCNetHead": "fusion", "FCNHead": "fcn.conv", "SANetHead": "stages.res5.0"}[head]
    cfg.MODEL.CONTEXT.BLOCKS = [
        {"at": "backbone.res4.-2", "block": "CrissCross"},
        {"at": f"sem_seg_head.{inner}", "block": "SqueezeExcitation"},
    ]
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    state = {k: v for k, v in model.state_dict().items() if ".context." not in k}
    plain = build_model(config(head)).eval()
    plain.load_state_dict(state, strict=True)
    x = [{"image": image(33, 41)}]
    with torch.no_grad():
        before = model(x)[0]["sem_seg"]
        assert torch.equal(before, plain(x)[0]["sem_seg"])
        torch.nn.init.constant_(model.backbone.res4[-2].context.gamma, 0.5)
        assert not torch.allclose(before, model(x)[0]["sem_seg"])
