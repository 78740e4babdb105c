"""The panoptic ground truth of a dataset: from its JSON and PNG files, or from a user's data."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog

from ccsa.data.formats.panoptic_json import Annotation, Category, PanopticJson, read_panoptic_json
from ccsa.data.formats.panoptic_png import Segment
from ccsa.data.tasks import panoptic_segments
from ccsa.errors import UserError
from ccsa.evaluation.panoptic_files import read_annotation_ids

ReadIds = Callable[[Annotation], np.ndarray]


def panoptic_truth(dataset_name: str) -> tuple[PanopticJson, ReadIds]:
    """Return the ground truth of a dataset, and a function that returns the segment ids (H, W) of
    one of its annotations.

    Raises:
        UserError: the metadata names no files, or they cannot be read.
    """
    metadata = MetadataCatalog.get(dataset_name)
    if metadata.get("own"):
        return _own_truth(dataset_name)
    missing = [name for name in ("panoptic_json", "panoptic_root") if not metadata.get(name)]
    if missing:
        raise UserError(
            f"the metadata of {dataset_name} have no {', '.join(missing)}, which panoptic quality "
            "needs; register the dataset as docs/DATASETS.md describes"
        )
    truth = read_panoptic_json(Path(metadata.panoptic_json))
    folder = Path(metadata.panoptic_root)
    return truth, partial(read_annotation_ids, folder=folder, json=truth.path)


def _own_truth(dataset_name: str) -> tuple[PanopticJson, ReadIds]:
    """Return the ground truth that is derived from a user's annotations."""
    metadata = MetadataCatalog.get(dataset_name)
    things = {i: number for number, i in metadata.thing_dataset_id_to_contiguous_id.items()}
    stuff = {i: number for number, i in metadata.stuff_dataset_id_to_contiguous_id.items()}
    categories = {
        number: Category(number, metadata.thing_classes[i], True) for i, number in things.items()
    }
    categories |= {
        number: Category(number, metadata.stuff_classes[i], False)
        for i, number in stuff.items()
        if i  # 0 is the class of all things
    }
    records = {record["image_id"]: record for record in DatasetCatalog.get(dataset_name)}
    annotations = {}
    for image_id, record in records.items():
        _, found = panoptic_segments(record)
        segments = [
            Segment(
                segment["id"],
                (things if segment["isthing"] else stuff)[segment["category_id"]],
                bool(segment["iscrowd"]),
            )
            for segment in found
        ]
        name = Path(record["file_name"]).with_suffix(".png").name
        annotations[image_id] = Annotation(image_id, name, segments)
    truth = PanopticJson(Path(metadata.source), annotations, categories, [])

    def read_ids(annotation: Annotation) -> np.ndarray:
        return panoptic_segments(records[annotation.image_id])[0].astype(np.uint32)

    return truth, read_ids
