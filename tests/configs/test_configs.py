"""Every configuration builds, and baselines differ from their experiments in the block only.

A configuration is named after its file. Names of former files stand for the base with overlays that
replaced them (docs/CONFIG_MIGRATION.md), so every experiment is tested.
"""

import argparse
import re

import pytest
import timm
import torch
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_backbone
from support import former_configs

from ccsa.data.loaders import build_train_mapper
from ccsa.data.mapper import SemanticMapper
from ccsa.data.semantic import FAMILIES
from ccsa.engine import Trainer
from ccsa.engine.checks import check_model
from ccsa.engine.setup import setup_cfg
from ccsa.modeling.clip import Clip

BLOCKS = {
    "ccnet": "CrissCross",
    "sa": "SqueezeAttention",
    "se": "SqueezeExcitation",
    "nonlocal": "NonLocal",
}
# For converted weights: their names follow another program, and they have no ImageNet weights.
CONVERTED = [f"cityscapes/ccnet_R_{name}" for name in ("50_mmseg", "101_mmseg", "101_official")]
SEMANTIC = [
    name
    for name in former_configs.NAMES
    if name.partition("/")[0] in FAMILIES and name not in CONVERTED and "panoptic" not in name
]
TIMM = [name for name in SEMANTIC if not re.search(r"_R_\d+_", name)]
EFFICIENTNET = "pascal_context/sanet_efficientnet_b{}_os8_480_80ep"
HEAD = "MODEL.SEM_SEG_HEAD."
SANET = ("SANET.BLOCKS", "SANET.CHANNELS")
# By the last word of a name: the keys in which it differs from the configuration without it.
ABLATIONS = {
    **{word: {HEAD + "BLOCKS"} for word in ("r0", "r1", "r3", "nonlocal")},
    **{word: {HEAD + "SANET.BLOCKS"} for word in ("se", "noblock")},
    "ccl": {HEAD + "CCL.ENABLED"},
    "ohem": {HEAD + "OHEM.ENABLED"},
    "T1": {"INPUT.CLIP.FRAMES"},
}


def load(root, name, *options):
    file, overlays = former_configs.command(str(name).removesuffix(".yaml"))
    words = ["MODEL.DEVICE", "cpu", *options]
    return setup_cfg(argparse.Namespace(config_file=file, overlays=overlays, opts=words))


def test_every_config_builds(root):
    files = [p.relative_to(root / "configs") for p in (root / "configs").rglob("*.yaml")]
    files = [str(p.with_suffix("")) for p in files if p.parts[0] != "overlays"]
    names = sorted({*former_configs.NAMES, *files})
    assert len(names) >= 147
    for name in names:
        check_model(load(root, name))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize(
    ("folder", "depth"), [("", ""), ("", "_R_101"), ("digits/", "")], ids=["R50", "R101", "digits"]
)
def test_twins_differ_in_their_block_lines_alone(root, folder, depth, block):
    plain = load(root, f"{folder}mask_rcnn{depth}.yaml")
    other = load(root, f"{folder}{block}_mask_rcnn{depth}.yaml")
    assert plain.MODEL.CONTEXT.BLOCKS == []
    (line,) = other.MODEL.CONTEXT.BLOCKS
    assert line["at"] == "backbone.bottom_up.res4.-2"
    assert line["block"] == BLOCKS[block]
    plain.defrost()
    plain.MODEL.CONTEXT.BLOCKS = other.MODEL.CONTEXT.BLOCKS
    assert plain == other


def test_cityscapes_panoptic_differs_from_its_twin_in_its_block_and_fits_its_dataset(root):
    plain = load(root, "cityscapes/panoptic_fpn.yaml")
    other = load(root, "cityscapes/ccnet_panoptic_fpn.yaml")
    assert differences(plain, other) == {"MODEL.CONTEXT.BLOCKS"} and not plain.MODEL.CONTEXT.BLOCKS
    (line,) = other.MODEL.CONTEXT.BLOCKS
    assert line == {"at": "backbone.bottom_up.res4.-2", "block": "CrissCross", "recurrence": 2}
    for name in (*plain.DATASETS.TRAIN, *plain.DATASETS.TEST):
        metadata = MetadataCatalog.get(name)
        assert len(metadata.thing_classes) == plain.MODEL.ROI_HEADS.NUM_CLASSES == 8
        assert len(metadata.stuff_classes) == plain.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 12
        assert metadata.ignore_label == plain.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    assert plain.INPUT.MASK_FORMAT == "bitmask"  # run lengths are no polygons
    assert not plain.DATALOADER.FILTER_EMPTY_ANNOTATIONS


