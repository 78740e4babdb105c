"""Tools with mutated options, KEY VALUE pairs, results and configurations: one sentence or success,
never a traceback, a crash or a hang."""

import importlib

import pytest
import torch.utils.tensorboard  # noqa: F401  imported once, not in every forked process
import yaml
from detectron2.config import get_cfg
from support import own_scenes
from support.forked import OK, REJECT, run_forked
from support.mutations_calls import OPTIONS, Call, cases

from ccsa import add_ccsa_config
from ccsa.engine.model_parts import all_values

LONGEST = 1000  # characters of a message


@pytest.fixture(scope="module")
def world(root, tmp_path_factory):
    """Return the words of a call of each tool that works, and a finished run."""
    folder = tmp_path_factory.mktemp("world")
    data, run, file = folder / "data", folder / "run", folder / "tiny.yaml"
    own_scenes.write_class_masks(data, own_scenes.make_scenes(8))
    tiny = {
        "_BASE_": str(root / "configs/own/ccnet.yaml"),
        "MODEL": {
            "DEVICE": "cpu",
            "RESNETS": {"RES2_OUT_CHANNELS": 8, "STEM_OUT_CHANNELS": 8},
            "SEM_SEG_HEAD": {"CONVS_DIM": 8},
        },
        "INPUT": dict.fromkeys(("MIN_SIZE_TEST", "MAX_SIZE_TEST", "MAX_SIZE_TRAIN"), 64)
        | {"MIN_SIZE_TRAIN": [64]},
        "SOLVER": {"IMS_PER_BATCH": 2, "MAX_ITER": 1, "CHECKPOINT_PERIOD": 9},
        "TEST": {"EVAL_PERIOD": 0},
    }
    file.write_text(yaml.safe_dump(tiny))
    train = ["--config-file", file, "--data", data]
    words = {
        "train_net": [*train, "OUTPUT_DIR", "out"],
        "demo": ["--weights", "run", "--output", "drawn", "--input", data / "val"],
        "compare_runs": ["--no-cost", "run"],
        "analyze_model": ["--config-file", file],
        "check_dataset": ["--data", data],
    }
    first = run_forked(tool("train_net"), [*train, "OUTPUT_DIR", run], folder)
    assert first.kind == OK, first.text
    return words, run


@pytest.fixture(scope="module")
def keys():
    cfg = get_cfg()
    add_ccsa_config(cfg)
    return all_values(cfg)


def tool(name):
    return importlib.import_module(f"tools.{name}")


@pytest.mark.parametrize("name", OPTIONS)
def test_the_call_itself_works(world, tmp_path, name):
    words, run = world
    call = Call(name, words[name], tmp_path / "call", run)
    outcome = run_forked(tool(name), call.words, call.folder)
    assert outcome.kind == OK, outcome.text


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("train_net", 25),
        ("demo", 12),
        ("compare_runs", 20),
        ("analyze_model", 15),
        ("check_dataset", 15),
    ],
)
def test_mutated_calls_end_in_one_sentence_or_succeed(world, keys, tmp_path, name, count):
    words, run = world
    pairs = keys if name in ("train_net", "demo", "analyze_model") else {}
    for number, case in enumerate(cases(name, pairs, seed=1, count=count)):
        call = Call(name, words[name], tmp_path / str(number), run)
        case.mutate(call)
        outcome = run_forked(tool(name), call.words, call.folder)
        assert case.allows(outcome.kind), (case.name, outcome.kind, outcome.text[-3000:])
        if outcome.kind == REJECT:
            assert len(outcome.error) < LONGEST and "error: " in outcome.error, case.name
