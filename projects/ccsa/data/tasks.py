"""What a model is trained on, derived from a user's data: instances, a class per pixel, or panoptic
segments.

Nothing is written to disk: a record says in ``"labels"`` how its label image is obtained, and
:func:`semantic_label` obtains it, the same way in training, evaluation and drawings.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask

from ccsa.data.folder import FolderDataset
from ccsa.data.formats.label_images import FIX, read_label_image
from ccsa.data.formats.panoptic_png import read_segment_ids
from ccsa.data.records import rle_of_polygons
from ccsa.errors import UserError, one_of

IGNORE = 255
BACKGROUND, THINGS = "background", "things"
DETECTION, SEMANTIC, PANOPTIC = "detection", "semantic", "panoptic"


@dataclass
class TaskData:
    """A user's data for one kind of model.

    Attributes:
        kind: ``detection``, ``semantic`` or ``panoptic``.
        thing_classes: classes of objects; ``category_id`` of the annotations is an index into them.
        stuff_classes: for ``semantic`` all classes of pixels; for ``panoptic`` those that are not
            countable, after ``things``, as Panoptic FPN numbers them.
        splits: Detectron2's standard dicts.
    """

    kind: str
    thing_classes: list[str] = field(default_factory=list)
    stuff_classes: list[str] = field(default_factory=list)
    splits: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


def derive(data: FolderDataset, kind: str) -> TaskData:
    """Derive what a model of the given kind is trained on.

    Args:
        data: of :func:`ccsa.data.read_folder`.
        kind: ``detection``, ``semantic`` or ``panoptic``.

    Raises:
        UserError: the data does not contain what such a model needs.
    """
    task = _derive(data, kind)
    if len(task.stuff_classes) > IGNORE:
        raise UserError(
            f"{data.root} gives {len(task.stuff_classes)} classes of pixels, but labels of 8 bits "
            f"hold at most {IGNORE}, because {IGNORE} is ignored; merge or remove classes, or "
            "train a detector, e.g. configs/own/mask_rcnn.yaml"
        )
    return task


def _derive(data: FolderDataset, kind: str) -> TaskData:
    things = _things(data)
    if kind == DETECTION:
        if not data.has_boxes:
            raise UserError(
                f"{data.root} ({data.format}) has a class per pixel but no objects, which a "
                "detector needs; train a semantic model, e.g. configs/own/ccnet.yaml, or annotate "
                "objects"
            )
        index = {data.classes.index(name): i for i, name in enumerate(things)}
        return TaskData(kind, things, [], _renumbered(data, index))
    if kind == SEMANTIC:
        return _semantic(data)
    if kind != PANOPTIC:
        one_of((DETECTION, SEMANTIC, PANOPTIC), kind, "kind")
    return _panoptic(data, things)


def semantic_label(record: Mapping[str, Any], *, fix: str = FIX) -> np.ndarray:
    """Return the classes of the pixels of a record, (H, W) integers; 255 is ignored.

    Args:
        record: of a dataset with a class per pixel. ``record["labels"]``, if it is there, is
            ``{"source": "file" | "segments" | "annotations", "classes": {number: label}}``: the
            label image, the panoptic PNG, or the objects drawn over background 0, smaller ones on
            top.
        fix: how a damaged file can be fixed, for the message.

    Raises:
        UserError: a file cannot be read.
    """
    labels = record.get("labels")
    if labels is None or labels["source"] == "file":
        mapping = labels["classes"] if labels else record.get("label_mapping")
        return read_label_image(record["sem_seg_file_name"], mapping, fix=fix)
    classes = labels["classes"]
    if labels["source"] == "segments":
        ids = read_segment_ids(Path(record["pan_seg_file_name"]))
        result = np.full(ids.shape, IGNORE, np.uint8)
        for segment in record["segments_info"]:
            result[ids == segment["id"]] = classes[segment["category_id"]]
        return result
    size = record["height"], record["width"]
    result = np.full(size, labels["background"], np.uint8)
    objects = record.get("objects", record.get("annotations", ()))
    for annotation, rle in largest_first(objects, size):
        crowd = annotation["iscrowd"]
        result[coco_mask.decode(rle).astype(bool)] = (
            IGNORE if crowd else classes[annotation["category_id"]]
        )
    return result


def has_label(record: Mapping[str, Any]) -> bool:
    """Whether a record has a class per pixel."""
    return "labels" in record or "sem_seg_file_name" in record


def check_label(label: np.ndarray, classes: int, ignore: int, source: str) -> None:
    """Check that a label contains classes and the ignore value only.

    Args:
        label: integers (H, W).
        classes: number of classes.
        ignore: the ignore value.
        source: the file, for the message.

    Raises:
        UserError: naming the first other value.
    """
    wrong = label[((label < 0) | (label >= classes)) & (label != ignore)]
    if wrong.size:
        raise UserError(
            f"{source} contains the value {int(wrong[0])}, but the classes are 0 to {classes - 1} "
            f"and {ignore} is ignored; correct the label, or map the value: "
            f"DATASETS.LABEL_MAPPING '{{{int(wrong[0])}: CLASS}}'"
        )


def panoptic_segments(
    record: Mapping[str, Any],
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Return the panoptic ground truth of a record of ``panoptic`` data.

    Returns:
        Segment ids (H, W), 0 for void, and ``{"id", "category_id", "isthing", "iscrowd"}`` of each
        segment. ``category_id`` is an index into the thing classes, or into the stuff classes.
    """
    labels = record["labels"]
    classes = labels["classes"]  # of all categories; 0 is things
    things = labels["things"]
    if labels["source"] == "segments":
        ids = read_segment_ids(Path(record["pan_seg_file_name"])).astype(np.int64)
        segments = []
        for segment in record["segments_info"]:
            category, isthing = segment["category_id"], segment["category_id"] in things
            segments.append(
                {
                    "id": segment["id"],
                    "category_id": things[category] if isthing else classes[category],
                    "isthing": isthing,
                    "iscrowd": segment["iscrowd"],
                }
            )
        return ids, segments
    size = record["height"], record["width"]
    ids = np.ones(size, np.int64)
    segments = [{"id": 1, "category_id": labels["background"], "isthing": False, "iscrowd": 0}]
    for number, (annotation, rle) in enumerate(largest_first(record["annotations"], size), 2):
        ids[coco_mask.decode(rle).astype(bool)] = number
        segments.append(
            {
                "id": number,
                "category_id": annotation["category_id"],
                "isthing": True,
                "iscrowd": annotation["iscrowd"],
            }
        )
    shown = set(np.unique(ids).tolist())
    return ids, [segment for segment in segments if segment["id"] in shown]


