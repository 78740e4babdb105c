"""The plan for training on a user's own data: sizes, anchors, limits and the schedule."""

import argparse
import itertools

import numpy as np
import pytest
from detectron2.engine import DefaultTrainer

from ccsa.data.statistics import Statistics, statistics
from ccsa.data.tasks import TaskData
from ccsa.engine import setup_cfg
from ccsa.engine.checks import check_model
from ccsa.engine.data_plan import STRIDE, default_epochs, plan

CASCADE = (
    *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads"),
    *("MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", "True"),
)
ONE_LEVEL = (
    *("MODEL.ANCHOR_GENERATOR.SIZES", "[[32, 64, 128]]", "MODEL.RPN.IN_FEATURES", "['res4']"),
    *("MODEL.BACKBONE.NAME", "build_resnet_backbone", "MODEL.RESNETS.OUT_FEATURES", "['res4']"),
    *("MODEL.ROI_HEADS.IN_FEATURES", "['res4']"),
)
RETINANET = (
    *("MODEL.ANCHOR_GENERATOR.SIZES", str([[32, 40.3, 50.8]] * 5)),
    *("MODEL.CONTEXT.META_ARCHITECTURE", "RetinaNet", "MODEL.MASK_ON", "False"),
    *("MODEL.BACKBONE.NAME", "build_retinanet_resnet_fpn_backbone"),
    *("MODEL.FPN.IN_FEATURES", "['res3', 'res4', 'res5']"),
)
DETECTORS = {
    "five levels": ("own/mask_rcnn", ()),
    "four levels": ("digits/ccnet_mask_rcnn", ()),
    "full size": ("mask_rcnn", ("MODEL.WEIGHTS", "")),
    "one level": ("own/mask_rcnn", ONE_LEVEL),
    "retinanet": ("own/mask_rcnn", RETINANET),
    "cascade": ("own/mask_rcnn", CASCADE),
    "panoptic": ("own/panoptic_fpn", ()),
}
SEMANTIC = [
    *("own/ccnet", "own/sanet", "digits/fcn", "cityscapes/ccnet_R_50_os8_769_60k"),
    *("ade20k/ccnet_R_50_os8_100k", "pascal_context/sanet_R_50_os8_480_80ep"),
    *("lip/ccnet_R_50_os16_473_150ep", "pascal_voc/ccnet_R_50_os8_480_80ep"),
]


def configure(root, name, *options):
    file = str(root / "configs" / f"{name}.yaml")
    words = ["MODEL.DEVICE", "cpu", *map(str, options)]
    cfg = setup_cfg(argparse.Namespace(config_file=file, opts=words)).clone()
    cfg.defrost()
    return cfg


def data(images=100, size=(480, 640), objects=40.0, count=5, rare=0, **changes):
    """Statistics of images of one size with objects of one size."""
    short, long = sorted(size)
    lengths = np.full(images * count, float(objects))
    values = {
        "images": images,
        "short": short,
        "long": long,
        "ratio": long / short,
        "longest": long,
        "object_sizes": lengths,
        "object_shares": lengths / short,
        "object_ratios": np.ones(len(lengths)),
        "counts": np.full(images, count),
        "class_counts": {"common": images * count, "rare": rare},
        "class_images": {"common": images, "rare": rare},
        "counted": images,
    }
    return Statistics(**{**values, **changes})


def decide(cfg, found, epochs=None, detector=True, written=(), validation=None):
    decisions = plan(cfg, found, epochs, detector=detector, written=written, validation=validation)
    assert len({d.key for d in decisions}) == len(decisions)
    assert all(d.reason and "\n" not in d.reason for d in decisions)
    return {d.key: d.value for d in decisions}


def apply(cfg, values):
    for key, value in values.items():
        cfg.merge_from_list([key, value])


