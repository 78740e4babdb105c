"""How folders of data are laid out: names of splits, pairs of images and labels, kinds of JSON."""

import logging
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ccsa.data.formats.image_files import images_below, usable_images
from ccsa.data.formats.text_files import read_text
from ccsa.data.image_reader import is_file
from ccsa.data.problems import Problems
from ccsa.data.records import IMAGE_SUFFIXES
from ccsa.errors import UserError

logger = logging.getLogger(__name__)

SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_IN_NAME = re.compile(r"(?<![a-z])(train|val|valid|validation|test|dev)(ing)?(?![a-z])")
_SNIFFED = 1 << 18  # bytes at each end of a JSON file
LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif")
MARKS = (  # at the end of the name of a label, e.g. those of Cellpose and StarDist
    *("_cp_masks", "_masks", "_mask", "_labels", "_label", "_instances"),
    *("_seg", "_gt", "_annotation"),
)
_NUMBER_FIRST = re.compile(r"(?P<number>\d{1,6})\s*[:,;=\t]\s*(?P<name>.*\S)")
_NUMBER_LAST = re.compile(r"(?P<name>.*\S)\s*[:,;=\t]\s*(?P<number>\d{1,6})")
_IMAGE_MARK = "_img"  # that Cellpose puts at the end of the name of an image


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
    """Return what is named like an image directly in a folder, sorted, without hidden files."""
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def json_kind(file: Path) -> str | None:
    """Return ``coco``, ``coco_panoptic`` or ``labelme``, by both ends of a JSON file."""
    if not is_file(file):
        return None
    try:
        with file.open("rb") as stream:
            content = stream.read(_SNIFFED)
            stream.seek(max(0, file.stat().st_size - _SNIFFED))
            content += stream.read(_SNIFFED)
    except OSError:  # not readable: reported if its name makes it part of the data
        return None
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
    Images and labels may be in one folder if the names of the labels have a suffix: ``1_mask.png``
    for ``1.jpg``.

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
        candidates += [(folder / alias, folder / alias) for alias in aliases]
        found = [(i, n) for i, n in candidates if _has_pairs(i, n)]
        if found:
            pairs.append(Pairs(split, *found[0]))
    if not pairs:
        candidates = [(folder / "images", folder / name) for name in names] + [(folder, folder)]
        pairs = [Pairs("train", i, n) for i, n in candidates if _has_pairs(i, n)][:1]
    return pairs


def matched(pairs: Pairs, root: Path, problems: Problems) -> list[tuple[Path, Path]]:
    """Return (image, label) files of the same name; report those that have no partner.

    A label may have a suffix in its name that says what it is: ``1_mask.png`` for ``1.jpg``.

    Args:
        pairs: the folders. Images in folders below them match labels in the same folders.
        root: the folder of the data.
        problems: where problems are reported.
    """
    files = usable_images(pairs.images, root, problems)
    if pairs.images == pairs.labels:
        found = [file for file in files if _unmarked(file.stem) != file.stem]
        files = [file for file in files if file not in set(found)]
    else:
        found = usable_images(pairs.labels, root, problems)
        files = [file for file in files if not file.is_relative_to(pairs.labels)]
    labels: dict[Path, Path] = {}
    for label in found:
        if label.suffix.lower() not in LABEL_SUFFIXES:
            continue
        key = _key(label, pairs.labels)
        if key in labels:
            problems.add("unpaired_label", label, f"{labels[key].name} has the same name")
        else:
            labels[key] = label
    result = []
    for image in files:
        key = _key(image, pairs.images)
        names = [key, *(key.with_name(f"{key.name}{end}") for end in MARKS)]
        if key.name.endswith(_IMAGE_MARK):
            bare = key.name.removesuffix(_IMAGE_MARK)
            names += [key.with_name(f"{bare}{end}") for end in ("", *MARKS)]
        chosen = next((labels.pop(name) for name in names if name in labels), None)
        if chosen is None:
            problems.add("missing_label", image, f"no label file {image.stem}.* in {pairs.labels}")
        else:
            result.append((image, chosen))
    for label in labels.values():
        problems.add("unpaired_label", label, f"no image {label.stem}.* in {pairs.images}")
    return result


def read_class_names(folder: Path, problems: Problems) -> list[str] | None:
    """Return the class names in ``classes.txt`` (or ``labels.txt``), one per line, or None.

    Raises:
        UserError: the file is empty, or it has an empty line between names, which would shift the
            numbers of the classes.
    """
    for name in ("classes.txt", "labels.txt", "class_names.txt"):
        file = folder / name
        if not file.exists():
            continue
        lines = [line.strip() for line in read_text(file, problems).strip("\0 \t\r\n").splitlines()]
        if not lines or "" in lines:
            state = f"has an empty line {lines.index('') + 1}" if lines else "is empty"
            raise UserError(f"{file} {state}; write one class name per line, that of value 0 first")
        names: list[str] = []
        for line in _without_numbers(lines, file):
            if "\0" in line:
                raise UserError(f"{file} contains a NUL byte; save it as text in UTF-8")
            if line in names:
                problems.add("duplicate_category", file, f"class {line} occurs twice")
            names.append(line if line not in names else f"{line} ({len(names)})")
        return names
    return None


def _without_numbers(lines: list[str], file: Path) -> list[str]:
    """Return names written with their numbers (``0: cell`` or ``cell,0``) in the order of these."""
    for pattern in (_NUMBER_FIRST, _NUMBER_LAST):
        found = [pattern.fullmatch(line) for line in lines]
        names = {int(match["number"]): match["name"] for match in found if match}
        if len(lines) == sum(match is not None for match in found):
            if sorted(names) == list(range(len(lines))):
                return [names[number] for number in range(len(lines))]
            logger.warning(
                "%s: the lines contain numbers (%s), but not those from 0 to %d; the lines are "
                "read as names, that of value 0 first.",
                *(file, lines[0], len(lines) - 1),
            )
    return lines


def _key(file: Path, folder: Path) -> Path:
    """Return the path of a file in its folder without suffix, accents composed."""
    relative = file.relative_to(folder).with_suffix("")
    return Path(unicodedata.normalize("NFC", str(relative)))


def _unmarked(stem: str) -> str:
    """Return the name of the image that a label with a suffix in its name belongs to."""
    mark = next((mark for mark in MARKS if stem.endswith(mark)), "")
    return stem.removesuffix(mark)


def _has_pairs(images: Path, labels: Path) -> bool:
    """Whether at least one image has a label."""
    if not images.is_dir() or not labels.is_dir():
        return False
    if images == labels:
        stems = {file.stem for file in images_in(images)}
        bare = {_unmarked(stem) for stem in stems if _unmarked(stem) != stem}
        return bool(bare & stems or {f"{stem}{_IMAGE_MARK}" for stem in bare} & stems)
    return any(images_below(images)) and any(images_below(labels))