FAR_CUE = {
    **{word: BLOCKS[word] for word in ("sa", "se", "nonlocal")},
    "ccnet_R1": "CrissCross",
    "ccnet_R2": "CrissCross",
}


@pytest.mark.parametrize("variant", ["cross", "any"])
@pytest.mark.parametrize("config", FAR_CUE)
def test_far_cue_differs_in_its_block_and_data_alone(root, config, variant):
    plain = load(root, "far_cue/any_plain.yaml")
    other = load(root, f"far_cue/{variant}_{config}.yaml")
    assert plain.MODEL.CONTEXT.BLOCKS == []
    (line,) = other.MODEL.CONTEXT.BLOCKS
    assert (line["at"], line["block"]) == ("backbone.conv3", FAR_CUE[config])
    assert line.get("recurrence") == {"ccnet_R1": 1, "ccnet_R2": 2}.get(config)
    plain.defrost()
    plain.MODEL.CONTEXT.BLOCKS = other.MODEL.CONTEXT.BLOCKS
    plain.DATASETS.TRAIN = (f"far_cue_{variant}_train",)
    plain.DATASETS.TEST = (f"far_cue_{variant}_val",)
    assert plain == other


def test_moving_cue_differs_in_its_frames_alone(root):
    five, one = (load(root, f"moving_cue/{name}.yaml") for name in ("T5", "T1"))
    assert differences(five, one) == {"INPUT.CLIP.FRAMES"}
    assert (five.INPUT.CLIP.FRAMES, one.INPUT.CLIP.FRAMES) == (5, 1)


@pytest.mark.parametrize("depth", [50, 101])
def test_camvid_video_is_the_image_model_on_clips(root, depth):
    image = load(root, f"camvid/ccnet_R_{depth}_os8_361x481_10k.yaml")
    video = load(root, f"camvid/ccnet3d_R_{depth}_os8_361x481_10k.yaml")
    changed = {"MODEL.CONTEXT.META_ARCHITECTURE", HEAD + "NAME"}
    assert differences(image, video) == changed
    assert Clip.of(video) == Clip(frames=5, labelled=4, step=1, source="raw")


def test_coco_follows_the_papers_schedule(root):
    for name, weights in (("ccnet_mask_rcnn", "R-50"), ("ccnet_mask_rcnn_R_101", "R-101")):
        cfg = load(root, f"{name}.yaml")
        solver = cfg.SOLVER
        assert (solver.MAX_ITER, solver.IMS_PER_BATCH, solver.BASE_LR) == (90000, 16, 0.02)
        assert tuple(solver.STEPS) == (60000, 80000)
        assert solver.REFERENCE_WORLD_SIZE == 8
        assert weights in cfg.MODEL.WEIGHTS
        assert cfg.MODEL.CONTEXT.BLOCKS[0]["recurrence"] == 2
        assert cfg.DATASETS.TRAIN == ("coco_2017_train",)


def differences(a, b, prefix=""):
    """The keys whose values differ."""
    found = set()
    for key in a:
        if isinstance(a[key], dict) and isinstance(b[key], dict):
            found |= differences(a[key], b[key], f"{prefix}{key}.")
        elif a[key] != b[key]:
            found.add(prefix + key)
    return found


@pytest.mark.parametrize("name", SEMANTIC)
def test_semantic_configs_fit_their_datasets(root, name):
    cfg = load(root, f"{name}.yaml")
    head, solver = cfg.MODEL.SEM_SEG_HEAD, cfg.SOLVER
    for dataset in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        metadata = MetadataCatalog.get(dataset)
        assert len(metadata.stuff_classes) == head.NUM_CLASSES
        assert metadata.ignore_label == head.IGNORE_VALUE == 255
    assert head.NORM == "SyncBN"
    assert (solver.REFERENCE_WORLD_SIZE, solver.IMS_PER_BATCH % 4) == (4, 0)
    assert (solver.LR_SCHEDULER_NAME, solver.POLY_LR_POWER) == ("WarmupPolyLR", 0.9)
    assert isinstance(build_train_mapper(cfg), SemanticMapper)