DATA = {
    "nuclei": data(65, (128, 128), 20, 16),
    "eight images": data(8),
    "huge image": data(1, (14_000, 14_000), 300, 200),
    "tiny objects": data(100, (1000, 1000), 4, 50),
    "large objects": data(50, (3000, 4000), 2000, 1),
    "crowded": data(30, (1024, 1024), 16, 500),
    "as many as COCO": data(100_000, count=7),
}


@pytest.mark.parametrize("kind", DETECTORS)
def test_detectors_build_and_find_all_objects(root, kind):
    name, options = DETECTORS[kind]
    cfg = configure(root, name, *options)
    for found in DATA.values():
        planned = cfg.clone()
        values = decide(planned, found)
        apply(planned, values)
        size, longest = values["INPUT.MIN_SIZE_TEST"], values["INPUT.MAX_SIZE_TEST"]
        assert size % STRIDE == 0 and 160 <= size <= longest <= 1333
        assert max(values["INPUT.MIN_SIZE_TRAIN"]) <= values["INPUT.MAX_SIZE_TRAIN"]
        most = found.counts.max()
        assert values["TEST.DETECTIONS_PER_IMAGE"] >= max(100, 1.5 * most)
        assert "MODEL.RETINANET.NUM_CLASSES" not in values
        if kind == "retinanet":
            assert values["MODEL.RETINANET.TOPK_CANDIDATES_TEST"] >= 2 * most
            assert not any("RPN" in key or "ROI" in key for key in values)
        else:
            assert values["MODEL.RPN.POST_NMS_TOPK_TEST"] >= 2 * most
            assert values["MODEL.RPN.BATCH_SIZE_PER_IMAGE"] >= 128
        sizes = list(itertools.chain(*planned.MODEL.ANCHOR_GENERATOR.SIZES))
        length = float(np.median(found.object_shares)) * size
        if length >= 8:
            # A square of 1.5 times the size of an anchor has an IoU of 0.44 with it.
            assert any(1 / 1.6 <= length / anchor <= 1.6 for anchor in sizes), (length, sizes)
    check_model(planned)


@pytest.mark.parametrize("kind", ["five levels", "four levels", "one level"])
def test_anchors_cover_small_and_large_objects_of_one_dataset(root, kind):
    name, options = DETECTORS[kind]
    lengths = np.geomspace(8, 600, 1000)
    found = data(200, (800, 800), count=5, object_sizes=lengths, object_shares=lengths / 800)
    sizes = decide(configure(root, name, *options), found)["MODEL.ANCHOR_GENERATOR.SIZES"]
    anchors = np.array(list(itertools.chain(*sizes)))
    inside = lengths[(lengths > 10) & (lengths < 500)]
    ratios = np.abs(np.log2(inside[:, None] / anchors)).min(axis=1)
    assert ratios.max() < 0.8, sizes
    assert len({len(level) for level in sizes}) == 1  # as many anchors on every level


@pytest.mark.parametrize("name", SEMANTIC)
def test_semantic_models_keep_crops_within_the_images(root, name):
    cfg = configure(root, name)
    for found in DATA.values():
        values = decide(cfg, found, detector=False)
        assert not any("ROI" in key or "RPN" in key or "ANCHOR" in key for key in values)
        planned = cfg.clone()
        apply(planned, values)
        long = planned.INPUT.SEM_SEG.LONG_SIDE or found.long
        assert planned.INPUT.MIN_SIZE_TEST <= 2048
        assert long <= 2048 or not planned.INPUT.SEM_SEG.SCALE_RANGE
        if planned.INPUT.CROP.ENABLED:
            assert max(planned.INPUT.CROP.SIZE) <= max(long, max(planned.INPUT.MIN_SIZE_TRAIN)) + 31
        if planned.TEST.TILES.ENABLED:
            assert planned.TEST.TILES.SIZE == planned.INPUT.CROP.SIZE


