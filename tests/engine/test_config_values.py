"""Types and ranges of configuration values, in files and in KEY VALUE pairs."""

import argparse
import math

import pytest
from detectron2.config import get_cfg
from support.fuzz import settings as mutations
from support.refusals import message

from ccsa import add_ccsa_config
from ccsa.engine.config_files import read_config_file
from ccsa.engine.config_values import decode, find_value, merge_content, merge_options
from ccsa.engine.model_parts import all_values
from ccsa.engine.setup import setup_cfg
from ccsa.engine.values import RULES, problem
from ccsa.engine.values.check import check_values
from ccsa.errors import UserError


@pytest.fixture(scope="module")
def defaults():
    cfg = get_cfg()
    add_ccsa_config(cfg)
    return cfg


def test_every_key_has_a_rule_that_its_default_follows(defaults):
    values = all_values(defaults)
    own_form = {key for key in values if key.endswith("BLOCKS")} | {"MODEL.TIMM.ARGUMENTS"}
    assert set(values) - set(RULES) == own_form
    assert set(RULES) <= set(values)
    assert {key: problem(key, value, value) for key, value in values.items()} == dict.fromkeys(
        values, ""
    )


@pytest.mark.parametrize(
    ("key", "word", "expected"),
    [
        ("SOLVER.BASE_LR", "1", 1.0),
        ("SOLVER.BASE_LR", "1e-4", 1e-4),
        ("SOLVER.STEPS", "[3, 7]", (3, 7)),
        ("INPUT.CROP.SIZE", "(0.5, 1)", [0.5, 1]),
        ("OUTPUT_DIR", "2024", "2024"),
        ("MODEL.WEIGHTS", '""', ""),
        ("SOLVER.WEIGHT_DECAY_BIAS", "None", None),
        ("SOLVER.WEIGHT_DECAY_BIAS", "0.1", 0.1),
        ("SOLVER.CLIP_GRADIENTS.NORM_TYPE", "1e999", math.inf),
        ("DATASETS.LABEL_MAPPING", "{255: 1}", [{255: 1}]),
        ("INPUT.INTENSITY_RANGE", "[0, 4095]", [0, 4095]),
        ("MODEL.ANCHOR_GENERATOR.SIZES", "[[8], [16.5]]", [[8], [16.5]]),
        ("MODEL.RPN.BOUNDARY_THRESH", "-1", -1),
    ],
)
def test_valid_values_are_converted_to_the_type_of_the_key(defaults, key, word, expected):
    cfg = defaults.clone()
    merge_options(cfg, [key, word])
    value = find_value(cfg, key)
    assert value == expected and type(value) is type(expected)
    merge_content(cfg, {}, "x.yaml")


@pytest.mark.parametrize(
    ("key", "word", "end"),
    [
        ("SOLVER.MAX_ITER", "-5", "must be an integer from 1 to 1000000000, not -5"),
        ("SOLVER.MAX_ITER", "True", "must be an integer from 1 to 1000000000, not True"),
        ("SOLVER.BASE_LR", "-0.1", "must be a number above 0 and at most 1000000, not -0.1"),
        ("SOLVER.BASE_LR", "nan", "must be a number above 0 and at most 1000000, not 'nan'"),
        ("SOLVER.MOMENTUM", "1.0", "must be a number from 0 to below 1, not 1.0"),
        ("SOLVER.OPTIMIZER", "sgd", "must be one of SGD, AdamW, not 'sgd'"),
        ("INPUT.FORMAT", "BRG", "must be one of RGB, BGR, L, not 'BRG'"),
        ("MODEL.MASK_ON", "true", "must be True or False, not 'true'; write True"),
        ("VERSION", "1", "must be 2, not 1"),
        (
            "DATASETS.TRAIN",
            "digits_train",
            "must be a list of values, each text, not 'digits_train'; write a list, e.g. "
            "\"['digits_train']\"",
        ),
        (
            "SOLVER.STEPS",
            "(7, 3)",
            "must be a list of values, each larger than the one before it, and each an integer "
            "from 1 to 1000000000, not (7, 3)",
        ),
        (
            "TEST.EXPECTED_RESULTS",
            "[1]",
            "must be a list of values, each [task, metric, value, tolerance], not [1]",
        ),
        (
            "DATASETS.LABEL_MAPPING",
            "{-1: 1}",
            "must be a list of at most 1 values, each a mapping of label values to classes, e.g. "
            "{255: 1}, not [{-1: 1}]",
        ),
        ("SEED", "9" * 400, f"must be an integer from -1 to 4294901760, not {'9' * 57}..."),
    ],
)
def test_a_wrong_value_is_rejected_in_one_sentence(defaults, key, word, end):
    text = message(merge_options, defaults.clone(), [key, word])
    assert text == f"{key} (on the command line) {end}"