@pytest.mark.parametrize("name", [n for n in SEMANTIC if n not in TIMM])
def test_semantic_configs_have_the_backbone_of_their_name(root, name):
    cfg = load(root, f"{name}.yaml")
    assert cfg.MODEL.RESNETS.NORM == "SyncBN"
    assert cfg.SOLVER.WEIGHT_DECAY == cfg.SOLVER.WEIGHT_DECAY_NORM
    assert f"_os{cfg.MODEL.RESNETS.OUTPUT_STRIDE}_" in name
    assert f"_R_{cfg.MODEL.RESNETS.DEPTH}_" in name
    weights = {50: "R-52", 101: "R-103"}[cfg.MODEL.RESNETS.DEPTH]
    assert f"detectron2://DeepLab/{weights}.pkl" == cfg.MODEL.WEIGHTS


@pytest.mark.parametrize("name", TIMM)
def test_timm_configs_have_the_backbone_of_their_name(root, name):
    """And pixels are scaled as that model's are, not as the base has them."""
    cfg = load(root, f"{name}.yaml")
    keys = cfg.MODEL.TIMM
    assert f"_{keys.NAME.partition('.')[0].removeprefix('tf_')}_os{keys.OUTPUT_STRIDE}_" in name
    assert (cfg.MODEL.BACKBONE.NAME, cfg.MODEL.WEIGHTS) == ("build_timm_backbone", "timm://hub")
    assert keys.NAME in timm.list_pretrained()
    other = load(root, f"{name}.yaml", "MODEL.TIMM.NAME", "test_convnext.r160_in1k")
    assert other.MODEL.PIXEL_MEAN == [127.5] * 3 != cfg.MODEL.PIXEL_MEAN
    changed = differences(cfg, load(root, "pascal_context/sanet_R_50_os8_480_80ep.yaml"))
    changed = {key for key in changed if not key.startswith("MODEL.TIMM.")}
    classes = (
        {HEAD + "NUM_CLASSES", "DATASETS.TRAIN", "DATASETS.TEST"} if "60cls" in name else set()
    )
    optimizer = {key for key in changed if key.startswith("SOLVER.") and "convnext" in name}
    blocks = {HEAD + "SANET.BLOCKS"} if "noblock" in name else set()
    assert changed == {"MODEL.BACKBONE.NAME", "MODEL.WEIGHTS"} | classes | optimizer | blocks


def test_efficientnets_differ_in_their_size_alone(root):
    first = load(root, f"{EFFICIENTNET.format(0)}.yaml")
    for size in range(1, 8):
        other = load(root, f"{EFFICIENTNET.format(size)}.yaml")
        assert differences(first, other) == {"MODEL.TIMM.NAME"}


def test_the_convnext_twins_differ_in_their_block_alone(root):
    names = ("mask_rcnn_convnext_tiny", "ccnet_mask_rcnn_convnext_tiny")
    plain, other = (load(root, f"{name}.yaml") for name in names)
    assert differences(plain, other) == {"MODEL.CONTEXT.BLOCKS"}
    (line,) = other.MODEL.CONTEXT.BLOCKS
    assert (line["at"].split(".")[-3:], line["block"]) == (
        ["stages_2", "blocks", "-2"],
        "CrissCross",
    )


@pytest.mark.parametrize("name", [n for n in SEMANTIC if n.rpartition("_")[2] in ABLATIONS])
def test_semantic_twins_differ_in_their_block_lines_alone(root, name):
    plain, _, kind = name.rpartition("_")
    changed = differences(load(root, f"{plain}.yaml"), load(root, f"{name}.yaml"))
    assert changed == ABLATIONS[kind]


@pytest.mark.parametrize("name", [n for n in SEMANTIC if "_R_101_" in n])
def test_depths_differ_in_backbone_and_weights_alone(root, name):
    other = load(root, f"{name.replace('_R_101_', '_R_50_').removesuffix('_ohem')}.yaml")
    changed = differences(load(root, f"{name}.yaml"), other)
    assert changed - {HEAD + "OHEM.ENABLED"} == {"MODEL.RESNETS.DEPTH", "MODEL.WEIGHTS"}


@pytest.mark.parametrize("name", [n for n in SEMANTIC if "/fcn_" in n])
def test_the_plain_fcn_trains_as_sanet_does(root, name):
    changed = differences(
        load(root, f"{name}.yaml"), load(root, f"{name}.yaml".replace("/fcn", "/sanet"))
    )
    features = {HEAD + "IN_FEATURES", "MODEL.RESNETS.OUT_FEATURES"}
    assert changed == {HEAD + "NAME", HEAD + "AUX.WEIGHT", *features}


