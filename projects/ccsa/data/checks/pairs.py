"""Checks of pairs of an image and its label, by their file names.

Detectron2's ``load_sem_seg`` pairs images and labels by their order, so that one renamed file
shifts all pairs after it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ccsa.data.problems import Problems


def check_pairs(records: Sequence[Mapping[str, Any]], problems: Problems) -> None:
    """Report images that are paired with the label of another image.

    Names are compared without what all images, and what all labels, have in common at the start
    and at the end. Data whose labels are not named after the images is not judged.

    Args:
        records: the records of one split.
        problems: where problems are reported.
    """
    # Records with "labels" are from this project's readers, which pair files by their names.
    chosen = [r for r in records if "sem_seg_file_name" in r and "labels" not in r]
    pairs = [(r["file_name"], str(r["sem_seg_file_name"])) for r in chosen]
    if len(pairs) < 2:
        return
    images = _distinct([Path(image).stem for image, _ in pairs])
    labels = _distinct([Path(label).stem for _, label in pairs])
    if len(set(images)) < len(images):
        return  # equal names in several folders
    if images == labels:
        return
    stems = {Path(image).stem: n for n, (image, _) in enumerate(pairs)}
    equal = sum(Path(i).stem == Path(k).stem for i, k in pairs)
    by_name = {name: n for n, name in enumerate(images)}
    others = sum(by_name.get(label, n) != n for n, label in enumerate(labels))
    others += sum(stems.get(Path(k).stem, n) != n for n, (_, k) in enumerate(pairs))
    if not others and 2 * equal < len(pairs):
        return  # labels have names of their own
    for n, (image, label) in enumerate(pairs):
        if images[n] != labels[n] and Path(image).stem != Path(label).stem:
            text = f"the image is paired with the label {Path(label).name}"
            problems.add("label_of_another_image", image, text)


def _distinct(names: Sequence[str]) -> list[str]:
    """Return the names without their common start and end."""
    start = _common_start(names)
    end = _common_start([name[start:][::-1] for name in names])
    return [name[start : len(name) - end] for name in names]


def _common_start(names: Sequence[str]) -> int:
    """Return how many characters all names have in common at their start."""
    first, last = min(names), max(names)
    pairs = zip(first, last, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))
