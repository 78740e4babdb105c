"""Folders with COCO instances JSON: which file belongs to which split, and where its images are."""

import logging
from pathlib import Path

from ccsa.data.formats.coco import read_splits
from ccsa.data.formats.image_files import ImageIndex
from ccsa.data.formats.layout import SPLIT_NAMES, images_in, json_kind, split_of
from ccsa.data.problems import Problems
from ccsa.data.records import Split
from ccsa.errors import UserError

logger = logging.getLogger(__name__)

_KNOWN = ("_annotations.coco.json", "result.json")
_OTHER_TASKS = ("captions", "person_keypoints", "image_info", "stuff")  # of COCO and CVAT
_LOOKED_AT = 20  # JSON files of a folder; more are one file per image


def matches(folder: Path) -> bool:
    """Whether the folder contains COCO instances JSON."""
    named, unnamed = _sorted_files(folder)
    return bool(named or unnamed)


def read(folder: Path, problems: Problems) -> list[Split]:
    """Read every split of the folder."""
    files = find_files(folder)
    indexed = [(split, file, image_index(folder, file, split)) for split, file in files.items()]
    return read_splits(indexed, problems)


def find_files(folder: Path) -> dict[str, Path]:
    """Return the JSON file of each split.

    A file that only has the name of one is taken as well, so that a damaged one is reported.

    Raises:
        UserError: several files may be those of a split.
    """
    found, unnamed = _sorted_files(folder)
    if "train" not in found and unnamed:
        found["train"] = unnamed
    chosen = {split: _choose(folder, split, files) for split, files in found.items()}
    for file in {file for files in (*found.values(), unnamed) for file in files}:
        if file not in chosen.values() and not file.name.startswith(_OTHER_TASKS):
            logger.warning("%s is not used: it is not the file of a split.", file)
    return chosen


def image_index(folder: Path, file: Path, split: str) -> ImageIndex:
    """Return the images of a JSON file: the most specific folder that has some."""
    token = file.stem.rpartition("_")[2]
    names = dict.fromkeys((file.stem, token, *SPLIT_NAMES[split], "default"))
    places = [file.parent] if file.parent not in (folder, folder / "annotations") else []
    places += [place / name for name in names for place in (folder, folder / "images")]
    places += [folder / name / "images" for name in SPLIT_NAMES[split]]
    places += [folder / "images", folder]
    chosen = next((place for place in places if images_in(place)), None)
    if chosen is None:  # images in folders below
        chosen = next((p for p in places if p.is_dir() and p != folder), folder)
    return ImageIndex([chosen], root=folder)


def _sorted_files(folder: Path) -> tuple[dict[str, list[Path]], list[Path]]:
    """Return the COCO files by the split that their name states, and those without one."""
    found: dict[str, list[Path]] = {}
    unnamed: list[Path] = []
    for file in _candidates(folder):
        kind = json_kind(file)
        named = file.name in _KNOWN or file.name.startswith("instances_")
        named = named or (file.parent == folder and split_of(file.stem) == file.stem)
        if kind != "coco" and not (kind is None and named):
            continue
        split = split_of(file.stem)
        if split is None and file.parent != folder:
            split = split_of(file.parent.name)
        if split is None:
            unnamed.append(file)
        else:
            found.setdefault(split, []).append(file)
    return found, unnamed


def _candidates(folder: Path) -> list[Path]:
    names = [name for aliases in SPLIT_NAMES.values() for name in aliases]
    files = []
    for place in (folder, folder / "annotations", *(folder / name for name in names)):
        inside = sorted(place.glob("*.json")) if place.is_dir() else []
        known = [file for file in inside if file.name in _KNOWN]
        files += known or [f for f in inside if not f.name.startswith(".")][:_LOOKED_AT]
    return files


def _choose(folder: Path, split: str, files: list[Path]) -> Path:
    """Return the file of a split: instances before key points, captions and others.

    Raises:
        UserError: two files have the same claim.
    """
    ranked = sorted(files, key=lambda file: (_rank(file, split), file.name))
    if len(ranked) > 1 and _rank(ranked[0], split) == _rank(ranked[1], split):
        raise UserError(
            f"{folder} has several files that may be the annotations of '{split}': {ranked[0]} and "
            f"{ranked[1]}; remove one, or name the files: --data FILE --images FOLDER"
        )
    return ranked[0]


def _rank(file: Path, split: str) -> int:
    if file.name in _KNOWN:
        return 0
    if file.name.startswith("instances"):
        return 1
    if file.stem in SPLIT_NAMES[split]:
        return 2
    return 4 if file.name.startswith(_OTHER_TASKS) else 3
