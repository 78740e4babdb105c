"""Instances in COCO's format made from panoptic segments, for datasets published without them."""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask

from ccsa.data.formats.panoptic_json import Annotation, read_panoptic_json
from ccsa.data.formats.panoptic_png import read_segment_ids
from ccsa.data.panoptic.splits import PanopticSplit
from ccsa.errors import UserError
from ccsa.utils.threads import map_in_threads


def instances_text(split: PanopticSplit, things: Mapping[int, str]) -> str:
    """Return the JSON text of the instances of a split, made from its PNGs under a progress bar.

    Image ids are those of the panoptic JSON. Masks are compressed run lengths, which need
    ``INPUT.MASK_FORMAT bitmask``. Groups (``iscrowd``) stay groups.

    Args:
        split: the split on disk.
        things: the names of all thing categories by id; evaluation takes its classes from them.

    Raises:
        UserError: the JSON or a PNG cannot be read, or a segment has no pixels.
    """
    truth = read_panoptic_json(split.json_file)
    read = partial(_read_image, split, things)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    panoptic = list(truth.annotations.values())
    for image, instances in map_in_threads(read, panoptic, f"{split.name} instances"):
        images.append(image)
        annotations += instances
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    categories = [{"id": number, "name": name} for number, name in things.items()]
    content = {"images": images, "annotations": annotations, "categories": categories}
    return json.dumps(content)


def run_lengths(ids: np.ndarray, segments: Iterable[int]) -> dict[int, dict[str, Any]]:
    """Return the masks of those ``segments`` that occur in ``ids``, as pycocotools encodes them.

    The runs are found once for all segments, because one mask of the whole image per segment would
    be slow.

    Args:
        ids: segment ids (H, W).
        segments: the ids of the wanted segments.
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
            # Runs outside and inside alternate, outside first; an empty last run is left out.
            counts = np.diff(borders, prepend=0, append=column.size)
            counts = counts if counts[-1] else counts[:-1]
            mask = {"size": list(ids.shape), "counts": counts.tolist()}
            masks[number] = coco_mask.frPyObjects(mask, *ids.shape)
    return masks


def _read_image(
    split: PanopticSplit, things: Mapping[int, str], annotation: Annotation
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the image and its annotations, which have no ids yet."""
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
                f"{png} does not show segment {segment.id}, which {split.json_file} lists; "
                "replace both with intact copies"
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
