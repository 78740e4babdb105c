"""Folders with COCO instances JSON: which file belongs to which split, and where its images are."""

from pathlib import Path

from ccsa.data.formats.coco import read_splits
from ccsa.data.formats.image_files import ImageIndex
from ccsa.data.formats.layout import SPLIT_NAMES, images_in, json_kind, split_of
from ccsa.data.problems import Problems
from ccsa.data.records import Split

_KNOWN = ("_annotations.coco.json", "result.json")
_LOOKED_AT = 20  # JSON files of a folder; more are one file per image


def matches(folder: Path) -> bool:
    """Whether the folder contains COCO instances JSON."""
    return bool(find_files(folder))


def read(folder: Path, problems: Problems) -> list[Split]:
    """Read every split of the folder."""
    files = find_files(folder)
    indexed = [(split, file, _images(folder, file, split)) for split, file in files.items()]
    return read_splits(indexed, problems)


def find_files(folder: Path) -> dict[str, Path]:
    """Return the JSON file of each split.

    A file that only has the name of one is taken as well, so that a damaged one is reported.
    """
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
    if not found and unnamed:
        found["train"] = unnamed
    return {split: min(files, key=_preference) for split, files in found.items()}


def _candidates(folder: Path) -> list[Path]:
    names = [name for aliases in SPLIT_NAMES.values() for name in aliases]
    files = []
    for place in (folder, folder / "annotations", *(folder / name for name in names)):
        inside = sorted(place.glob("*.json")) if place.is_dir() else []
        known = [file for file in inside if file.name in _KNOWN]
        files += known or inside[:_LOOKED_AT]
    return files


def _preference(file: Path) -> tuple:
    """Instances before key points, captions and others; then short names first."""
    return (
        file.name not in _KNOWN,
        not file.name.startswith("instances"),
        len(file.name),
        file.name,
    )


def _images(folder: Path, file: Path, split: str) -> ImageIndex:
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
