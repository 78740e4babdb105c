"""tools/prepare_dataset.py, run as a user runs it."""

import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import prepare_dataset as tool
import pytest
from PIL import Image
from support import layouts, panoptic_files

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "prepare_dataset.py"


@pytest.fixture
def run(run_tool):
    return partial(run_tool, tool)


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_every_dataset_is_prepared_and_kept_by_a_second_run(name, tmp_path, run):
    layouts.LAYOUTS[name](tmp_path)
    status, out, _ = run(name, "--root", tmp_path)
    assert status == 0
    assert " 0 existed already" in out
    assert f"python tools/check_dataset.py {name} --root {tmp_path}" in out
    status, out, _ = run(name, "--root", tmp_path)
    assert status == 0
    assert ": 0 files made" in out


def test_voc_without_sbd_says_what_is_not_made(tmp_path, run):
    layouts.pascal_voc(tmp_path, sbd=False)
    status, out, _ = run("pascal_voc", "--root", tmp_path)
    assert status == 0
    assert "note: no SBD labels" in out


@pytest.mark.parametrize("name", layouts.LAYOUTS)
def test_a_source_that_is_not_there_is_one_clear_message(name, tmp_path, run):
    status, out, err = run(name, "--root", tmp_path)
    assert status == 2 and out == ""
    assert err.startswith("error: ") and "Traceback" not in err
    assert "was not found: " in err and str(tmp_path) in err
    assert "Get it from" in err and "DETECTRON2_DATASETS" in err


def test_an_unknown_name_gets_near_misses(run):
    status, _, err = run("cityscape")
    assert status == 2
    assert "there is no dataset called 'cityscape'; did you mean cityscapes or " in err


def test_coco_panoptic_is_prepared_and_kept_by_a_second_run(tmp_path, run):
    base = tmp_path / "coco"
    ids = np.array([[0, 300, 70000]] * 4)
    for split in ("train2017", "val2017"):
        segments = panoptic_files.describe(ids, {300: 92, 70000: 1})  # the first stuff, a person
        entry = {"image_id": 7, "file_name": "000000000007.png", "segments_info": segments}
        panoptic_files.write_png(base / f"panoptic_{split}" / "000000000007.png", ids)
        panoptic_files.write_json(base / "annotations" / f"panoptic_{split}.json", [entry])
    status, out, _ = run("coco_panoptic", "--root", tmp_path)
    assert status == 0 and "COCO panoptic: 2 files made, 0 existed already" in out
    assert f"python tools/check_dataset.py coco_panoptic --root {tmp_path}" in out
    with Image.open(base / "panoptic_stuff_val2017" / "000000000007.png") as made:
        assert np.array(made).tolist() == [[255, 1, 0]] * 4
    status, out, _ = run("coco_panoptic", "--root", tmp_path)
    assert status == 0 and ": 0 files made, 2 existed already" in out


def test_coco_panoptic_that_is_not_there_is_one_clear_message(tmp_path, run):
    status, out, err = run("coco_panoptic", "--root", tmp_path)
    assert status == 2 and out == "" and err.startswith("error: ")
    assert "panoptic_train2017.json" in err and "Get it from cocodataset.org" in err


def test_cityscapes_panoptic_is_prepared_and_kept_by_a_second_run(tmp_path, run):
    panoptic_files.cityscapes(tmp_path)
    # Four labels, and the instances of two splits.
    status, out, _ = run("cityscapes_panoptic", "--root", tmp_path)
    assert status == 0 and "Cityscapes panoptic: 6 files made, 0 existed already" in out
    assert f"python tools/check_dataset.py cityscapes_panoptic --root {tmp_path}" in out
    status, out, _ = run("cityscapes_panoptic", "--root", tmp_path)
    assert status == 0 and ": 0 files made, 6 existed already" in out


def test_cityscapes_panoptic_that_is_not_there_says_which_command_makes_it(tmp_path, run):
    status, out, err = run("cityscapes_panoptic", "--root", tmp_path)
    assert status == 2 and out == "" and err.startswith("error: ")
    assert str(tmp_path / "cityscapes/gtFine/cityscapes_panoptic_train.json") in err
    assert "csCreatePanopticImgs" in err and "DETECTRON2_DATASETS" in err


def test_a_bad_source_is_named_in_one_line(tmp_path, run):
    layouts.ade20k(tmp_path)
    bad = tmp_path / "ADEChallengeData2016/annotations/training/ADE_train_00000002.png"
    bad.write_bytes(b"half")
    status, _, err = run("ade20k", "--root", tmp_path)
    assert status == 2
    assert f"error: cannot read {bad}" in err and "Traceback" not in err


def test_interrupted_and_started_again_it_ends_with_whole_files(tmp_path, run):
    labels = tmp_path / "ADEChallengeData2016" / "annotations"
    for folder in ("training", "validation"):
        (labels / folder).mkdir(parents=True)
        for number in range(150):
            layouts.write_gray(
                labels / folder / f"ADE_{number:08d}.png", layouts.spread(range(151), (400, 400))
            )
    made = tmp_path / "ADEChallengeData2016" / "annotations_detectron2"
    command = [sys.executable, str(TOOL), "ade20k", "--root", str(tmp_path)]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell lets what it starts in the background ignore interrupts; children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + 60
        while not list(made.rglob("*.png")) and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"Traceback" not in err
    before = list(made.rglob("*.png"))
    assert 0 < len(before) < 300
    assert not list(made.rglob("*.partial*"))
    status, out, _ = run("ade20k", "--root", tmp_path)
    assert status == 0
    assert f"{300 - len(before)} files made, {len(before)} existed already" in out
    for path in made.rglob("*.png"):
        with Image.open(path) as image:
            image.load()
