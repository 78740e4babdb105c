"""Mistakes on the command line of train_net.py: one message, status 2, nothing written."""

import sys

import pytest
import torch
import train_net

DIGITS = "configs/digits/ccnet_mask_rcnn.yaml"
COCO = "configs/ccnet_mask_rcnn.yaml"


@pytest.fixture(scope="module")
def tool():
    return train_net


@pytest.fixture
def run(tool, root, tmp_path, monkeypatch, capsys):
    """Runs the tool in an empty folder; gives exit status and standard error."""
    monkeypatch.chdir(tmp_path)

    def run(config, *words):
        monkeypatch.setattr(
            sys, "argv", ["train_net.py", "--config-file", str(root / config), *words]
        )
        with pytest.raises(SystemExit) as end:
            tool.main()
        return end.value.code, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("config", "words", "said"),
    [
        (COCO, [], ["coco_2017_train", "cocodataset.org", "DETECTRON2_DATASETS", DIGITS]),
        (
            "configs/digits/mask_rcn.yaml",
            [],
            ["mask_rcn.yaml does not exist in", "did you mean mask_rcnn.yaml"],
        ),
        (DIGITS, ["--with", "ccl"], ["--with ccl does not fit", "no semantic head", "that fit: "]),
        (DIGITS, ["--with", "R_11"], ["no such overlay", "R_101"]),
        (DIGITS, ["SOLVER.MAX_ITR", "3"], ["SOLVER.MAX_ITR", "SOLVER.MAX_ITER"]),
        (DIGITS, ["DATASETS.TRAIN", "('digit_train',)"], ["digit_train", "digits_train"]),
        (DIGITS, ["MODEL.WEIGHTS", "gone.pth"], ["gone.pth", "MODEL.WEIGHTS"]),
        (DIGITS, ["--eval-only"], ["MODEL.WEIGHTS", "--resume"]),
        (DIGITS, ["--resume"], ["--resume", "no run"]),
        (
            DIGITS,
            ["MODEL.CONTEXT.BLOCKS", "[{'at': 'backbone.bottom_up.res6', 'block': 'CrissCross'}]"],
            ["res6", "did you mean", "res4"],
        ),
        (
            DIGITS,
            ["MODEL.CONTEXT.BLOCKS", "[{'at': 'backbone.bottom_up.res4', 'block': 'CrossCriss'}]"],
            ["CrossCriss", "CrissCross"],
        ),
        (DIGITS, ["MODEL.META_ARCHITECTURE", "GeneralizedRCNN"], ["ContextModel", "BLOCKS"]),
        (DIGITS, ["DATASETS.TRAIN", "()"], ["DATASETS.TRAIN", "digits_train"]),
        (DIGITS, ["SOLVER.REFERENCE_WORLD_SIZE", "3"], ["REFERENCE_WORLD_SIZE", "IMS_PER_BATCH"]),
    ],
)
def test_mistakes_end_with_one_message(run, tmp_path, config, words, said):
    code, err = run(config, *words)
    assert code == 2
    assert err.startswith("error: ") and "Traceback" not in err
    assert all(word in err for word in said), err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
@pytest.mark.parametrize("words", [["MODEL.DEVICE", "cuda"], ["--num-gpus", "2"]])
def test_gpus_that_are_not_there_are_refused(run, words):
    code, err = run(DIGITS, *words)
    assert code == 2 and "CUDA device" in err and "MODEL.DEVICE cpu" in err


def test_a_folder_that_holds_a_run_is_refused(run, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.yaml").write_text("kept")
    code, err = run(DIGITS, "OUTPUT_DIR", str(folder))
    assert code == 2 and "mine" in err and "--resume" in err
    assert (folder / "config.yaml").read_text() == "kept"
    assert len(list(folder.iterdir())) == 1


def test_a_launcher_needs_a_folder_and_no_further_processes(run, monkeypatch):
    variables = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "TORCHELASTIC_RUN_ID": "one"}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    code, err = run(DIGITS, "MODEL.DEVICE", "cpu")
    assert code == 2 and err.startswith("error: torchrun needs one OUTPUT_DIR"), err
    code, err = run(DIGITS, "--num-gpus", "2", "MODEL.DEVICE", "cpu")
    assert code == 2 and "leave out --num-gpus" in err
