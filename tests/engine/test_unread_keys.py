"""Keys that the user wrote and nothing reads, and settings that need too much memory."""

import argparse
import copy
import pickle

import pytest
from detectron2.config import CfgNode
from support.refusals import message

from ccsa.engine.checks import check_run
from ccsa.engine.setup import setup_cfg
from ccsa.engine.unread_keys import recorded
from ccsa.utils import memory


@pytest.fixture
def check(root, tmp_path):
    """Return a function that checks a run with KEY VALUE pairs, as tools/train_net.py does."""

    def run(config, words="", text="", **changes):
        file = root / "configs" / "digits" / f"{config}.yaml"
        if text:
            (tmp_path / "mine.yaml").write_text(f"_BASE_: {file}\n{text}")
            file = tmp_path / "mine.yaml"
        options = f"MODEL.DEVICE cpu {words}".split()
        args = argparse.Namespace(config_file=str(file), opts=options, resume=False)
        vars(args).update(num_gpus=1, num_machines=1, eval_only=False, **changes)
        check_run(setup_cfg(args), args)

    return run


def test_reads_are_recorded_in_copies_too():
    cfg, reads = recorded(CfgNode({"A": {"B": {"C": 1, "D": 2}, "E": [3]}, "F": 4}))
    assert not reads
    assert (copy.deepcopy(cfg.A).B.C, cfg.A["E"], cfg.F) == (1, [3], 4)
    assert reads == {"A.B.C", "A.E", "F"}
    dump = cfg.clone().dump()  # reads nothing in particular
    assert "D: 2" in dump and reads == {"A.B.C", "A.E", "F"}
    pickle.loads(pickle.dumps(cfg))


UNREAD = [
    ("mask_rcnn", "MODEL.SEM_SEG_HEAD.NUM_CLASSES 7", "MODEL.SEM_SEG_HEAD.NUM_CLASSES has no"),
    ("mask_rcnn", "MODEL.RETINANET.NUM_CLASSES 7", "MODEL.RETINANET.NUM_CLASSES has no effect"),
    ("mask_rcnn", "SOLVER.POLY_LR_POWER 0.5", "SOLVER.POLY_LR_POWER has no effect, because no"),
    ("mask_rcnn", "TEST.AUG.MAX_SIZE 5000", "because TEST.AUG.ENABLED is False"),
    ("mask_rcnn", "DATALOADER.REPEAT_THRESHOLD 0.1", "SAMPLER_TRAIN is TrainingSampler"),
    ("mask_rcnn", "SOLVER.CLIP_GRADIENTS.CLIP_VALUE 5", "CLIP_GRADIENTS.ENABLED is False"),
    ("fcn", "MODEL.ROI_HEADS.NUM_CLASSES 7", "MODEL.ROI_HEADS.NUM_CLASSES has no effect"),
    ("fcn", "MODEL.SEM_SEG_HEAD.BLOCKS []", "MODEL.SEM_SEG_HEAD.BLOCKS has no effect"),
    ("fcn", "SOLVER.GAMMA 0.5 SOLVER.STEPS (5,)", "SOLVER.GAMMA, SOLVER.STEPS have no"),
    ("fcn", "TEST.SEM_SEG_AVERAGE softmax", "because TEST.TILES.ENABLED and"),
    ("fcn", "INPUT.CROP.TYPE absolute", "because INPUT.CROP.ENABLED is False"),
    ("fcn", "MODEL.FPN.OUT_CHANNELS 32", "MODEL.FPN.OUT_CHANNELS has no effect"),
    ("fcn", "TEST.PANOPTIC_FILES True", "because the model has no panoptic segmentation"),
    ("fcn", "INPUT.CLIP.FRAMES 3", "because the model takes images, not clips"),
    ("fcn", "GLOBAL.HACK 2.0", "GLOBAL.HACK has no effect, because Detectron2 does not use it"),
    ("fcn", "DATASETS.OWN.NAME mine", "because DATASETS.OWN.ROOT is empty"),
    (
        "mask_rcnn",
        "DATASETS.PROPOSAL_FILES_TRAIN ['x'] DATASETS.PRECOMPUTED_PROPOSAL_TOPK_TEST 3",
        "have no effect, because MODEL.LOAD_PROPOSALS is False",
    ),
]


