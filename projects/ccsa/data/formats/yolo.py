"""YOLO segmentation: ``data.yaml``, ``images/`` and ``labels/`` with one text file per image.

A line is ``class x1 y1 x2 y2 ...`` (a polygon) or ``class cx cy width height`` (a box), all as
shares of the image's width and height. The format has no holes; an object of several parts is
written as one polygon whose parts are joined by a line of no width.
"""

from pathlib import Path
from typing import Any

import yaml

from ccsa.data.formats.layout import SPLIT_NAMES, images_in
from ccsa.data.formats.text_files import read_text, shown
from ccsa.data.problems import Problems
from ccsa.data.records import Split, image_header, make_annotation
from ccsa.errors import UserError

_MARGIN = 0.01  # a share of the image by which coordinates may exceed it without being wrong


def matches(folder: Path) -> bool:
    """Whether the folder has a YAML file with class names, and folders of labels."""
    return _yaml_file(folder) is not None


def read(folder: Path, problems: Problems) -> list[Split]:
    """Read every split of the folder."""
    file = _yaml_file(folder)
    if file is None:
        raise UserError(f"{folder} has no data.yaml with 'names'; add it, it lists the classes")
    settings = _settings(file, problems)
    classes = _class_names(settings, file)
    splits = []
    for split, aliases in SPLIT_NAMES.items():
        images = _image_folder(folder, settings, aliases)
        if images is not None:
            splits.append(Split(split, classes, _records(images, classes, problems), images))
    if not splits and images_in(folder / "images"):
        images = folder / "images"
        splits.append(Split("train", classes, _records(images, classes, problems), images))
    return splits


def _yaml_file(folder: Path) -> Path | None:
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        if file.is_file() and file.stat().st_size < 1 << 20:
            text = file.read_bytes()
            if b"names" in text and (b"train" in text or (folder / "labels").is_dir()):
                return file
    return None


def _settings(file: Path, problems: Problems) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(read_text(file, problems))
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(f"{file} is not valid YAML ({reason}); correct it") from error
    except RecursionError as error:
        raise UserError(f"{file} is nested too deeply; export it again") from error
    if not isinstance(settings, dict):
        raise UserError(f"{file} does not contain 'names'; export it again")
    return settings


def _class_names(settings: dict[str, Any], file: Path) -> list[str]:
    names = settings.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise UserError(f"{file}: the keys of 'names' must be 0 to {len(names) - 1}")
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names:
        raise UserError(f"{file}: 'names' is {shown(names)} instead of a list of class names")
    classes = [str(name) for name in names]
    if len(set(classes)) < len(classes):
        raise UserError(f"{file}: 'names' contains a class twice; give each class its own name")
    if "nc" in settings and settings["nc"] != len(classes):
        raise UserError(f"{file}: 'nc' is {settings['nc']}, but 'names' has {len(classes)} classes")
    return classes


def _image_folder(folder: Path, settings: dict[str, Any], aliases: tuple[str, ...]) -> Path | None:
    """Return the folder of images of a split: as the YAML says, else by the usual layouts."""
    for alias in aliases:
        value = settings.get(alias)
        if isinstance(value, str):
            parts = [
                part for part in Path(value.replace("\\", "/")).parts if part not in ("..", ".")
            ]
            for start in range(len(parts)):  # the path may be that of another machine
                if images_in(folder.joinpath(*parts[start:])):
                    return folder.joinpath(*parts[start:])
    for alias in aliases:
        for place in (folder / "images" / alias, folder / alias / "images"):
            if images_in(place):
                return place
    return None


def _records(images: Path, classes: list[str], problems: Problems) -> list[dict[str, Any]]:
    labels = _label_folder(images)
    records = []
    files = images_in(images)
    for number, file in enumerate(files, 1):
        try:
            header = image_header(str(file))
        except OSError as error:
            problems.add("unreadable_image", file, str(error))
            continue
        size = header.height, header.width
        text = labels / f"{file.stem}.txt"
        annotations = _annotations(text, len(classes), size, problems) if text.is_file() else []
        records.append(
            {
                "file_name": str(file),
                "image_id": number,
                "height": size[0],
                "width": size[1],
                "annotations": annotations,
            }
        )
    stems = {file.stem for file in files}
    for text in sorted(labels.glob("*.txt")) if labels.is_dir() else []:
        if text.stem not in stems and text.stem != "classes":
            problems.add("unpaired_label", text, f"no image {text.stem}.* in {images}")
    return records


def _label_folder(images: Path) -> Path:
    """Return the folder of labels: the last ``images`` in the path becomes ``labels``."""
    parts = list(images.parts)
    for i in range(len(parts) - 1, -1, -1):
        if parts[i] == "images":
            return Path(*parts[:i], "labels", *parts[i + 1 :])
    return images


def _annotations(
    file: Path, classes: int, size: tuple[int, int], problems: Problems
) -> list[dict[str, Any]]:
    annotations = []
    height, width = size
    for number, line in enumerate(read_text(file, problems).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        where = f"line {number}"
        try:
            values = [float(word) for word in words]
        except ValueError:
            problems.add("wrong_type", file, f"{where} is {shown(line)}, not numbers")
            continue
        category, shares = values[0], values[1:]
        if not category.is_integer() or not 0 <= category < classes:
            problems.add("unknown_category", file, f"{where}: class {words[0]} of {classes}")
            continue
        is_box = len(shares) == 4
        if not is_box and (len(shares) < 6 or len(shares) % 2):
            kind = "degenerate_polygon" if len(shares) % 2 == 0 else "invalid_polygon"
            problems.add(kind, file, f"{where} has {len(shares)} coordinates")
            continue
        if not all(-1 <= share <= 2 for share in shares):  # also false for nan
            bad = next(share for share in shares if not -1 <= share <= 2)
            kind = "invalid_box" if is_box else "invalid_polygon"
            problems.add(
                kind, file, f"{where} has the coordinate {bad}; they are shares from 0 to 1"
            )
            continue
        if not all(-_MARGIN <= share <= 1 + _MARGIN for share in shares):
            kind = "box_outside_image" if is_box else "polygon_outside_image"
            problems.add(kind, file, f"{where} reaches beyond the image")
        if is_box:
            x, y, w, h = (n * share for n, share in zip([width, height] * 2, shares, strict=True))
            if min(w, h) <= 0:
                problems.add("empty_box", file, f"{where} has no area")
                continue
            problems.add("missing_mask", file, f"{where} has no mask")
            box = [x - w / 2, y - h / 2, w, h]
            annotations.append(make_annotation(int(category), box=box, size=size))
            continue
        polygon = [share * (height if i % 2 else width) for i, share in enumerate(shares)]
        annotation = make_annotation(int(category), segmentation=[polygon], size=size)
        if min(annotation["bbox"][2:]) <= 0 or annotation["area"] <= 0:
            problems.add("empty_mask", file, f"{where} has no area")
            continue
        annotations.append(annotation)
    return annotations
