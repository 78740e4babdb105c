"""Tests of examples/prepare_nuclei.py with a small wheel instead of the one on PyPI."""

import hashlib
import importlib.util
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccsa.data.folder import read_folder

ROOT = Path(__file__).parents[1]
NAME = "stardist-0.9.2-cp311-cp311-manylinux_2_28_x86_64.whl"


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("nuclei", ROOT / "examples/prepare_nuclei.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 235, (512, 512)).astype(np.uint16)


@pytest.fixture
def labels():
    """125 squares in a grid; every square has its own number."""
    numbers = np.zeros((512, 512), np.uint16)
    for number in range(125):
        y, x = 45 * (number // 12) + 5, 42 * (number % 12) + 5
        numbers[y : y + 20, x : x + 20] = number + 1
    return numbers


@pytest.fixture
def wheel(tool, image, labels, tmp_path, monkeypatch):
    """Make pip find a small wheel in a folder, and no index."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / NAME, "w") as file:
        for name, values in (("img2d", image), ("mask2d", labels)):
            Image.fromarray(values).save(tmp_path / f"{name}.tif")
            file.write(tmp_path / f"{name}.tif", f"stardist/data/images/{name}.tif")
        info = "stardist-0.9.2.dist-info"
        file.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: stardist\nVersion: 0.9.2\n")
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: cp311-cp311-manylinux_2_28_x86_64")
        file.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setattr(tool, "SHA256", hashlib.sha256((folder / NAME).read_bytes()).hexdigest())


def run(tool, folder, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["prepare_nuclei.py", str(folder)])
    tool.main()


def test_the_folder_is_read_as_instance_labels(tool, wheel, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "datasets" / "nuclei"
    run(tool, folder, monkeypatch)
    data = read_folder(folder)
    assert (data.format, data.classes) == ("instance_labels", ["nucleus"])
    assert not list(data.problems.kinds("error"))
    counts = {split: len(records) for split, records in data.splits.items()}
    printed = capsys.readouterr().out
    assert counts["val"] == 1
    assert f"{counts['train']} training tiles and one validation image" in printed
    before = sorted(folder.rglob("*"))
    run(tool, folder, monkeypatch)  # a second time changes nothing
    assert "exists already" in capsys.readouterr().out
    assert sorted(folder.rglob("*")) == before
    assert [path.name for path in folder.parent.iterdir()] == ["nuclei"]


def test_no_pixel_is_used_for_training_and_for_validation(tool, tmp_path):
    columns = np.tile(np.arange(512, dtype=np.uint16), (512, 1))
    tool.write_folder(tmp_path / "nuclei", columns, columns)
    seen = {
        split: {
            int(value)
            for file in (tmp_path / "nuclei" / split / "images").iterdir()
            for value in np.unique(np.array(Image.open(file)))
        }
        for split in ("train", "val")
    }
    assert max(seen["train"]) < min(seen["val"])
    assert seen["train"] | seen["val"] == set(range(max(seen["val"]) + 1))


def test_the_training_tiles_cover_the_left_part_and_are_turned(tool, tmp_path, labels):
    numbers = np.arange(512 * 512, dtype=np.uint32).reshape(512, 512).astype(np.float32)
    tool.write_folder(tmp_path / "nuclei", numbers, labels)
    files = sorted((tmp_path / "nuclei/train/images").iterdir())
    tiles = [np.array(Image.open(file)) for file in files]
    assert {tile.shape for tile in tiles} == {(tool.TILE, tool.TILE)}
    assert set(np.unique(tiles)) == set(numbers[:, : tool.BORDER].ravel())
    steps = {float(tile[0, 1] - tile[0, 0]) for tile in tiles}  # along rows or columns, both ways
    assert steps == {1, -1, 512, -512}


def test_the_validation_objects_are_those_of_the_image(tool, tmp_path, image, labels):
    labels[100:120, tool.BORDER - 1 : tool.BORDER + 20] = 200  # loses its first column
    tool.write_folder(tmp_path / "nuclei", image, labels)
    [record] = read_folder(tmp_path / "nuclei").splits["val"]
    right = labels[:, tool.BORDER :]
    assert (record["height"], record["width"]) == right.shape
    assert len(record["annotations"]) == len(np.unique(right)) - 1


def test_another_wheel_is_rejected(tool, wheel, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tool, "SHA256", "0" * 64)
    with pytest.raises(SystemExit) as error:
        run(tool, tmp_path / "nuclei", monkeypatch)
    assert tool.WHEEL in str(error.value)
    assert "DO NOT MATCH" in capfd.readouterr().err
    assert not (tmp_path / "nuclei").exists()
