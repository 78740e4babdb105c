"""A check with a time limit checks all annotations and decodes a part of the images."""

import time

import numpy as np
import pytest
from detectron2.structures import BoxMode
from PIL import Image

from ccsa.data.checks import dataset

IMAGES = 128


@pytest.fixture
def records(tmp_path):
    records = []
    for i in range(IMAGES):
        file = tmp_path / f"{i:03}.png"
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(file)
        box = {"bbox": [1, 1, 4, 4], "bbox_mode": BoxMode.XYWH_ABS, "category_id": 0}
        record = {"file_name": str(file), "image_id": i, "height": 8, "width": 8}
        records.append({**record, "annotations": [box]})
    return records


@pytest.fixture
def clock(monkeypatch):
    """A clock that only the work of a check moves: a second for each header, half for a record."""
    now = [0.0]
    monkeypatch.setattr(dataset.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(dataset, "WORKERS", 1)
    monkeypatch.setattr(dataset, "_BLOCK", 1)
    for name in ("check_header", "check_image"):
        original = getattr(dataset, name)

        def slow(*args, original=original):
            now[0] += 1
            return original(*args)

        monkeypatch.setattr(dataset, name, slow)
    original_fields = dataset.check_fields

    def slow_fields(name, records, *args, **kwargs):
        now[0] += len(records) / 2
        return original_fields(name, records, *args, **kwargs)

    monkeypatch.setattr(dataset, "check_fields", slow_fields)
    return now


def check(records, seconds):
    """Check the records, of which the 20th has a box outside its image."""
    records[20]["annotations"][0]["bbox"] = [100, 100, 4, 4]
    return dataset.check_records(
        {"train": records}, things=["a"], masks=False, seconds=seconds, cache=False
    )


def test_without_a_limit_every_image_is_decoded(records, clock):
    assert check(records, None).decoded == IMAGES


def test_reading_headers_leaves_half_of_the_time_for_decoding(records, clock):
    checked = check(records, IMAGES / 2 + 80)  # 64 s for the annotations, 40 s for headers
    assert 0 < checked.decoded < IMAGES
    assert "box_beyond_image" in checked.problems.kinds()


def test_the_limit_covers_the_annotations_as_well(records, clock):
    start = time.monotonic()
    checked = check(records, 90)
    assert time.monotonic() - start <= 90 + 2
    assert checked.decoded < IMAGES
    assert "box_beyond_image" in checked.problems.kinds()


def test_a_few_files_are_read_even_if_the_annotations_need_all_the_time(records, clock):
    assert check(records, IMAGES / 4).decoded > 0
