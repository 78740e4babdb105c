"""ContextModel on Detectron2's model configurations, made tiny: one step of training and inference
each, equality with plain Detectron2, checkpoints, freezing."""

import copy
import functools
import logging

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import get_cfg
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from ccsa.checkpoint import Checkpointer
from ccsa.config import add_ccsa_config
from ccsa.errors import UserError
from ccsa.insertion import context_blocks

SIZE = 64
THINGS, STUFF = 3, 4
BACKBONE = [
    {"at": "backbone.bottom_up.res4.-2", "block": "CrissCross"},
    {"at": "backbone.bottom_up.res3", "block": "NonLocal"},
    {"at": "backbone.fpn_output*", "block": "SqueezeAttention"},
]
RPN = [{"at": "proposal_generator.rpn_head.conv", "block": "SqueezeExcitation"}]
ROI = [{"at": "roi_heads.mask_head.mask_fcn1", "block": "CrissCross"}]
BOX = [{"at": "roi_heads.box_head.conv1", "block": "SqueezeAttention"}]
SEMANTIC = [
    {"at": "sem_seg_head.p2", "block": "CrissCross"},
    {"at": "sem_seg_head.p[45].0", "block": "NonLocal"},
]
CASCADED = [{"at": "roi_heads.box_head.*.conv1", "block": "CrissCross"}]
HEADS = [
    {"at": "head.cls_subnet", "block": "CrissCross"},
    {"at": "head.bbox_subnet.0", "block": "SqueezeExcitation"},
]
CASES = {  # Detectron2's file, its meta-architecture, blocks, number of attached blocks
    "mask_rcnn": (
        *("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml", "GeneralizedRCNN"),
        *(BACKBONE + RPN + BOX + ROI, 2 + 4 + 3),
    ),
    "cascade": (
        *("Misc/cascade_mask_rcnn_R_50_FPN_1x.yaml", "GeneralizedRCNN"),
        *(BACKBONE + RPN + CASCADED + ROI, 2 + 4 + 1 + 3 + 1),
    ),
    "retinanet": (
        *("COCO-Detection/retinanet_R_50_FPN_1x.yaml", "RetinaNet"),
        *(BACKBONE + HEADS, 2 + 3 + 2),
    ),
    "panoptic": (
        *("COCO-PanopticSegmentation/panoptic_fpn_R_50_1x.yaml", "PanopticFPN"),
        *(BACKBONE + RPN + BOX + ROI + SEMANTIC, 2 + 4 + 3 + 3),
    ),
    "semantic": (
        *("Misc/semantic_R_50_FPN_1x.yaml", "SemanticSegmentor"),
        *(BACKBONE + SEMANTIC, 2 + 4 + 3),
    ),
}


def config(case, blocks=None, plain=False):
    file, meta_architecture, default, _ = CASES[case]
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.merge_from_file(model_zoo.get_config_file(file))
    assert meta_architecture == cfg.MODEL.META_ARCHITECTURE
    cfg.MODEL.CONTEXT.META_ARCHITECTURE = meta_architecture
    cfg.MODEL.CONTEXT.BLOCKS = default if blocks is None else blocks
    if not plain:
        cfg.MODEL.META_ARCHITECTURE = "ContextModel"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 8
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 16
    cfg.MODEL.RESNETS.WIDTH_PER_GROUP = 4
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE = 2048  # use every anchor of every level
    cfg.MODEL.RPN.PRE_NMS_TOPK_TRAIN = cfg.MODEL.RPN.PRE_NMS_TOPK_TEST = 50
    cfg.MODEL.RPN.POST_NMS_TOPK_TRAIN = cfg.MODEL.RPN.POST_NMS_TOPK_TEST = 20
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = THINGS
    cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE = 16
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = cfg.MODEL.RETINANET.SCORE_THRESH_TEST = 0.001
    cfg.MODEL.RETINANET.NUM_CONVS = 1
    cfg.MODEL.ROI_BOX_HEAD.NUM_CONV = cfg.MODEL.ROI_BOX_HEAD.NUM_FC = 1
    cfg.MODEL.ROI_BOX_HEAD.CONV_DIM = cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 16
    cfg.MODEL.ROI_MASK_HEAD.NUM_CONV = 1
    cfg.MODEL.ROI_MASK_HEAD.CONV_DIM = 16
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = STUFF
    cfg.MODEL.SEM_SEG_HEAD.CONVS_DIM = 32
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = 0.0
    cfg.INPUT.MASK_FORMAT = "bitmask"
    cfg.TEST.DETECTIONS_PER_IMAGE = 5
    return cfg


