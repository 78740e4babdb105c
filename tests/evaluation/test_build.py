"""Evaluators are chosen by the metadata of a dataset; the semantic one is tested end to end."""

import importlib.util

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import load_sem_seg
from detectron2.evaluation import COCOEvaluator, DatasetEvaluators, SemSegEvaluator
from PIL import Image

from ccsa.data.formats import read_label_image
from ccsa.data.synthetic import digits
from ccsa.errors import MissingPackageError, UserError
from ccsa.evaluation import build_evaluator, main_metric
from ccsa.evaluation.semantic import SemanticEvaluator

H, W, CLASSES = 12, 16, 3


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated") / "digits"
    digits.write_digits(folder, {"train": 1, "val": 2})
    return folder


@pytest.fixture
def copied_dataset(place):
    """Register a dataset of two scenes with the metadata of a digits dataset; return its name."""
    names = []

    def register(name):
        here = str(digits.datasets_root() / "digits")
        metadata = {
            key: value.replace(here, str(place)) if isinstance(value, str) else value
            for key, value in MetadataCatalog.get(name).as_dict().items()
            if key != "name"
        }
        names.append(f"{name}_twin")
        labels = metadata.get("sem_seg_root", "")
        DatasetCatalog.register(
            names[-1], lambda: load_sem_seg(labels, metadata["image_root"], image_ext="jpg")
        )
        MetadataCatalog.get(names[-1]).set(**metadata)
        return names[-1]

    yield register
    for name in names:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


@pytest.fixture
def typed():
    """Return a function that registers metadata with an evaluator type and returns the name."""
    names = []

    def register(kind, **metadata):
        name = f"typed_{kind}"
        names.append(name)
        if kind is not None:
            metadata["evaluator_type"] = kind
        MetadataCatalog.get(name).set(**metadata)
        return name

    yield register
    for name in names:
        MetadataCatalog.pop(name)


def parts(evaluator):
    assert isinstance(evaluator, DatasetEvaluators)
    return evaluator._evaluators


def test_instances_are_evaluated_as_coco(copied_dataset, tmp_path):
    (evaluator,) = parts(build_evaluator(copied_dataset("digits_val"), tmp_path / "out"))
    assert isinstance(evaluator, COCOEvaluator)
    assert evaluator._output_dir == str(tmp_path / "out")
    assert len(evaluator._coco_api.imgs) == 2


def test_semantics_are_evaluated_as_semantics(copied_dataset, tmp_path):
    (evaluator,) = parts(build_evaluator(copied_dataset("digits_val_sem_seg"), tmp_path))
    assert isinstance(evaluator, SemSegEvaluator) and isinstance(evaluator, SemanticEvaluator)
    assert evaluator._num_classes == 13


@pytest.mark.parametrize("kind", ["coco_panoptic", "COCO", None])
def test_an_unknown_type_is_named_with_the_known_ones(typed, tmp_path, kind):
    name = typed(kind)
    with pytest.raises(UserError) as error:
        build_evaluator(name, tmp_path)
    text = str(error.value)
    assert f"'{name}'" in text and repr(kind) in text
    known = text.split("available: ")[1].split(", ")
    assert {"coco", "sem_seg", "coco_panoptic_seg", "lvis", "cityscapes_instance"} <= set(known)


@pytest.mark.parametrize(
    ("kind", "package"),
    [
        ("lvis", "lvis"),
        ("cityscapes_instance", "cityscapesscripts"),
        ("cityscapes_sem_seg", "cityscapesscripts"),
    ],
)
def test_a_package_that_is_not_there_is_named(typed, tmp_path, monkeypatch, kind, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == package else find(name, *a)
    )
    install = r"run pip install '\.\[evaluation\]' in a clone of ccsa"
    message = rf"Evaluator needs the package {package}, .* {install}"
    with pytest.raises(MissingPackageError, match=message):
        build_evaluator(typed(kind), tmp_path)


def test_pascal_voc_has_its_evaluator(typed, tmp_path):
    folder = tmp_path / "VOC2007"
    (folder / "ImageSets/Main").mkdir(parents=True)
    name = typed("pascal_voc", dirname=str(folder), split="test", year=2007, thing_classes=["a"])
    (evaluator,) = parts(build_evaluator(name, tmp_path))
    assert type(evaluator).__name__ == "PascalVOCDetectionEvaluator"


RESULTS = {
    "bbox": {"AP": 1.0},
    "sem_seg": {"mIoU": 2.0},
    "segm": {"AP": 3.0},
    "panoptic_seg": {"PQ": 4.0},
}


def test_the_main_metric_goes_by_rank():
    left = dict(RESULTS)
    for task, expected in (
        ("panoptic_seg", ("panoptic quality", 4.0)),
        ("segm", ("mask AP", 3.0)),
        ("sem_seg", ("mIoU", 2.0)),
        ("bbox", ("box AP", 1.0)),
    ):
        assert main_metric(left) == main_metric(dict(reversed(left.items()))) == expected
        del left[task]
    assert main_metric(left) is None
    assert main_metric({"segm": {}, "bbox": {"AP": 5.0}}) == ("box AP", 5.0)
    assert main_metric({"elsewhere": {"AP": 5.0}}) is None


