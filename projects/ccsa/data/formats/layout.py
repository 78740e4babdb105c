"""How folders of data are laid out: names of splits, pairs of images and labels, kinds of JSON."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ccsa.data.formats.text_files import read_text
from ccsa.data.problems import Problems
from ccsa.data.records import IMAGE_SUFFIXES

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_IN_NAME = re.compile(r"(?<![a-z])(train|val|valid|validation|test|dev)(ing)?(?![a-z])")
_SNIFFED = 1 << 18  # bytes at each end of a JSON file
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")


def split_of(name: str) -> str | None:
    """Return the split that the name of a file or folder contains, or None.

    Example:
        >>> split_of("instances_train2017"), split_of("valid"), split_of("default")
        ('train', 'val', None)
    """
    found = _SPLIT_IN_NAME.search(name.lower())
    if not found:
        return None
    return next(split for split, names in SPLIT_NAMES.items() if found[1] in names)


def split_folders(folder: Path) -> dict[str, Path]:
    """Return the folders directly below ``folder`` that are named like splits, by split."""
    found: dict[str, Path] = {}
    for split, names in SPLIT_NAMES.items():
        for name in names:
            if (folder / name).is_dir():
                found.setdefault(split, folder / name)
    return found


def images_in(folder: Path) -> list[Path]:
    """Return the image files directly in a folder, sorted by name, without hidden ones."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def json_kind(file: Path) -> str | None:
    """Return ``coco``, ``coco_panoptic`` or ``labelme``, by both ends of a JSON file."""
    if not file.is_file():
        return None
    with file.open("rb") as stream:
        content = stream.read(_SNIFFED)
        stream.seek(max(0, file.stat().st_size - _SNIFFED))
        content += stream.read(_SNIFFED)
    content = content.replace(b"\0", b"")  # UTF-16
    if b'"segments_info"' in content:
        return "coco_panoptic"
    if b'"shapes"' in content and b'"imagePath"' in content:
        return "labelme"
    if b'"annotations"' in content or (b'"images"' in content and b'"categories"' in content):
        return "coco"
    return None


class Pairs(NamedTuple):
    """A folder of images and the folder of their label images.

    Attributes:
        split: its name.
        images: the folder of the images.
        labels: the folder of the label images.
    """

    split: str
    images: Path
    labels: Path


def find_pairs(folder: Path, names: Sequence[str]) -> list[Pairs]:
    """Find folders of images with folders of label images.

    Understood are ``train/`` with ``train_labels/``, ``images/train/`` with ``labels/train/``,
    ``train/images/`` with ``train/labels/``, and ``images/`` with ``labels/`` without splits.

    Args:
        folder: of the data.
        names: what the folder of labels may be called, e.g. ``labels`` and ``masks``.
    """
    pairs = []
    for split, aliases in SPLIT_NAMES.items():
        candidates = [
            candidate
            for alias in aliases
            for name in names
            for candidate in (
                (folder / alias, folder / f"{alias}_{name}"),
                (folder / "images" / alias, folder / name / alias),
                (folder / alias / "images", folder / alias / name),
            )
        ]
        found = [(i, n) for i, n in candidates if _has_pairs(i, n)]
        if found:
            pairs.append(Pairs(split, *found[0]))
    if not pairs:
        candidates = [(folder / "images", folder / name) for name in names]
        pairs = [Pairs("train", i, n) for i, n in candidates if _has_pairs(i, n)][:1]
    return pairs


def labels_by_stem(folder: Path) -> dict[str, Path]:
    """Return the label images of a folder by their name without suffix."""
    files = [p for p in images_in(folder) if p.suffix.lower() in LABEL_SUFFIXES]
    return {path.stem: path for path in files}


def matched(pairs: Pairs, problems: Problems) -> list[tuple[Path, Path]]:
    """Return (image, label) files of the same name; report those that have no partner.

    A label may have a suffix in its name that says what it is: ``1_mask.png`` for ``1.jpg``.
    """
    labels = labels_by_stem(pairs.labels)
    found = []
    for image in images_in(pairs.images):
        names = (image.stem, *(f"{image.stem}{end}" for end in ("_mask", "_label", "_labels")))
        label = next((labels.pop(name) for name in names if name in labels), None)
        if label is None:
            problems.add("missing_label", image, f"no label file {image.stem}.* in {pairs.labels}")
        else:
            found.append((image, label))
    for label in labels.values():
        problems.add("unpaired_label", label, f"no image {label.stem}.* in {pairs.images}")
    return found


def read_class_names(folder: Path, problems: Problems) -> list[str] | None:
    """Return the class names in ``classes.txt`` (or ``labels.txt``), one per line, or None."""
    for name in ("classes.txt", "labels.txt", "class_names.txt"):
        file = folder / name
        if file.is_file():
            lines = [line.strip() for line in read_text(file, problems).splitlines()]
            names = [line for line in lines if line]
            for i, line in enumerate(names):
                if line in names[:i]:
                    problems.add("duplicate_category", file, f"class {line} occurs twice")
            return list(dict.fromkeys(names))
    return None


def _has_pairs(images: Path, labels: Path) -> bool:
    return bool(images_in(images)) and labels.is_dir() and bool(labels_by_stem(labels))