# The semantic configurations of digits: the one that each derives from, and what differs.
DIGITS = {
    "ccnet": ("fcn", {HEAD + "NAME"}),
    "ccnet_r0": ("ccnet", {HEAD + "BLOCKS"}),
    "sanet": ("fcn", {HEAD + key for key in ("NAME", "IN_FEATURES", *SANET)}),
    "senet": ("sanet", {HEAD + "SANET.BLOCKS"}),
    "sanet_noblock": ("sanet", {HEAD + "SANET.BLOCKS"}),
}


@pytest.mark.parametrize("name", DIGITS)
def test_semantic_configs_of_digits_are_twins(root, name):
    other, keys = DIGITS[name]
    cfg = load(root, f"digits/{name}.yaml")
    assert differences(cfg, load(root, f"digits/{other}.yaml")) == keys
    blocks = cfg.MODEL.SEM_SEG_HEAD
    blocks = blocks.BLOCKS if name.startswith("ccnet") else blocks.SANET.BLOCKS
    wanted = {
        "ccnet": ["CrissCross"],
        "sanet": ["SqueezeAttention"],
        "senet": ["SqueezeExcitation"],
    }
    assert [block["block"] for block in blocks] == wanted.get(name, [])


def test_semantic_configs_of_digits_fit_the_dataset(root):
    cfg = load(root, "digits/fcn.yaml")
    (train,), (test,) = cfg.DATASETS.TRAIN, cfg.DATASETS.TEST
    assert (train, test) == ("digits_train_sem_seg", "digits_val_sem_seg")
    head = cfg.MODEL.SEM_SEG_HEAD
    assert len(MetadataCatalog.get(train).stuff_classes) == head.NUM_CLASSES == 13
    assert MetadataCatalog.get(train).ignore_label == head.IGNORE_VALUE
    assert cfg.INPUT.RANDOM_FLIP == "none"
    assert isinstance(build_train_mapper(cfg), SemanticMapper)


def test_the_fcn_is_sanet_with_nothing_but_its_dense_part(root):
    fcn, sanet = (load(root, f"digits/{name}.yaml") for name in ("fcn", "sanet"))
    sanet.defrost()
    keys = sanet.MODEL.SEM_SEG_HEAD.SANET
    keys.BLOCKS, keys.MASK_WEIGHT, keys.CATEGORY_WEIGHT, keys.DENSE_WEIGHT = [], 0.0, 0.0, 1.0
    shapes = [
        sorted(tuple(p.shape) for p in Trainer.build_model(cfg).parameters())
        for cfg in (fcn, sanet)
    ]
    assert shapes[0] == shapes[1]


def test_every_dataset_has_both_depths_with_and_without_blocks_and_ccl():
    for name in FAMILIES:
        stems = {n.partition("/")[2] for n in SEMANTIC if n.startswith(f"{name}/")}
        for depth in ("R_50", "R_101"):
            kinds = {s.rpartition("_")[2] for s in stems if s.startswith(f"ccnet_{depth}")}
            assert {"r0", "ccl"} < kinds
        if name.startswith("pascal"):
            for start in ("sanet_R_50", "sanet_R_101", "fcn_R_50", "fcn_R_101"):
                assert any(s.startswith(start) for s in stems)


def test_blocks_are_what_the_names_say(root):
    stem = "cityscapes/ccnet_R_101_os8_769_60k"
    recurrences = {"": 2, "_r1": 1, "_r3": 3}
    for suffix, recurrence in recurrences.items():
        (line,) = load(root, f"{stem}{suffix}.yaml").MODEL.SEM_SEG_HEAD.BLOCKS
        assert (line["block"], line["recurrence"]) == ("CrissCross", recurrence)
    assert load(root, f"{stem}_r0.yaml").MODEL.SEM_SEG_HEAD.BLOCKS == []
    (line,) = load(root, f"{stem}_nonlocal.yaml").MODEL.SEM_SEG_HEAD.BLOCKS
    assert line["block"] == "NonLocal"
    stem = "pascal_context/sanet_R_50_os8_480_20ep"
    blocks = {"": "SqueezeAttention", "_se": "SqueezeExcitation"}
    for suffix, block in blocks.items():
        (line,) = load(root, f"{stem}{suffix}.yaml").MODEL.SEM_SEG_HEAD.SANET.BLOCKS
        assert line["block"] == block
    assert load(root, f"{stem}_noblock.yaml").MODEL.SEM_SEG_HEAD.SANET.BLOCKS == []


