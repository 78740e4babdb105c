"""Instances in COCO's format made of panoptic segments, for a dataset that is published without."""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask

from ccsa.data.formats.label_images import in_threads
from ccsa.data.formats.panoptic_json import Annotation, read_panoptic_json
from ccsa.data.formats.panoptic_png import read_segment_ids
from ccsa.data.panoptic.splits import PanopticSplit
from ccsa.errors import UserError


def instances_text(split: PanopticSplit, things: Mapping[int, str]) -> str:
    """The JSON of the instances of a split, made of its PNGs under a progress bar.

    Image ids are those of the panoptic JSON; masks are compressed run lengths, which need
    ``INPUT.MASK_FORMAT bitmask``; groups (``iscrowd``) stay groups.

    Args:
        split: as it lies on disk.
        things: names of the categories of things by id, all of them: whoever scores the instances
            takes its classes from here.

    Raises:
        UserError: the JSON or a PNG cannot be read, or a segment has no pixels.
    """
    truth = read_panoptic_json(split.json_file)
    read = partial(_read_image, split, things)
    images, annotations = [], []
    todo = list(truth.annotations.values())
    for image, instances in in_threads(read, todo, f"{split.name} instances"):
        images.append(image)
        annotations += instances
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    categories = [{"id": number, "name": name} for number, name in things.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(content)


def run_lengths(ids: np.ndarray, segments: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Masks of ``segments`` in a map (H, W) of ids, as pycocotools encodes them; of those that are
    in it.

    The runs are found once for all segments: a mask of the whole image for each is what takes long.
    """
    column = ids.ravel(order="F")  # COCO's runs go down the columns
    starts = np.append(0, np.flatnonzero(column[1:] != column[:-1]) + 1)
    ends = np.append(starts[1:], column.size)
    owners = column[starts]
    masks = {}
    for number in segments:
        mine = owners == number
        if mine.any():
            borders = np.stack([starts[mine], ends[mine]], axis=1).ravel()
            # Outside and inside in turn, outside first; a last run of no length is left out.
            counts = np.diff(borders, prepend=0, append=column.size)
            counts = counts if counts[-1] else counts[:-1]
            mask = {"size": list(ids.shape), "counts": counts.tolist()}
            masks[number] = coco_mask.frPyObjects(mask, *ids.shape)
    return masks


def _read_image(
    split: PanopticSplit, things: Mapping[int, str], annotation: Annotation
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The image and its annotations, still without ids."""
    png = split.panoptic_root / annotation.file_name
    ids = read_segment_ids(png)
    height, width = ids.shape
    image = {
        "id": annotation.image_id,
        "file_name": split.image_of(annotation).relative_to(split.image_root).as_posix(),
        "height": height,
        "width": width,
    }
    segments = [segment for segment in annotation.segments if segment.category_id in things]
    masks = run_lengths(ids, [segment.id for segment in segments])
    instances = []
    for segment in segments:
        mask = masks.get(segment.id)
        if mask is None:
            raise UserError(
                f"{png} does not show segment {segment.id}, which {split.json_file} has; "
                "put good copies of both in their places"
            )
        instances.append(
            {
                "image_id": annotation.image_id,
                "category_id": segment.category_id,
                "iscrowd": int(segment.iscrowd),
                "area": int(coco_mask.area(mask)),
                "bbox": coco_mask.toBbox(mask).tolist(),
                "segmentation": {**mask, "counts": mask["counts"].decode("ascii")},
            }
        )
    return image, instances
