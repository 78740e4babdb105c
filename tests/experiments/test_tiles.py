"""The study of tiles: duplicates are counted, and both commands run on a small scale."""

import re

import numpy as np
import pytest
import torch
import yaml
from support.tiny_models import MASK_RCNN

from ccsa.evaluation.rle import masks_to_rle
from experiments import tiles


def entries(*boxes):
    masks = torch.zeros(len(boxes), 20, 30, dtype=torch.bool)
    for mask, (x0, x1, _) in zip(masks, boxes, strict=True):
        mask[5:10, x0:x1] = True
    rles = masks_to_rle(masks)
    return [
        {"score": s, "segmentation": r, "category_id": 1, "bbox": [x0, 5, x1 - x0, 5]}
        for (x0, x1, s), r in zip(boxes, rles, strict=True)
    ]


@pytest.mark.parametrize(
    ("boxes", "expected"),
    [
        ([], 0),
        ([(0, 10, 0.9), (10, 20, 0.8)], 0),
        ([(0, 10, 0.9), (0, 10, 0.9)], 1),
        ([(0, 10, 0.9), (7, 12, 0.8)], 1),  # 3 of 5 columns
        ([(0, 10, 0.9), (8, 14, 0.8)], 0),
        ([(0, 3, 0.9), (0, 10, 0.8)], 0),  # a part does not make the whole a duplicate
        ([(0, 10, 0.9), (0, 10, 0.8), (1, 9, 0.7), (20, 22, 0.9)], 2),
    ],
)
def test_duplicates(boxes, expected):
    found = entries(*boxes)
    assert tiles.duplicates(found).sum() == expected
    others = [{**entry, "category_id": index} for index, entry in enumerate(found)]
    assert not tiles.duplicates(others).any()


def test_objects_at_seams():
    shared = np.zeros((20, 30), bool)
    shared[:, 10:12] = True
    found = tiles.at_seams(entries((0, 10, 0.9), (0, 11, 0.9), (12, 15, 0.9)), shared)
    assert found.tolist() == [False, True, False]


def test_the_memory_is_measured(tmp_path, run_tool):
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(MASK_RCNN))
    words = ["memory", "--config-file", file, "--height", 90, "--width", 120]
    status, printed, errors = run_tool(tiles, *words, "TEST.TILES.SIZE", "[64, 64]")
    assert status == 2 and "must be smaller than TEST.TILES.SIZE" in errors
    words += ["TEST.TILES.SIZE", "[64, 64]", "TEST.TILES.OVERLAP", "[16, 16]"]
    status, printed, errors = run_tool(tiles, *words)
    assert status == 0, errors
    assert re.search(r"\d+ objects in an image of 120 x 90 pixels: \d\.\d\d GiB, \d+ s", printed)


def test_a_run_without_tiles_is_refused(tmp_path, run_tool):
    from support.tiny_runs import write_run

    status, _, errors = run_tool(tiles, "seams", write_run(tmp_path / "run", MASK_RCNN))
    assert status == 2 and "does not use TEST.TILES" in errors