def test_a_value_in_a_file_names_the_file(defaults):
    for value, end in ((math.nan, "not nan"), ("-1", "not -1.0"), ([1], "not [1]")):
        content = {"SOLVER": {"BASE_LR": value}}
        text = message(merge_content, defaults.clone(), content, "x.yaml")
        assert (
            text
            == f"SOLVER.BASE_LR (in x.yaml) must be a number above 0 and at most 1000000, {end}"
        )


def test_a_key_given_twice_is_reported(defaults, logged):
    cfg = defaults.clone()
    merge_options(cfg, ["SEED", "1", "SEED", "2", "VERSION", "2", "VERSION", "2"])
    assert cfg.SEED == 2
    assert [r.message for r in logged.records] == [
        "SEED is given twice on the command line; the last value, '2', is used"
    ]


def test_words_that_are_no_literals_stay_words():
    words = ["digits_train", "[" * 300, "{[]: 1}", "1 +", "x" * 9999, "\u202e", "9" * 5000]
    assert [decode(word) for word in words] == words


def test_any_word_for_any_key_is_accepted_or_rejected_in_one_sentence(defaults):
    for key, word, verdict in mutations.options(all_values(defaults), seed=1, count=1200):
        cfg = defaults.clone()
        try:
            merge_options(cfg, [key, word])
            check_values(cfg)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 450, (key, word, str(error))
        else:
            assert verdict != mutations.REJECT or (key, word, verdict) in mutations.NAMED, (
                key,
                word,
            )


def test_damaged_files_are_rejected_in_one_sentence(root, tmp_path):
    base = str(root / "configs/digits/ccnet.yaml")
    for number, case in enumerate(mutations.config_files(base, seed=1, flips=60)):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in case.files.items():
            (folder / name).write_bytes(content)
        try:
            setup_cfg(argparse.Namespace(config_file=str(folder / "main.yaml")))
        except UserError as error:
            assert case.verdict != mutations.ACCEPT, (case.name, str(error))
            assert "\n" not in str(error) and len(str(error)) < 700, case.name
        else:
            assert case.verdict != mutations.REJECT, case.name


def test_a_file_that_two_files_extend_is_read_once(tmp_path):
    (tmp_path / "0.yaml").write_text("SEED: 3")
    for number in range(1, 40):
        text = f"_BASE_: [{number - 1}.yaml, {number - 1}.yaml]"
        (tmp_path / f"{number}.yaml").write_text(text)
    assert read_config_file(str(tmp_path / "39.yaml")) == {"SEED": 3}


RELATIONS = [
    (["INPUT.FORMAT", "L"], "MODEL.PIXEL_MEAN has 3 values and .* has 1 channels"),
    (["MODEL.PIXEL_STD", "[1.0, 1.0]"], "MODEL.PIXEL_STD 2, but .* has 3 channels"),
    (["INPUT.MAX_SIZE_TRAIN", "9"], "INPUT.MAX_SIZE_TRAIN 9 is below INPUT.MIN_SIZE_TRAIN 160"),
    (["INPUT.MAX_SIZE_TEST", "9"], "INPUT.MAX_SIZE_TEST 9 is below INPUT.MIN_SIZE_TEST 160"),
    (["INPUT.MIN_SIZE_TRAIN_SAMPLING", "range"], r"must be \[low, high\] for .* range"),
    (["INPUT.CROP.ENABLED", "True", "INPUT.CROP.SIZE", "[64, 64]"], "fractions of at most 1"),
    (
        ["INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", "absolute"],
        "whole pixels .* use TYPE relative",
    ),
    (
        ["MODEL.RPN.IOU_LABELS", "[0, 1]"],
        "MODEL.RPN.IOU_LABELS has 2 values and MODEL.RPN.IOU_THRESHOLDS 2",
    ),
    (
        ["MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_CASCADE_HEAD.IOUS", "[0.5]"],
        "has 1 IOUS and 3 BBOX_REG_WEIGHTS",
    ),
    (["SOLVER.NESTEROV", "True", "SOLVER.MOMENTUM", "0"], "SOLVER.NESTEROV True needs"),
    (
        ["SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.BASE_LR_END", "5"],
        "BASE_LR_END 5.0 is above SOLVER.BASE_LR 0.02",
    ),
    (["DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"], "repeats nothing with"),
    (["MODEL.LOAD_PROPOSALS", "True"], "need each other"),
]


@pytest.mark.parametrize(("words", "expected"), RELATIONS, ids=lambda value: str(value)[:40])
def test_values_that_contradict_each_other_are_rejected(root, words, expected):
    file = str(root / "configs/digits/ccnet_mask_rcnn.yaml")
    with pytest.raises(UserError, match=expected) as error:
        setup_cfg(argparse.Namespace(config_file=file, opts=["MODEL.DEVICE", "cpu", *words]))
    assert "\n" not in str(error.value)