def build(case, blocks=None, plain=False, seed=0):
    torch.manual_seed(seed)
    model = build_model(config(case, blocks, plain))
    for module in model.modules():  # keep random features near 1
        if isinstance(module, FrozenBatchNorm2d):
            module.weight.fill_(0.7)
    return model


@functools.cache
def cached(case):
    return build(case)


@pytest.fixture(params=list(CASES))
def case(request):
    return request.param


@pytest.fixture
def model(case):
    """Return the model of a case with its blocks, built once and reset to its initial weights."""
    return copy.deepcopy(cached(case))


@pytest.fixture
def logged(caplog, monkeypatch):
    """Return caplog; it works even if an earlier test set up logging as the tools do."""
    monkeypatch.setattr(logging.getLogger("ccsa"), "propagate", True)
    caplog.set_level(logging.INFO, logger="ccsa")
    return caplog


def batch(count=2):
    generator = torch.Generator().manual_seed(5)
    images = []
    for _ in range(count):
        masks = torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
        masks[0, 4:30, 6:40] = True
        masks[1, 30:60, 20:50] = True
        instances = Instances((SIZE, SIZE))
        instances.gt_boxes = Boxes(torch.tensor([[6.0, 4, 40, 30], [20, 30, 50, 60]]))
        instances.gt_classes = torch.tensor([0, 2])
        instances.gt_masks = BitMasks(masks)
        images.append(
            {
                "image": torch.rand(3, SIZE, SIZE, generator=generator) * 255,
                "instances": instances,
                "sem_seg": torch.randint(0, STUFF, (SIZE, SIZE), generator=generator),
                "height": SIZE,
                "width": SIZE,
            }
        )
    return images


def losses_of(model, inputs):
    """Return the losses by name, with the same random proposals in every call."""
    torch.manual_seed(3)
    with EventStorage():
        return model.train()(inputs)


def outputs_of(model, inputs):
    with torch.no_grad():
        return model.eval()(inputs)


