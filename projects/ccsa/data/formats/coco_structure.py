"""The top level of COCO instances JSON."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ccsa.data.formats.text_files import shown
from ccsa.errors import UserError


def check_structure(content: Any, file: Path) -> dict[str, list]:
    """Check the top level of the JSON.

    Raises:
        UserError: it is not that of COCO instances.
    """
    if not isinstance(content, dict):
        raise UserError(
            f"{file} is not COCO annotations: it contains a {type(content).__name__} instead of an "
            "object with 'images', 'annotations' and 'categories'; name the annotation file"
        )
    if isinstance(content.get("annotations"), list) and any(
        "segments_info" in entry for entry in _objects(content["annotations"])
    ):
        raise UserError(
            f"{file} is COCO panoptic, which also needs its PNGs: name the folder that contains "
            "both, as --data FOLDER"
        )
    if "_via_img_metadata" in content or _is_via_regions(content):
        raise UserError(
            f"{file} is a project of VIA, not COCO annotations; in VIA, export the annotations as "
            "COCO JSON"
        )
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            state = "has no" if key not in content else f"has {shown(content[key])} as"
            raise UserError(
                f"{file} is not complete COCO annotations: it {state} list '{key}'; export it again"
            )
    return content


def _objects(entries: list) -> Iterator[dict]:
    return (entry for entry in entries if isinstance(entry, dict))


def _is_via_regions(content: dict[str, Any]) -> bool:
    first = next(iter(content.values()), None)
    return isinstance(first, dict) and "regions" in first and "filename" in first