@pytest.mark.parametrize(("config", "words", "expected"), UNREAD, ids=lambda v: str(v)[:40])
def test_keys_without_effect_are_reported_in_one_line(check, logged, config, words, expected):
    check(config, words)
    lines = [r.getMessage() for r in logged.records if "no effect" in r.getMessage()]
    assert len(lines) == 1 and expected in lines[0] and "\n" not in lines[0]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("mask_rcnn", "MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.1 MODEL.RPN.NMS_THRESH 0.6"),
        ("mask_rcnn", "MODEL.ROI_MASK_HEAD.CONV_DIM 32 MODEL.ANCHOR_GENERATOR.OFFSET 0.5"),
        ("mask_rcnn", "SOLVER.GAMMA 0.5 SOLVER.STEPS (5,) SOLVER.WARMUP_FACTOR 0.1"),
        ("mask_rcnn", "INPUT.MIN_SIZE_TRAIN (96,) INPUT.RANDOM_FLIP horizontal"),
        ("mask_rcnn", "INPUT.CROP.ENABLED True INPUT.CROP.SIZE [0.5,0.5]"),
        ("ccnet", "MODEL.SEM_SEG_HEAD.BLOCKS [] MODEL.SEM_SEG_HEAD.DROPOUT 0.2"),
        ("ccnet", "SOLVER.POLY_LR_POWER 0.5 SOLVER.WEIGHT_DECAY_BIAS 0.0"),
        (
            "ccnet",
            "INPUT.CROP.ENABLED True INPUT.CROP.TYPE absolute INPUT.CROP.SIZE [64,64] "
            "INPUT.SEM_SEG.COLOR_JITTER.ENABLED True INPUT.SEM_SEG.COLOR_JITTER.HUE 9",
        ),
        ("panoptic_fpn", "MODEL.PANOPTIC_FPN.COMBINE.OVERLAP_THRESH 0.6"),
    ],
    ids=lambda v: str(v)[:40],
)
def test_keys_with_an_effect_are_not_reported(check, logged, config, words):
    check(config, words)
    assert not [r for r in logged.records if "no effect" in r.getMessage()]


def test_keys_of_a_file_count_and_long_lists_are_cut(check, logged):
    keys = ("SMOOTH_L1_BETA", "POOLER_SAMPLING_RATIO", "NUM_FC", "FC_DIM", "NUM_CONV", "CONV_DIM")
    lines = "".join(f"    {key}: 3\n" for key in keys)
    keys = ("CONV_DIM", "NUM_CONV", "POOLER_RESOLUTION", "POOLER_SAMPLING_RATIO")
    masks = "".join(f"    {key}: 3\n" for key in keys)
    check("fcn", text=f"MODEL:\n  ROI_BOX_HEAD:\n{lines}  ROI_MASK_HEAD:\n{masks}")
    (line,) = (r.getMessage() for r in logged.records if "no effect" in r.getMessage())
    assert "MODEL.ROI_BOX_HEAD.CONV_DIM, " in line and "and 2 more keys have no effect" in line


@pytest.mark.parametrize(
    ("config", "words", "expected"),
    [
        (
            "fcn",
            "INPUT.CROP.ENABLED True INPUT.CROP.TYPE absolute INPUT.CROP.SIZE [100000,100000]",
            "INPUT.CROP.SIZE asks for images of 100000",
        ),
        (
            "mask_rcnn",
            "INPUT.MIN_SIZE_TRAIN (900000,) INPUT.MAX_SIZE_TRAIN 900000",
            "INPUT.MIN_SIZE_TRAIN asks",
        ),
        (
            "mask_rcnn",
            "INPUT.MIN_SIZE_TEST 900000 INPUT.MAX_SIZE_TEST 900000",
            "INPUT.MIN_SIZE_TEST asks",
        ),
        (
            "mask_rcnn",
            "SOLVER.IMS_PER_BATCH 65536 INPUT.MIN_SIZE_TRAIN (5000,) INPUT.MAX_SIZE_TRAIN 5000",
            "a batch of 65536 images needs at least",
        ),
        (
            "mask_rcnn",
            "TEST.AUG.ENABLED True TEST.AUG.MIN_SIZES (900000,) TEST.AUG.MAX_SIZE 900000",
            "TEST.AUG.MIN_SIZES asks",
        ),
        (
            "fcn",
            "MODEL.SEM_SEG_HEAD.CONVS_DIM 65536 MODEL.RESNETS.RES2_OUT_CHANNELS 8192",
            "the weights of the model and their gradients need",
        ),
    ],
    ids=lambda v: str(v)[:40],
)
def test_settings_that_need_too_much_memory_are_refused(
    check, monkeypatch, config, words, expected
):
    monkeypatch.setattr("ccsa.engine.memory_limits.total_memory", lambda device: 4 << 30)
    assert expected in message(lambda: check(config, words))


def test_the_memory_of_this_machine_is_known():
    total = memory.total_memory(memory.torch.device("cpu"))
    assert total is None or 2**28 < total < 2**50


@pytest.mark.parametrize(
    ("config", "words", "expected"),
    [
        ("mask_rcnn", "TEST.SEM_SEG_AUG.ENABLED True", "for models of semantic segmentation"),
        ("panoptic_fpn", "TEST.SEM_SEG_AUG.ENABLED True", "PanopticFPN is not one"),
        ("panoptic_fpn", "TEST.AUG.ENABLED True", "the model is a PanopticFPN"),
        ("fcn", "TEST.AUG.ENABLED True", "use TEST.SEM_SEG_AUG.ENABLED True"),
        (
            "mask_rcnn",
            "TEST.PRECISE_BN.ENABLED True MODEL.RESNETS.NORM GN MODEL.FPN.NORM GN",
            "no batch norm that is trained",
        ),
    ],
    ids=lambda v: str(v)[:40],
)
def test_settings_that_the_model_would_ignore_are_refused(check, config, words, expected):
    assert expected in message(lambda: check(config, words))