def test_images_of_both_orientations_keep_their_longer_side(root):
    records = [
        {"height": h, "width": w, "annotations": [], "file_name": ""}
        for h, w in [(480, 640), (640, 480)] * 5
    ]
    found = statistics(TaskData("detection", ["a"], [], {"train": records}))
    assert (found.short, found.long) == (480, 640)
    values = decide(configure(root, "own/mask_rcnn"), found)
    assert (values["INPUT.MIN_SIZE_TEST"], values["INPUT.MAX_SIZE_TEST"]) == (480, 640)


def test_iterations_follow_from_images_and_epochs(root):
    cfg = configure(root, "own/mask_rcnn", "SOLVER.IMS_PER_BATCH", "4")
    values = decide(cfg, data(100), 10)
    assert values["SOLVER.MAX_ITER"] == 250  # batches of 4
    assert values["SOLVER.STEPS"] == (166, 222)
    assert values["TEST.EVAL_PERIOD"] == values["SOLVER.CHECKPOINT_PERIOD"] == 32
    assert decide(cfg, data(100))["SOLVER.MAX_ITER"] == default_epochs(100) * 25
    with_empty = data(100, counts=np.repeat([0, 5], 50))
    assert (
        decide(cfg, with_empty, 10)["SOLVER.MAX_ITER"] == 125
    )  # images without objects are left out


def test_weights_that_are_fine_tuned_get_a_lower_learning_rate(root):
    cfg = configure(root, "own/mask_rcnn")
    assert "SOLVER.BASE_LR" not in decide(cfg, data())
    cfg.MODEL.WEIGHTS = "model_final.pth"
    assert decide(cfg, data())["SOLVER.BASE_LR"] < cfg.SOLVER.BASE_LR
    assert "SOLVER.BASE_LR" not in decide(cfg, data(), written={"SOLVER.BASE_LR"})
    assert "SOLVER.BASE_LR" not in decide(configure(root, "mask_rcnn"), data())  # SGD


@pytest.mark.parametrize(("iterations", "warmup"), [(3, 1), (100, 20), (400, 60), (30_000, 1000)])
def test_short_runs_are_warmed_up_longer(root, iterations, warmup):
    cfg = configure(root, "own/mask_rcnn", "SOLVER.MAX_ITER", iterations)
    values = decide(cfg, data(), written={"SOLVER.MAX_ITER"})
    assert values["SOLVER.WARMUP_ITERS"] == warmup


def test_epochs_stay_the_same_for_another_number_of_processes(root):
    cfg = configure(root, "mask_rcnn", "MODEL.WEIGHTS", "")  # 16 images on 8 processes
    apply(cfg, decide(cfg, data(800), 10))
    for processes in (1, 2, 8):
        scaled = DefaultTrainer.auto_scale_workers(cfg, processes)
        assert scaled.SOLVER.MAX_ITER * scaled.SOLVER.IMS_PER_BATCH == 8000
        assert max(scaled.SOLVER.STEPS) <= scaled.SOLVER.MAX_ITER


def test_what_the_user_wrote_is_kept_and_followed(root, recwarn):
    cfg = configure(root, "own/mask_rcnn", "SOLVER.MAX_ITER", 20, "INPUT.MIN_SIZE_TEST", 960)
    values = decide(cfg, data(), written={"SOLVER.MAX_ITER", "INPUT.MIN_SIZE_TEST"})
    assert not {"SOLVER.MAX_ITER", "INPUT.MIN_SIZE_TEST"} & set(values)
    assert max(values["SOLVER.STEPS"]) <= 20 and values["SOLVER.WARMUP_ITERS"] <= 20
    assert values["MODEL.ANCHOR_GENERATOR.SIZES"][0] == [64]  # 40 pixels become 80


def test_images_of_rare_classes_are_repeated(root):
    cfg = configure(root, "own/mask_rcnn")
    values = decide(cfg, data(100, rare=3))
    assert values["DATALOADER.SAMPLER_TRAIN"] == "RepeatFactorTrainingSampler"
    assert values["DATALOADER.REPEAT_THRESHOLD"] == 0.1
    for found in (data(100, rare=30), data(100, rare=0), data(10, rare=1)):
        assert "DATALOADER.SAMPLER_TRAIN" not in decide(cfg, found)


