"""Damaged annotation files: the outcome is data with problems, or a UserError, within a second."""

import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from support import own_scenes
from support.fuzz.values import mutate_annotations

from ccsa.data.folder import read_folder
from ccsa.data.problems import KINDS
from ccsa.data.tasks import decode_mask, derive
from ccsa.errors import UserError

COUNT = 140  # mutations of each format
SEED = 0
LIMIT = 1.0  # seconds of CPU time


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("originals")
    scenes = [s for s in own_scenes.make_scenes(14) if s.name.endswith(("1", "7", "14"))]
    for name in ("coco_mixed", "yolo", "labelme", "coco_panoptic"):
        own_scenes.DIALECTS[name][0](root / name, scenes)
    return root


def check(data):
    """Check that what was read can be trained on."""
    for problem in data.problems:
        assert problem.kind in KINDS and problem.severity == KINDS[problem.kind].severity
        assert problem.message and problem.file
        problem.message.encode()
    for records in data.splits.values():
        for record in records:
            assert Path(record["file_name"]).is_file()
            assert min(record["height"], record["width"]) > 0
            for annotation in record.get("annotations", ()):
                assert 0 <= annotation["category_id"] < len(data.classes)
                assert np.isfinite(annotation["bbox"]).all() and min(annotation["bbox"][2:]) > 0
                assert np.isfinite(annotation["area"]) and annotation["iscrowd"] in (0, 1)
                size = record["height"], record["width"]
                if "segmentation" in annotation and max(size) < 2000:
                    assert decode_mask(annotation, size).shape == size
    derive(data, "detection")


@pytest.mark.parametrize("name", ["coco_mixed", "yolo", "labelme", "coco_panoptic"])
def test_a_damaged_file_gives_problems_or_an_error(name, originals, tmp_path):
    rng = random.Random(f"{name} {SEED}")
    outcomes = {"data": 0, "problems": 0, "error": 0}

    def interrupt(*_):
        pytest.fail(f"mutation {number} of {name} hangs")

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(COUNT):
            folder = tmp_path / str(number)
            shutil.copytree(originals / name, folder)
            mutate_annotations(folder, rng)
            signal.alarm(20)
            start = time.process_time()
            try:
                data = read_folder(folder)
            except UserError as error:
                outcomes["error"] += 1
                assert len(str(error)) < 2000
                str(error).encode()
            else:
                check(data)
                outcomes["problems" if len(data.problems) else "data"] += 1
            assert time.process_time() - start < LIMIT, f"mutation {number}"
            signal.alarm(0)
            shutil.rmtree(folder)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    assert outcomes["problems"] + outcomes["error"] > COUNT / 2