@pytest.mark.parametrize("mode", ["L", "P", "I;16"])
def test_labels_of_every_kind_are_read_as_they_are(tmp_path, mode):
    labels = np.random.default_rng(0).integers(0, 256, (H, W))
    if mode == "I;16":
        labels *= 200
        image = Image.fromarray(labels.astype(np.uint16))
    else:
        image = Image.fromarray(labels.astype(np.uint8))
    if mode == "P":  # the labels are the indices, not the colors of the palette
        image = image.convert("L")
        image.putpalette([255 - i // 3 for i in range(768)])
        assert image.mode == "P"
    image.save(tmp_path / "labels.png")
    read = read_label_image(tmp_path / "labels.png")
    assert read.shape == (H, W) and np.issubdtype(read.dtype, np.integer)
    assert np.array_equal(read, labels)
    read[0, 0] = 1  # the array is writable


@pytest.fixture
def semantic(tmp_path):
    """Register a dataset of three label images; return its name and {image file: labels}."""
    rng = np.random.default_rng(1)
    written = {}
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(3):
        labels = rng.integers(0, CLASSES, (H, W)).astype(np.uint8)
        labels[:2] = 255  # ignored
        image = tmp_path / "images" / f"{number}.jpg"
        Image.new("RGB", (W, H)).save(image)
        picture = Image.fromarray(labels)
        if number == 0:
            picture.putpalette([i // 3 for i in range(768)])
        picture.save(tmp_path / "labels" / f"{number}.png")
        written[str(image)] = labels.astype(int)
    name = "evaluated_semantic"
    roots = str(tmp_path / "labels"), str(tmp_path / "images")
    DatasetCatalog.register(name, lambda: load_sem_seg(*roots, image_ext="jpg"))
    MetadataCatalog.get(name).set(
        evaluator_type="sem_seg", stuff_classes=["a", "b", "c"], ignore_label=255
    )
    yield name, written
    DatasetCatalog.pop(name)
    MetadataCatalog.pop(name)


def evaluate(name, predictions, folder):
    evaluator = build_evaluator(name, folder)
    evaluator.reset()
    for file, labels in predictions.items():
        logits = torch.nn.functional.one_hot(torch.from_numpy(labels), CLASSES).movedim(-1, 0)
        evaluator.process([{"file_name": file}], [{"sem_seg": logits.float()}])
    return evaluator.evaluate()["sem_seg"]


def test_a_perfect_semantic_prediction_gives_100(semantic, tmp_path):
    name, written = semantic
    perfect = {f: np.where(labels == 255, 1, labels) for f, labels in written.items()}
    results = evaluate(name, perfect, tmp_path / "out")
    assert results["mIoU"] == results["pACC"] == results["mACC"] == pytest.approx(100)
    assert results["IoU-a"] == pytest.approx(100)
    assert (tmp_path / "out/sem_seg_predictions.json").is_file()


def test_a_wrong_semantic_prediction_gives_what_the_definition_says(semantic, tmp_path):
    name, written = semantic
    rng = np.random.default_rng(2)
    noisy = {}
    for file, labels in written.items():
        noise = rng.integers(0, CLASSES, labels.shape)
        noisy[file] = np.where((labels == 255) | (rng.random(labels.shape) < 0.4), noise, labels)
    truth = np.concatenate([v.ravel() for v in written.values()])
    guess = np.concatenate([v.ravel() for v in noisy.values()])
    truth, guess = truth[truth != 255], guess[truth != 255]
    ious = [
        ((truth == c) & (guess == c)).sum() / ((truth == c) | (guess == c)).sum()
        for c in range(CLASSES)
    ]
    results = evaluate(name, noisy, tmp_path / "out")
    assert results["mIoU"] == pytest.approx(100 * np.mean(ious))
    assert results["pACC"] == pytest.approx(100 * (truth == guess).mean())
    assert results["mIoU"] < 80


def test_perfect_instances_give_100(copied_dataset, tmp_path):
    """Return the polygons of the digits as predictions."""
    from detectron2.structures import Boxes, Instances
    from pycocotools.mask import decode

    name = copied_dataset("digits_val")
    evaluator = build_evaluator(name, tmp_path)
    (part,) = parts(evaluator)
    evaluator.reset()
    coco = part._coco_api
    for image_id, image in coco.imgs.items():
        found = coco.imgToAnns[image_id]
        instances = Instances((image["height"], image["width"]))
        boxes = torch.tensor([a["bbox"] for a in found])
        boxes[:, 2:] += boxes[:, :2]
        instances.pred_boxes = Boxes(boxes)
        instances.scores = torch.ones(len(found))
        instances.pred_classes = torch.tensor([a["category_id"] - 1 for a in found])
        masks = [decode(coco.annToRLE(a)) for a in found]
        instances.pred_masks = torch.from_numpy(np.stack(masks)).bool()
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    results = evaluator.evaluate()
    assert results["segm"]["AP"] == results["bbox"]["AP"] == pytest.approx(100)
    assert main_metric(results) == ("mask AP", pytest.approx(100))