def test_objects_that_become_too_small_are_reported(root, logged):
    cfg = configure(root, "own/mask_rcnn")
    decide(cfg, data())
    assert "at the input size" not in logged.text
    decide(cfg, data(1, (14_000, 14_000), 50, 200))
    assert "2.9 pixels at the input size" in logged.text and "into tiles" in logged.text


def test_slender_objects_get_slender_anchors(root):
    cfg = configure(root, "own/mask_rcnn")
    key = "MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS"
    assert decide(cfg, data())[key] == [[0.5, 1.0, 2.0]]
    ratios = np.full(500, 0.15)
    assert decide(cfg, data(object_ratios=ratios))[key] == [[0.25, 0.5, 1.0, 2.0, 4.0]]


@pytest.mark.parametrize(
    ("key", "value", "other"),
    [
        ("INPUT.MIN_SIZE_TRAIN", (1600,), "INPUT.MAX_SIZE_TRAIN"),
        ("INPUT.MIN_SIZE_TEST", 1600, "INPUT.MAX_SIZE_TEST"),
        ("INPUT.MAX_SIZE_TRAIN", 100, "INPUT.MIN_SIZE_TRAIN"),
        ("INPUT.MAX_SIZE_TEST", 100, "INPUT.MIN_SIZE_TEST"),
    ],
)
def test_the_other_side_fits_the_one_that_the_user_wrote(root, key, value, other):
    cfg = configure(root, "own/mask_rcnn")
    section, name = key.split(".")
    cfg[section][name] = value
    [decision] = [d for d in plan(cfg, data(), detector=True, written={key}) if d.key == other]
    if "MAX" in other:
        assert decision.value >= 1600
    else:
        assert decision.value in (100, (100,))


TILES = data(65, (128, 128), 20, 16)


def test_validation_images_get_the_scale_of_training_tiles(root):
    cfg = configure(root, "own/mask_rcnn")
    alone = decide(cfg, TILES)
    values = decide(cfg, TILES, validation=data(2, (256, 512), 20, 150))
    changed = {key: value for key, value in values.items() if alone[key] != value}
    size = alone["INPUT.MIN_SIZE_TEST"]
    assert changed.pop("INPUT.MIN_SIZE_TEST") == 2 * size
    assert changed.pop("INPUT.MAX_SIZE_TEST") == 4 * size
    # The limits of the evaluation change as well, and nothing that is used for training.
    assert changed.pop("TEST.DETECTIONS_PER_IMAGE") == 250
    assert set(changed) == {f"MODEL.RPN.{when}_NMS_TOPK_TEST" for when in ("PRE", "POST")}
    written = {"INPUT.MIN_SIZE_TEST"}
    cfg.INPUT.MIN_SIZE_TEST = 4 * size  # tiles of twice the size
    enlarged = decide(cfg, TILES, written=written, validation=data(2, (256, 512), 20, 16))
    key = "MODEL.ANCHOR_GENERATOR.SIZES"
    assert enlarged[key] == [[2 * length for length in sizes] for sizes in alone[key]]


@pytest.mark.parametrize(
    "validation",
    [
        data(2, (256, 256), 40, 16),  # the same scenes by a camera of twice the resolution
        data(2, (128, 128), 40, 16),  # larger objects in images of the same size
        data(2, (128, 128), 20, 0),  # no objects
        None,
    ],
)
def test_other_validation_images_get_the_size_of_training_images(root, validation):
    cfg = configure(root, "own/mask_rcnn")
    values = decide(cfg, TILES, validation=validation)
    assert values == decide(cfg, TILES)


def test_a_semantic_model_ignores_the_sizes_of_validation_objects(root):
    cfg = configure(root, "own/ccnet")
    other = data(2, (256, 512), 20, 150)
    assert decide(cfg, TILES, detector=False, validation=other) == decide(
        cfg, TILES, detector=False
    )