def largest_first(
    annotations: Sequence[Mapping[str, Any]], size: tuple[int, int]
) -> list[tuple[Mapping[str, Any], Any]]:
    """Return annotations that have masks, with their RLEs, in the order in which they are drawn:
    crowd regions first, then by the area of the mask, so that smaller objects are on top. (The
    ``area`` of a file may be missing or wrong.)

    Args:
        annotations: in Detectron2's standard form.
        size: (height, width) of the image.
    """
    masked = [(a, encoded_mask(a, size)) for a in annotations if "segmentation" in a]
    return sorted(masked, key=lambda pair: (-pair[0]["iscrowd"], -int(coco_mask.area(pair[1]))))


def encoded_mask(annotation: Mapping[str, Any], size: tuple[int, int]) -> Any:
    """Return the mask of an annotation with polygons or a compressed RLE as a compressed RLE."""
    segmentation = annotation["segmentation"]
    return segmentation if isinstance(segmentation, dict) else rle_of_polygons(segmentation, size)


def decode_mask(annotation: Mapping[str, Any], size: tuple[int, int]) -> np.ndarray:
    """Return the mask (H, W), bool, of an annotation with polygons or a compressed RLE."""
    return coco_mask.decode(encoded_mask(annotation, size)).astype(bool)


def unused_name(name: str, names: Sequence[str]) -> str:
    """Return the name of a class that is added to others, which may have the same name.

    Example:
        >>> unused_name("background", ["cell"]), unused_name("background", ["background"])
        ('background', 'background (2)')
    """
    number, result = 1, name
    while result in names:
        number += 1
        result = f"{name} ({number})"
    return result