def assert_same(a, b, where="output"):
    """Check that nested outputs are equal bit for bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    elif isinstance(a, Boxes):
        assert_same(a.tensor, b.tensor, where)
    elif isinstance(a, Instances):
        assert a.image_size == b.image_size
        assert_same(a.get_fields(), b.get_fields(), where)
    elif isinstance(a, dict):
        assert set(a) == set(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}.{i}")
    else:
        assert a == b, where


def test_places_are_those_asked_for(case, model):
    found = [path for path, _ in context_blocks(model)]
    assert len(found) == CASES[case][3] == len(set(found))
    for spec in CASES[case][2]:
        stem = spec["at"].split("*")[0].split("[")[0].removesuffix(".-2").rstrip(".")
        assert any(path.startswith(stem) for path in found), stem


def test_one_step_of_training(model):
    losses = losses_of(model, batch())
    assert losses and all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    for path, block in context_blocks(model):
        assert block.gamma.item() == 0
        assert block.gamma.grad is not None and torch.isfinite(block.gamma.grad).all(), path
        assert block.gamma.grad.abs() > 0, path
    before = [float(loss.detach()) for loss in losses.values()]
    with torch.no_grad():
        for _, block in context_blocks(model):
            block.gamma.sub_(0.1 * block.gamma.grad.sign())
    losses = losses_of(model, batch())
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert before != [float(loss.detach()) for loss in losses.values()]
    sum(losses.values()).backward()
    for path, block in context_blocks(model):
        for name, p in block.named_parameters():
            assert p.grad is not None and torch.isfinite(p.grad).all(), f"{path}.{name}"


def test_inference_passes_the_blocks(case, model):
    inputs = batch(1)
    before = outputs_of(model, inputs)[0]
    keys = {
        "mask_rcnn": {"instances"},
        "cascade": {"instances"},
        "retinanet": {"instances"},
        "panoptic": {"instances", "sem_seg", "panoptic_seg"},
        "semantic": {"sem_seg"},
    }[case]
    assert set(before) == keys
    if "instances" in keys:
        assert len(before["instances"]) > 0
        assert before["instances"].has("pred_masks") == (case != "retinanet")
    if "sem_seg" in keys:
        assert before["sem_seg"].shape == (STUFF, SIZE, SIZE)
    seen = []
    for path, block in context_blocks(model):
        block.register_forward_hook(lambda *_, path=path: seen.append(path))
        nn.init.constant_(block.gamma, 0.3)
    after = outputs_of(model, inputs)[0]
    assert set(seen) == {path for path, _ in context_blocks(model)}
    kind = "instances" if "instances" in keys else "sem_seg"
    with pytest.raises(AssertionError):
        assert_same(before[kind], after[kind])


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=str)
def test_no_block_and_gamma_zero_are_plain_detectron2_bit_for_bit(case, memory_format):
    plain = build(case, plain=True).to(memory_format=memory_format)
    with_blocks, without = copy.deepcopy(cached(case)), build(case, blocks=[], seed=1)
    assert list(without.state_dict()) == list(plain.state_dict())
    for other in (with_blocks, without):
        other.to(memory_format=memory_format)
        kept = other.load_state_dict(plain.state_dict(), strict=False)
        assert not kept.unexpected_keys
        assert all(".context." in key for key in kept.missing_keys)
        assert type(other) is type(plain)
    outputs, losses = outputs_of(plain, batch()), losses_of(plain, batch())
    names = [name for name, p in plain.named_parameters() if p.requires_grad]
    grads = dict(zip(names, gradients(plain, losses, names), strict=True))
    for other in (with_blocks, without):
        assert_same(outputs_of(other, batch()), outputs)
        again = losses_of(other, batch())
        assert_same(dict(again), dict(losses), "losses")
        for name, grad in zip(names, gradients(other, again, names), strict=True):
            torch.testing.assert_close(grad, grads[name], rtol=1e-4, atol=1e-5)


def gradients(model, losses, names):
    parameters = dict(model.named_parameters())
    wanted = [parameters[name] for name in names]
    return [
        torch.zeros_like(p) if g is None else g
        for p, g in zip(
            wanted,
            torch.autograd.grad(sum(losses.values()), wanted, allow_unused=True),
            strict=True,
        )
    ]


@pytest.mark.parametrize("case", ["mask_rcnn", "cascade", "panoptic"], indirect=True)
def test_an_image_without_detections_passes_the_head_blocks(model):
    predictors = model.roi_heads.box_predictor
    for predictor in predictors if isinstance(predictors, nn.ModuleList) else [predictors]:
        predictor.test_score_thresh = 1.1
    batches = []
    head = model.roi_heads.mask_head.mask_fcn1.context
    nn.init.constant_(head.gamma, 0.5)
    head.register_forward_hook(lambda m, args, out: batches.append((args[0].shape, out.shape)))
    out = outputs_of(model, batch(1))[0]["instances"]
    assert len(out) == 0 and out.pred_masks.shape == (0, SIZE, SIZE)
    assert batches == [((0, 16, 14, 14), (0, 16, 14, 14))]


@pytest.mark.parametrize("case", ["mask_rcnn"], indirect=True)
def test_a_training_batch_without_objects_passes_the_head_blocks(model):
    inputs = batch()
    for image in inputs:
        image["instances"] = image["instances"][:0]
    losses = losses_of(model, inputs)
    assert all(torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    mask_block = model.roi_heads.mask_head.mask_fcn1.context
    assert mask_block.gamma.grad is not None and mask_block.gamma.grad.item() == 0
    for path, block in context_blocks(model):
        assert torch.isfinite(block.gamma.grad).all(), path


def test_a_plain_checkpoint_lacks_the_context_keys_alone(case, model):
    plain = build(case, plain=True, seed=7).state_dict()
    blocks = {
        f"{path}.{name}" for path, block in context_blocks(model) for name in block.state_dict()
    }
    assert set(plain) < set(model.state_dict())
    assert set(model.state_dict()) - set(plain) == blocks
    kept = model.load_state_dict(plain, strict=False)
    assert set(kept.missing_keys) == blocks and not kept.unexpected_keys


def test_a_plain_checkpoint_loads_and_one_line_names_the_context_keys(tmp_path, logged):
    plain = build("mask_rcnn", plain=True, seed=7).state_dict()
    torch.save({"model": plain}, tmp_path / "plain.pth")
    model = build("mask_rcnn", BACKBONE[:1])
    before = {key: value.clone() for key, value in model.state_dict().items()}
    Checkpointer(model, training=True).load(str(tmp_path / "plain.pth"))
    (line,) = (r.getMessage() for r in logged.records if r.levelno >= logging.WARNING)
    head, listed = line.split(": 7: ")
    assert "missing in the file" in head
    assert listed == "backbone.bottom_up.res4.4.context.*"
    named = {key for key in before if key.startswith("backbone.bottom_up.res4.4.context.")}
    assert len(named) == 7
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key] if key in named else plain[key]), key
    with pytest.raises(UserError, match=r"7 missing \(backbone.*context\.\*\)"):
        Checkpointer(model).load(str(tmp_path / "plain.pth"))


def test_freezing_the_backbone_does_not_reach_its_blocks():
    cfg = config(
        "mask_rcnn",
        [
            {"at": "backbone.bottom_up.stem.conv1", "block": "CrissCross"},
            {"at": "backbone.bottom_up.res*", "block": "SqueezeAttention", "norm": "BN"},
        ],
    )
    cfg.MODEL.BACKBONE.FREEZE_AT = 5
    model = build_model(cfg)
    backbone = model.backbone.bottom_up
    own = {n: p for n, p in backbone.named_parameters() if ".context." not in n}
    assert own and not any(p.requires_grad for p in own.values())
    new = {n: p for n, p in backbone.named_parameters() if ".context." in n}
    assert {name.split(".")[0] for name in new} == {"stem", "res2", "res3", "res4", "res5"}
    assert all(p.requires_grad for p in new.values())
    norms = [type(m) for n, m in backbone.named_modules() if ".context." in n and "Norm" in repr(m)]
    assert nn.BatchNorm2d in norms and FrozenBatchNorm2d not in norms
    sum(losses_of(model, batch()).values()).backward()
    for path, block in context_blocks(model):
        assert block.gamma.grad.abs() > 0, path


@pytest.mark.parametrize("name", ["GeneralisedRCNN", "ContextModel", "", "CrissCross"])
def test_an_unknown_meta_architecture_is_refused_with_the_known_ones(name):
    cfg = config("mask_rcnn", [])
    cfg.MODEL.CONTEXT.META_ARCHITECTURE = name
    with pytest.raises(UserError) as error:
        build_model(cfg)
    text = str(error.value)
    assert f"MODEL.CONTEXT.META_ARCHITECTURE '{name}'" in text
    known = text.split(" is not one of ")[1].split(", ")
    assert {"GeneralizedRCNN", "RetinaNet", "PanopticFPN", "SemanticSegmentor"} <= set(known)
    assert "ContextModel" not in known


def test_a_line_that_does_not_fit_the_model_is_a_value_error():
    cfg = config("mask_rcnn", [{"at": "backbone.bottom_up.res6", "block": "CrissCross"}])
    with pytest.raises(ValueError, match=r"backbone\.bottom_up has no 'res6'; did you mean res"):
        build_model(cfg)


def test_the_placements_are_logged_as_a_table(logged):
    model = build_model(config("semantic"))
    (table,) = (r.getMessage() for r in logged.records if "Context blocks" in r.getMessage())
    for path, block in context_blocks(model):
        (row,) = (
            line for line in table.splitlines() if f" {path.removesuffix('.context')} " in line
        )
        count = sum(p.numel() for p in block.parameters())
        assert type(block).__name__ in row and f"{count:,}" in row
    logged.clear()
    build_model(config("semantic", blocks=[]))
    assert not [r for r in logged.records if "Context blocks" in r.getMessage()]
