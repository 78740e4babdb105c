"""Each dataset, from the published layout through preparation, catalog, mapper and evaluator."""

from pathlib import Path

import detectron2.data.transforms as T
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetMapper, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from PIL import Image

from ccsa.data.formats.label_images import read_label_image
from ccsa.data.semantic import FAMILIES

COUNTS = {
    "cityscapes_sem_seg_train": (3, 19),
    "cityscapes_sem_seg_val": (1, 19),
    "cityscapes_fine_sem_seg_train": (3, 19),  # of Detectron2
    "cityscapes_fine_sem_seg_val": (1, 19),
    "ade20k_sem_seg_train": (2, 150),  # of Detectron2
    "ade20k_sem_seg_val": (1, 150),
    "lip_sem_seg_train": (2, 20),
    "lip_sem_seg_val": (1, 20),
    "pascal_context_59_sem_seg_train": (2, 59),
    "pascal_context_60_sem_seg_val": (1, 60),
    "pascal_context_59_sorted_sem_seg_val": (1, 59),
    "pascal_context_60_sorted_sem_seg_train": (2, 60),
    "voc_2012_sem_seg_train": (2, 21),
    "voc_2012_sem_seg_val": (2, 21),
    "voc_2012_aug_sem_seg_train": (4, 21),
    "camvid_sem_seg_train": (3, 11),
    "camvid_sem_seg_val": (1, 11),
    "camvid_sem_seg_test": (2, 11),
}


def family_of(name: str) -> str:
    prefixes = {"voc": "pascal_voc", "pascal": "pascal_context"}
    first = name.partition("_")[0]
    return prefixes.get(first, first)


@pytest.mark.parametrize("name", COUNTS)
def test_dataset_goes_through_mapper_and_evaluator(name, catalog, layouts, prepare):
    layouts.LAYOUTS[family_of(name)](catalog)
    prepare(family_of(name), catalog)
    records = DatasetCatalog.get(name)
    count, classes = COUNTS[name]
    metadata = MetadataCatalog.get(name)
    assert len(records) == count
    assert len(metadata.stuff_classes) == len(metadata.stuff_colors) == classes
    assert len(set(metadata.stuff_classes)) == classes
    assert metadata.ignore_label == 255
    mapper = DatasetMapper(True, augmentations=[T.NoOpTransform()], image_format="BGR")
    inputs = [mapper(record) for record in records]
    for record, item in zip(records, inputs, strict=True):
        assert item["image"].shape == (3, *layouts.SIZE)
        # The grayscale conversion of the mapper has changed nothing.
        assert np.array_equal(item["sem_seg"], read_label_image(record["sem_seg_file_name"]))
        found = set(item["sem_seg"].unique().tolist())
        assert found - {255} <= set(range(classes))
        assert len(found - {255}) >= min(classes, 11)
    if metadata.evaluator_type == "sem_seg":
        assert mean_iou(name, inputs, classes) == pytest.approx(100)


def mean_iou(name: str, inputs: list[dict], classes: int) -> float:
    """Return the mIoU of a prediction that equals the label, with class 0 on void."""
    evaluator = SemSegEvaluator(
        name,
        distributed=False,
        sem_seg_loading_fn=lambda path, dtype: np.array(Image.open(path)).astype(dtype),
    )
    evaluator.reset()
    for item in inputs:
        labels = torch.where(item["sem_seg"] == 255, 0, item["sem_seg"])
        scores = torch.nn.functional.one_hot(labels, classes).permute(2, 0, 1).float()
        evaluator.process([item], [{"sem_seg": scores}])
    return evaluator.evaluate()["sem_seg"]["mIoU"]


def test_every_split_is_registered_and_reads_labels_only_when_asked(catalog):
    names = [split.name for family in FAMILIES.values() for split in family.splits(catalog)]
    assert len(names) == len(set(names))
    for name in names:
        assert name in DatasetCatalog
        metadata = MetadataCatalog.get(name)
        assert metadata.evaluator_type == "sem_seg"
        assert metadata.image_root.startswith(str(catalog))
        assert metadata.sem_seg_root.startswith(str(catalog))
        assert metadata.prepare_command.startswith("python tools/prepare_dataset.py ")


def test_builtin_cityscapes_keeps_its_evaluator_and_gets_colours(catalog):
    for split in ("train", "val", "test"):
        metadata = MetadataCatalog.get(f"cityscapes_fine_sem_seg_{split}")
        assert metadata.evaluator_type == "cityscapes_sem_seg"
        assert metadata.stuff_colors[13] == [0, 0, 142]
    ours = MetadataCatalog.get("cityscapes_sem_seg_val")
    assert list(ours.stuff_classes) == metadata.stuff_classes


def test_lip_tells_left_from_right(catalog):
    metadata = MetadataCatalog.get("lip_sem_seg_val")
    names = metadata.stuff_classes
    assert metadata.flip_pairs == ((14, 15), (16, 17), (18, 19))
    for left, right in metadata.flip_pairs:
        assert names[left].replace("Left", "Right") == names[right]
    sided = {i for i, name in enumerate(names) if name.startswith(("Left", "Right"))}
    assert sided == {label for pair in metadata.flip_pairs for label in pair}
    assert MetadataCatalog.get("voc_2012_sem_seg_val").flip_pairs == ()


def test_the_document_has_every_name_and_label(catalog):
    text = " ".join((Path(__file__).parents[3] / "docs" / "DATASETS.md").read_text().split())
    for family in FAMILIES.values():
        assert f"`{family.name}`" in text
        for split in family.splits(catalog):
            if len(split.classes) not in (59, 150):  # 59: see those with 60; 150: Detectron2's
                for label, name in enumerate(split.classes):
                    assert f"{label} {name}" in text, split.name