def _things(data: FolderDataset) -> list[str]:
    """Return the classes of objects: not stuff, and in VOC not the background."""
    things = [name for name in data.classes if name not in data.stuff]
    if data.format == "voc" and things and things[0] == BACKGROUND:
        return things[1:]
    return things


def _renumbered(data: FolderDataset, index: Mapping[int, int]) -> dict[str, list[dict[str, Any]]]:
    """Return the splits with annotations of the classes in ``index``, numbered by it."""
    splits = {}
    for name, records in data.splits.items():
        splits[name] = [
            {
                **{k: v for k, v in record.items() if k not in ("segments_info",)},
                "annotations": [
                    {**a, "category_id": index[a["category_id"]]}
                    for a in record.get("annotations", ())
                    if a["category_id"] in index
                ],
            }
            for record in records
        ]
        for record in splits[name]:
            for key in ("sem_seg_file_name", "pan_seg_file_name", "label_mapping"):
                record.pop(key, None)
    return splits


def _semantic(data: FolderDataset) -> TaskData:
    identity = {i: i for i in range(len(data.classes))}
    if data.has_labels:
        splits = {
            name: [
                {
                    **{k: v for k, v in r.items() if k not in ("annotations", "label_mapping")},
                    "labels": {"source": "file", "classes": r.get("label_mapping", {})},
                }
                for r in records
            ]
            for name, records in data.splits.items()
        }
        return TaskData(SEMANTIC, [], list(data.classes), splits)
    if data.has_segments:
        labels: dict[str, Any] = {"source": "segments", "classes": identity}
        classes = list(data.classes)
    else:
        _require_masks(data, "a semantic model")
        classes = [unused_name(BACKGROUND, data.classes), *data.classes]
        labels = {"source": "annotations", "classes": {i: i + 1 for i in identity}, "background": 0}
    splits = {
        name: [
            # Not "annotations": Detectron2 would leave out images without objects.
            {**{k: v for k, v in r.items() if k != "annotations"}, "labels": labels}
            | ({"objects": r["annotations"]} if "annotations" in r else {})
            for r in records
        ]
        for name, records in data.splits.items()
    }
    return TaskData(SEMANTIC, [], classes, splits)


def _panoptic(data: FolderDataset, things: list[str]) -> TaskData:
    if not data.has_segments:
        if data.has_labels and not data.has_boxes:
            raise UserError(
                f"{data.root} ({data.format}) has a class per pixel but no objects, which a "
                "panoptic model needs; train a semantic model, e.g. configs/own/ccnet.yaml"
            )
        _require_masks(data, "a panoptic model")
    stuff = list(data.stuff) if data.has_segments else [unused_name(BACKGROUND, things)]
    numbers = {data.classes.index(name): i for i, name in enumerate(things)}
    classes = dict.fromkeys(numbers, 0)
    classes |= {data.classes.index(n): i + 1 for i, n in enumerate(stuff) if n in data.classes}
    labels: dict[str, Any] = {"classes": classes, "things": numbers, "background": 1}
    labels["source"] = "segments" if data.has_segments else "annotations"
    if not data.has_segments:  # annotations are renumbered below
        labels["classes"] = dict.fromkeys(range(len(things)), 0)
    splits = _renumbered(data, numbers)
    for name, records in splits.items():
        for record, original in zip(records, data.splits[name], strict=True):
            record["labels"] = labels
            if data.has_segments:
                record["pan_seg_file_name"] = original["pan_seg_file_name"]
                record["segments_info"] = original["segments_info"]
    return TaskData(PANOPTIC, things, [unused_name(THINGS, [*things, *stuff]), *stuff], splits)


def _require_masks(data: FolderDataset, model: str) -> None:
    """Reject data of which most objects have no mask.

    Raises:
        UserError: with the number of masks.
    """
    annotations = [a for a in data.annotations if not a["iscrowd"]]
    masks = sum("segmentation" in a for a in annotations)
    if 2 * masks < len(annotations):
        raise UserError(
            f"{data.root}: {len(annotations) - masks} of {len(annotations)} annotations have no "
            f"mask, which {model} needs; add masks, or train a box model, e.g. with "
            "MODEL.MASK_ON False"
        )
