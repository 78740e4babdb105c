"""Predictions as COCO JSON: dicts of one image, and files that read back without errors."""

import json

import numpy as np
import pycocotools.mask as coco_mask
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from pycocotools.coco import COCO
from support import tiny_models, tiny_runs

import ccsa
from ccsa.data import read_folder
from ccsa.data.checks.own import check_folder
from ccsa.data.folder import read_coco_files
from ccsa.prediction.coco_results import objects_to_coco

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
    run = tiny_runs.write_run(tmp_path_factory.mktemp("run"), tiny_models.MASK_RCNN)
    return ccsa.Predictor.from_run(run, confidence=0.01)


@pytest.fixture
def photos(tmp_path):
    """Return a folder of images of several kinds, one of them in a folder below."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    (folder / ".hidden").mkdir()
    names = ("a.png", "b.jpg", "below/a.png", ".hidden/c.png")
    for index, name in enumerate(names):
        pixels = RANDOM.integers(0, 255, (90 + index, 120, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name)
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels[:, :80]).save(folder / "turned.jpg", exif=exif)
    (folder / "notes.txt").write_text("no image")
    return folder


def errors(data):
    """Return the errors that tools/check_dataset.py would report."""
    return [str(p) for p in check_folder(data).problems if p.severity == "error"]


def instances(boxes, masks=None, size=(10, 20)):
    fields = {
        "pred_boxes": Boxes(torch.tensor(boxes, dtype=torch.float32)),
        "scores": torch.linspace(0.9, 0.5, len(boxes)),
        "pred_classes": torch.arange(len(boxes)) % 2,
    }
    if masks is not None:
        fields["pred_masks"] = masks
    return Instances(size, **fields)


def test_objects_are_annotations_and_results_at_once():
    masks = torch.zeros(3, 10, 20, dtype=torch.bool)
    masks[0, 2:5, 3:9] = True
    masks[1, 9, 19] = True  # masks[2] stays empty
    boxes = [[3, 2, 9, 5], [15, 8, 25, 12], [0, 0, 4, 4]]
    found = objects_to_coco(instances(boxes, masks), [7, 9], 5)
    assert [entry["category_id"] for entry in found] == [7, 9]
    assert [entry["area"] for entry in found] == [18.0, 1.0]
    assert found[0]["bbox"] == [3, 2, 6, 3] and found[1]["bbox"] == [15, 8, 5, 2]
    assert found[0]["score"] == pytest.approx(0.9) and found[0]["image_id"] == 5
    decoded = coco_mask.decode(found[0]["segmentation"])
    assert np.array_equal(decoded, masks[0].numpy())
    without = objects_to_coco(instances([*boxes, [4, 4, 4, 9]]), [7, 9], 5)
    assert len(without) == 3 and "segmentation" not in without[0]
    json.dumps(found + without)


def test_results_are_those_that_pycocotools_loads(predictor):
    image = RANDOM.integers(0, 255, (96, 128, 3)).astype(np.uint8)
    results = predictor(image).to_coco(image_id=3)
    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": 3, "width": 128, "height": 96}],
        "annotations": [],
        "categories": predictor.categories,
    }
    truth.createIndex()
    assert len(truth.loadRes(results).getAnnIds()) == len(results) > 0


def test_a_folder_becomes_a_file_that_reads_back_without_errors(predictor, photos):
    file = predictor.annotate_folder(photos, photos / "found.json")
    content = json.loads(file.read_text())
    names = ["a.png", "b.jpg", "below/a.png", "turned.jpg"]
    assert [image["file_name"] for image in content["images"]] == names
    assert (content["images"][3]["width"], content["images"][3]["height"]) == (93, 80)
    assert [c["name"] for c in content["categories"]] == list("0123456789")
    assert "0.01" in content["info"]["description"]
    numbers = [annotation["id"] for annotation in content["annotations"]]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) > 4
    for data in (read_folder(file), read_folder(photos), read_coco_files(file, photos)):
        assert data.classes == list("0123456789") and data.has_masks
        assert sum(map(len, data.splits.values())) == 4
        assert len(data.annotations) == len(numbers)
        assert errors(data) == []


def test_a_file_elsewhere_names_images_relative_to_their_folder(predictor, photos, tmp_path):
    file = predictor.annotate_folder(str(photos), str(tmp_path / "new" / "found.json"))
    data = read_coco_files(file, photos)
    assert sum(map(len, data.splits.values())) == 4
    with pytest.raises(ccsa.UserError, match="would be overwritten"):
        predictor.annotate_folder(photos, file)
    (photos / "a.png").unlink()
    predictor.annotate_folder(photos, file, overwrite=True)
    assert len(json.loads(file.read_text())["images"]) == 3


def test_a_semantic_model_gives_one_mask_for_each_class(photos, tmp_path):
    run = tiny_runs.write_run(tmp_path / "run", tiny_runs.SEMANTIC)
    predictor = ccsa.Predictor.from_run(run)
    found = predictor(photos / "a.png")
    regions = found.to_coco()
    assert len(regions) == len(found.semantic.unique())
    assert sum(region["area"] for region in regions) == found.semantic.numel()
    assert "score" not in regions[0]
    data = read_folder(predictor.annotate_folder(photos, photos / "found.json"))
    assert errors(data) == []


def test_wrong_folders_and_files_are_refused_before_the_first_prediction(
    predictor, photos, tmp_path, monkeypatch
):
    monkeypatch.setattr(ccsa.Predictor, "__call__", lambda *args: pytest.fail("too late"))
    (tmp_path / "empty").mkdir()
    for folder, output, reason in (
        (tmp_path / "absent", "a.json", "not a folder"),
        (tmp_path / "empty", "a.json", "has no images"),
        (photos, "a.txt", "does not end in .json"),
        (photos, "", "does not end in .json"),
    ):
        with pytest.raises(ccsa.UserError, match=reason):
            predictor.annotate_folder(folder, tmp_path / output)


def test_images_that_cannot_be_read_are_named_and_the_others_written(predictor, photos, tmp_path):
    (photos / "b.jpg").write_bytes(b"no image")
    with pytest.raises(ccsa.UserError, match=r"1 of 4 images could not be read.*b\.jpg"):
        predictor.annotate_folder(photos, tmp_path / "a.json")
    assert len(json.loads((tmp_path / "a.json").read_text())["images"]) == 3
    for file in [p for p in photos.rglob("*") if p.suffix in (".png", ".jpg")]:
        file.write_bytes(b"no image")
    with pytest.raises(ccsa.UserError, match="none of the 4 images"):
        predictor.annotate_folder(photos, tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()