def test_settings_that_the_papers_give(root):
    cfg = load(root, "cityscapes/ccnet_R_101_os8_769_60k.yaml")
    solver, head = cfg.SOLVER, cfg.MODEL.SEM_SEG_HEAD
    assert (solver.BASE_LR, solver.MAX_ITER, solver.IMS_PER_BATCH) == (0.01, 60000, 8)
    assert (solver.WEIGHT_DECAY, solver.MOMENTUM, solver.WARMUP_ITERS) == (1e-4, 0.9, 0)
    assert (cfg.INPUT.SEM_SEG.SCALE_RANGE, cfg.INPUT.SEM_SEG.SCALE_STEP) == ([0.7, 2.1], 0.1)
    assert cfg.INPUT.CROP.SIZE == cfg.TEST.TILES.SIZE == [769, 769]
    assert (head.ACTIVATION, head.AUX.CHANNELS, head.AUX.WEIGHT) == ("leaky_relu", 512, 0.4)
    assert head.ALIGN_CORNERS and cfg.TEST.TILES.OVERLAP == [256, 256]
    for name, images, epochs, rate in (
        ("pascal_context/sanet_R_101_os8_480_80ep", 4998, 80, 0.001),
        ("pascal_context/sanet_R_50_os8_480_20ep", 4998, 20, 0.001),
        ("pascal_voc/sanet_R_50_os8_480_50ep_finetune", 1464, 50, 0.0001),
    ):
        cfg = load(root, f"{name}.yaml")
        assert (rate, 16) == (cfg.SOLVER.BASE_LR, cfg.SOLVER.IMS_PER_BATCH)
        assert pytest.approx(images * epochs / 16, abs=1) == cfg.SOLVER.MAX_ITER
        keys = cfg.MODEL.SEM_SEG_HEAD.SANET
        assert (keys.MASK_WEIGHT, keys.CATEGORY_WEIGHT, keys.DENSE_WEIGHT) == (1.0, 0.2, 0.8)


def test_configs_of_converted_weights_differ_as_the_programs_do(root):
    mmseg, deeper, official = (load(root, f"{name}.yaml") for name in CONVERTED)
    assert [cfg.MODEL.WEIGHTS for cfg in (mmseg, deeper, official)] == ["", "", ""]
    assert differences(mmseg, deeper) == {"MODEL.RESNETS.DEPTH"}
    ours = load(root, "cityscapes/ccnet_R_101_os8_769_60k.yaml")
    images = {"MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "INPUT.FORMAT"}
    assert differences(ours, official) == {"MODEL.WEIGHTS", *images}
    for cfg, backbone, head, sliding in (
        (mmseg, (64, False, True), ("relu", False, 256), False),
        (official, (128, True, False), ("leaky_relu", True, 512), True),
    ):
        keys = cfg.MODEL.RESNETS
        found = keys.STEM_OUT_CHANNELS, keys.STEM_CEIL_MODE, keys.CONTRACT_DILATION
        assert found == backbone
        keys = cfg.MODEL.SEM_SEG_HEAD
        assert head == (keys.ACTIVATION, keys.ALIGN_CORNERS, keys.AUX.CHANNELS)
        assert [line["recurrence"] for line in keys.BLOCKS] == [2]
        assert sliding == cfg.TEST.TILES.ENABLED and cfg.INPUT.MIN_SIZE_TEST == 0
        assert cfg.DATASETS.TEST == ("cityscapes_sem_seg_val",)


@pytest.mark.parametrize("depth", [50, 101])
def test_the_backbone_has_every_key_of_detectron2s_deeplab(root, depth):
    """Its ImageNet weights are those the configurations name."""
    cfg = load(root, f"pascal_voc/ccnet_R_{depth}_os8_480_80ep.yaml")
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    with torch.device("meta"):
        ours = build_backbone(cfg)
        cfg.MODEL.BACKBONE.NAME = "build_resnet_deeplab_backbone"
        cfg.MODEL.RESNETS.RES4_DILATION, cfg.MODEL.RESNETS.RES5_DILATION = 2, 4
        cfg.MODEL.RESNETS.RES5_MULTI_GRID = [1, 1, 1]
        theirs = build_backbone(cfg)
    shapes, wanted = (
        {key: value.shape for key, value in model.state_dict().items()} for model in (ours, theirs)
    )
    assert shapes == wanted
    assert ours.stem.conv2.weight.shape == (64, 64, 3, 3)
    convolutions = [
        {
            name: (m.stride, m.dilation, m.padding)
            for name, m in model.named_modules()
            if hasattr(m, "dilation")
        }
        for model in (ours, theirs)
    ]
    assert convolutions[0] == convolutions[1]
