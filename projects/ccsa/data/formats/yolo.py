"""YOLO segmentation: ``data.yaml``, ``images/`` and ``labels/`` with one text file per image.

A line is ``class x1 y1 x2 y2 ...`` (a polygon) or ``class cx cy width height`` (a box), all as
fractions of the image's width and height. The format has no holes; an object of several parts is
written as one polygon whose parts are joined by a line of no width.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from ccsa.data.formats.image_files import images_below, usable_images
from ccsa.data.formats.layout import SPLIT_NAMES, split_folders, split_of
from ccsa.data.formats.text_files import read_text, shown
from ccsa.data.image_reader import is_file
from ccsa.data.problems import Problems
from ccsa.data.records import IMAGE_SUFFIXES, Split, image_header, make_annotation
from ccsa.errors import UserError

logger = logging.getLogger(__name__)

_MARGIN = 0.01  # a fraction of the image by which coordinates may exceed it without being wrong


def matches(folder: Path) -> bool:
    """Whether the folder has a YAML file with class names, and folders of labels."""
    return _yaml_file(folder) is not None


def read(folder: Path, problems: Problems) -> list[Split]:
    """Read every split of the folder.

    Raises:
        UserError: the YAML file is missing, damaged, or describes another task.
    """
    file = _yaml_file(folder)
    if file is None:
        raise UserError(f"{folder} has no data.yaml with 'names'; add it, it lists the classes")
    settings = _settings(file, problems)
    classes = _class_names(settings, file)
    splits: list[Split] = []
    for split, aliases in SPLIT_NAMES.items():
        images, source = _split_images(folder, file, settings, aliases, problems)
        if images:
            same = next((s for s in splits if s.source == source), None)
            if same and set(images) & {Path(r["file_name"]) for r in same.records}:
                raise UserError(
                    f"{file}: '{same.name}' and '{split}' are the same images ({source}); give "
                    "each split its own folder"
                )
            splits.append(Split(split, classes, _records(images, classes, problems), source))
    if not splits:
        source = folder / "images"
        images = usable_images(source, folder, problems)
        splits = [Split("train", classes, _records(images, classes, problems), source)]
    for place in {_label_file(Path(r["file_name"])).parent for s in splits for r in s.records}:
        _report_unpaired(place, splits, problems)
    return splits


def _yaml_file(folder: Path) -> Path | None:
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        try:
            text = file.read_bytes() if is_file(file) and file.stat().st_size < 1 << 20 else b""
        except OSError:
            continue
        text = text.replace(b"\0", b"")  # UTF-16
        if b"names" in text and (b"train" in text or (folder / "labels").is_dir()):
            return file
    return None


def _settings(file: Path, problems: Problems) -> dict[str, Any]:
    text = read_text(file, problems)
    try:
        settings = yaml.safe_load(text)
    except RecursionError as error:
        raise UserError(f"{file} is nested too deeply; export it again") from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # also dates and integers
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{file} is not valid YAML ({reason}); correct it") from error
    if not isinstance(settings, dict):
        raise UserError(f"{file} does not contain 'names'; export it again")
    if "kpt_shape" in settings:
        raise UserError(
            f"{file} describes key points ('kpt_shape'), which no model here is trained on; export "
            "the data for segmentation"
        )
    return settings


def _class_names(settings: dict[str, Any], file: Path) -> list[str]:
    names = settings.get("names")
    if isinstance(names, dict):
        if set(map(str, names)) != set(map(str, range(len(names)))):
            raise UserError(f"{file}: the keys of 'names' must be 0 to {len(names) - 1}")
        names = [name for _, name in sorted(names.items(), key=lambda item: int(item[0]))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{file}: 'names' is {shown(names)} instead of a list of class names")
    for name in names:
        if isinstance(name, bool) or not isinstance(name, str | int | float):
            raise UserError(
                f"{file}: 'names' contains {shown(name)}, not text; write the name in quotes"
            )
    classes = [str(name).strip() for name in names]
    if len(set(classes)) < len(classes):
        raise UserError(f"{file}: 'names' contains a class twice; give each class its own name")
    if "" in classes:
        raise UserError(f"{file}: 'names' contains an empty name; give each class a name")
    if "nc" in settings and settings["nc"] != len(classes):
        raise UserError(
            f"{file}: 'nc' is {shown(settings['nc'])}, but 'names' has {len(classes)} classes"
        )
    return classes


def _split_images(
    folder: Path, file: Path, settings: dict[str, Any], aliases: Sequence[str], problems: Problems
) -> tuple[list[Path], Path]:
    """Return the images of a split, as the YAML says or else by the usual layouts, and where they
    are."""
    missing = ""
    for alias in aliases:
        value = settings.get(alias)
        entries = value if isinstance(value, list) else [value] if value else []
        images: list[Path] = []
        for entry in entries:
            if not isinstance(entry, str):
                raise UserError(
                    f"{file}: '{alias}' is {shown(value)} instead of a folder, a text file of "
                    "paths, or a list of these"
                )
            images += _listed(folder, file, settings, entry, problems)
        if images:
            common = os.path.commonpath([image.parent for image in images])
            return list(dict.fromkeys(images)), Path(common)
        if entries:
            logger.warning(
                "%s: '%s' (%s) has no images; usual folders are tried.", file, alias, shown(value)
            )
            missing = (
                f"{file}: '{alias}' ({shown(value)}) does not exist or has no images of its own"
            )
    for alias in aliases:
        for place in (folder / "images" / alias, folder / alias / "images"):
            images = usable_images(place, folder, problems)
            if images:
                return images, place
    if missing and "test" not in aliases:  # exports name a test split that they do not contain
        raise UserError(f"{missing}; correct the folder, or remove the entry")
    return [], folder


def _listed(
    folder: Path, file: Path, settings: dict[str, Any], entry: str, problems: Problems
) -> list[Path]:
    """Return the images that an entry of the YAML file names: a folder, or a text file of paths."""
    base = settings.get("path")
    start = base if isinstance(base, str) else ""
    if entry.lower().endswith(".txt"):
        place = _inside(folder, start, entry, is_file)
        if place is None:
            return []
        images = []
        for number, line in enumerate(read_text(place, problems).splitlines(), 1):
            if line.strip():
                image = _inside(folder, start, line.strip(), is_file)
                if image is None or not image.name.lower().endswith(IMAGE_SUFFIXES):
                    problems.add("missing_image", place, f"line {number}: no file {shown(line)}")
                else:
                    images.append(image)
        return images
    place = _inside(folder, start, entry, lambda path: any(images_below(path)))
    return usable_images(place, folder, problems) if place else []


def _inside(folder: Path, base: str, name: str, accepts: Any) -> Path | None:
    """Return the path inside the folder that a path of the YAML file means.

    The path may be that of another machine, so its beginning is dropped part by part, but not the
    part that names a split.
    """
    for text in (f"{base}/{name}", name):
        parts = [
            p for p in PurePosixPath(text.replace("\\", "/")).parts if p not in ("..", ".", "/")
        ]
        last = max((i for i, part in enumerate(parts) if split_of(part)), default=len(parts) - 1)
        for start in range(max(last, 0) + 1):
            place = folder.joinpath(*parts[start:])
            splits = {**split_folders(place), **split_folders(place / "images")}
            if accepts(place) and len(splits) < (1 if start else 2):
                return place
    return None


def _records(files: list[Path], classes: list[str], problems: Problems) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for file in files:
        try:
            header = image_header(str(file))
        except OSError as error:
            problems.add("unreadable_image", file, str(error))
            continue
        size = header.height, header.width
        records.append(
            {
                "file_name": str(file),
                "image_id": len(records) + 1,
                "height": size[0],
                "width": size[1],
                "annotations": _annotations(_label_file(file), len(classes), size, problems),
            }
        )
    without = [r["file_name"] for r in records if not os.path.lexists(_label_file(r["file_name"]))]
    if 0 < 2 * len(without) < len(records):
        text = f"{len(without)} of {len(records)} images have no label file (the first is this one)"
        problems.add(
            "unlisted_image", without[0], f"{text}; they are read as images without objects"
        )
    return records


def _label_file(image: str | Path) -> Path:
    """Return the label file of an image: the last ``images`` in the path becomes ``labels``. Labels
    may also be beside the images."""
    image = Path(image)
    parts = list(image.parent.parts)
    for i in range(len(parts) - 1, -1, -1):
        if parts[i].lower() == "images":
            folder = Path(*parts[:i], "labels", *parts[i + 1 :])
            if folder.is_dir():
                return folder / f"{image.stem}.txt"
            break
    return image.with_suffix(".txt")


def _report_unpaired(folder: Path, splits: list[Split], problems: Problems) -> None:
    used = {_label_file(Path(r["file_name"])) for s in splits for r in s.records}
    for text in sorted(folder.glob("*.txt")):
        if text not in used and text.stem not in ("classes", "labels", "train", "val", "test"):
            problems.add("unpaired_label", text, f"no image {text.stem}.* belongs to it")


def _annotations(
    file: Path, classes: int, size: tuple[int, int], problems: Problems
) -> list[dict[str, Any]]:
    """Return the objects in a label file; none if there is no file."""
    if not os.path.lexists(file):
        return []
    try:
        lines = read_text(file, problems).splitlines()
    except UserError as error:
        problems.add("unreadable_label", file, str(error))
        return []
    annotations = []
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if line in seen:
            problems.add("duplicate_annotation", file, f"line {number} repeats another line")
        seen.add(line)
        try:
            annotation = _annotation(line, classes, size, f"line {number}", problems, file)
        except _LineError as error:
            kind, reason = error.args
            problems.add(kind, file, f"line {number} {reason}")
        else:
            annotations.append(annotation)
    return annotations


class _LineError(Exception):
    """A line cannot be used: kind of problem, and what is wrong."""


def _annotation(
    line: str, classes: int, size: tuple[int, int], where: str, problems: Problems, file: Path
) -> dict[str, Any]:
    """Return the object of a line.

    Raises:
        _LineError: it is not an object.
    """
    height, width = size
    words = line.split()
    try:
        category, *fractions = [float(word) for word in words]
    except ValueError as error:
        raise _LineError("wrong_type", f"is {shown(line)}, not numbers") from error
    if not category.is_integer() or not 0 <= category < classes:
        raise _LineError("unknown_category", f"has class {shown(words[0])} of {classes}")
    is_box = len(fractions) == 4
    if not is_box and (len(fractions) < 6 or len(fractions) % 2):
        kind = "degenerate_polygon" if len(fractions) % 2 == 0 else "invalid_polygon"
        raise _LineError(kind, f"has {len(fractions)} coordinates")
    wrong = [value for value in fractions if not -1 <= value <= 2]  # also not-a-number
    if wrong:
        raise _LineError(
            "invalid_box" if is_box else "invalid_polygon",
            f"has the coordinate {wrong[0]:g}; coordinates are fractions from 0 to 1",
        )
    x, y, w, h = fractions[:4]
    reached = [x - w / 2, x + w / 2, y - h / 2, y + h / 2] if is_box else fractions
    if not all(-_MARGIN <= value <= 1 + _MARGIN for value in reached):
        kind = "box_outside_image" if is_box else "polygon_outside_image"
        problems.add(kind, file, f"{where} reaches beyond the image")
    if is_box:
        if min(w, h) <= 0:
            raise _LineError("empty_box", "has no area")
        problems.add("missing_mask", file, f"{where} has no mask")
        box = [(x - w / 2) * width, (y - h / 2) * height, w * width, h * height]
        return make_annotation(int(category), box=box, size=size)
    polygon = [value * (height if i % 2 else width) for i, value in enumerate(fractions)]
    annotation = make_annotation(int(category), segmentation=[polygon], size=size)
    if min(annotation["bbox"][2:]) <= 0 or annotation["area"] <= 0:
        raise _LineError("empty_mask", "has no area")
    return annotation
