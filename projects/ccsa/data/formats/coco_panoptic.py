"""COCO panoptic: a JSON file per split, PNGs whose colors are segment ids, and images."""

from pathlib import Path
from typing import Any

import numpy as np

from ccsa.data.formats.image_files import ImageIndex
from ccsa.data.formats.layout import SPLIT_NAMES, images_in, json_kind, split_of
from ccsa.data.formats.panoptic_json import PanopticJson, read_panoptic_json
from ccsa.data.formats.panoptic_png import read_segment_ids
from ccsa.data.formats.text_files import shown
from ccsa.data.image_reader import is_file
from ccsa.data.problems import Problems
from ccsa.data.records import Split, image_header, make_annotation, rles_of_labels
from ccsa.errors import UserError
from ccsa.utils.files import real_path

_LOOKED_AT = 20  # JSON files of a folder


def matches(folder: Path) -> bool:
    """Whether the folder contains panoptic JSON files."""
    places = [folder, folder / "annotations"]
    files = [file for place in places for file in sorted(place.glob("*.json"))[:_LOOKED_AT]]
    return any(json_kind(file) == "coco_panoptic" for file in files)


def read(folder: Path, problems: Problems) -> list[Split]:
    """Read every split of the folder. Things also become instances, whose masks are RLEs."""
    return [_split(folder, split, file, problems) for split, file in _files(folder).items()]


def _files(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    places = [folder, folder / "annotations"]
    for file in [f for place in places for f in sorted(place.glob("*.json"))[:_LOOKED_AT]]:
        if json_kind(file) == "coco_panoptic":
            split = split_of(file.stem) or "train"
            if split in found:
                raise UserError(
                    f"{folder} has several files that may be the annotations of '{split}': "
                    f"{found[split]} and {file}; remove one"
                )
            found[split] = file
    return found


def _split(folder: Path, name: str, file: Path, problems: Problems) -> Split:
    content = read_panoptic_json(file, problems=problems)
    categories = [content.categories[number] for number in sorted(content.categories)]
    names_seen: set[str] = set()
    for category in categories:
        if category.name in names_seen:
            text = f"category {category.id} has the name {category.name}, too"
            problems.add("duplicate_category", file, text)
        names_seen.add(category.name)
    index = {category.id: i for i, category in enumerate(categories)}
    split = Split(
        name,
        [category.name for category in categories],
        source=file,
        stuff=[category.name for category in categories if not category.isthing],
    )
    pngs = _png_folder(folder, file)
    images = _image_index(folder, file, name, pngs)
    names = _image_names(content)
    files: set[str] = set()
    for number in set(names) - set(content.annotations):
        text = f"image {shown(number)} ({shown(names[number], 200)}) has no panoptic annotation"
        problems.add("unlisted_image", file, text)
    for annotation in content.annotations.values():
        where = f"image {shown(annotation.image_id)}"
        if names and annotation.image_id not in names:
            problems.add("unknown_image", file, f"{where} is not among 'images'")
            continue
        png = pngs / annotation.file_name
        name = names.get(annotation.image_id, annotation.file_name)
        path = images.find(name) or images.same_stem(Path(name).stem)
        if path is None:
            kind, reason = images.failure(name)
            problems.add(kind, file, f"{where} ({shown(name, 200)}): {reason}")
            continue
        images.report_outside(path, file, problems)
        if str(path) in files:
            problems.add("duplicate_image_file", file, f"{where}: {path.name} occurs twice")
        files.add(str(path))
        if not is_file(png) or not ImageIndex([pngs]).is_usable(png):
            problems.add("missing_label", file, f"{where}: no file {shown(str(png), 200)}")
            continue
        if not real_path(png).is_relative_to(real_path(folder)):
            problems.add("outside", file, f"{png} is a link to {real_path(png)}")
        unknown = [s.category_id for s in annotation.segments if s.category_id not in index]
        if unknown:
            problems.add("unknown_category", file, f"{where}: category {shown(unknown[0])}")
            continue
        try:
            header = image_header(str(path))
        except OSError as error:
            problems.add("unreadable_image", path, str(error))
            continue
        try:
            ids = read_segment_ids(png)
        except UserError as error:
            problems.add("unreadable_label", png, str(error))
            continue
        size = header.height, header.width
        if ids.shape != size:
            problems.add(
                "label_size",
                png,
                f"{ids.shape[1]} x {ids.shape[0]} pixels, the image {size[1]} x {size[0]}",
            )
            continue
        problem = _segment_problem(ids, [s.id for s in annotation.segments])
        if problem:
            problems.add("segment_mismatch", png, f"{where}: {problem}")
            continue
        record: dict[str, Any] = {
            "file_name": str(path),
            "image_id": len(split.records) + 1,
            "height": size[0],
            "width": size[1],
            "pan_seg_file_name": str(png),
            "segments_info": [],
            "annotations": [],
        }
        rles = rles_of_labels(ids)
        for segment in annotation.segments:
            label, crowd = index[segment.category_id], int(segment.iscrowd)
            record["segments_info"].append(
                {"id": segment.id, "category_id": label, "iscrowd": crowd}
            )
            if categories[label].isthing:
                rle = rles[segment.id]
                record["annotations"].append(
                    make_annotation(label, segmentation=rle, iscrowd=crowd, size=size)
                )
        split.records.append(record)
    return split


def _segment_problem(ids: np.ndarray, listed: list[int]) -> str:
    shown = set(np.unique(ids).tolist()) - {0}
    if len(set(listed)) < len(listed):
        return "a segment id occurs twice in the JSON"
    if lacking := sorted(set(listed) - shown):
        return f"segment {lacking[0]} is in the JSON but not in the PNG"
    if extra := sorted(shown - set(listed)):
        return f"segment {extra[0]} is in the PNG but not in the JSON"
    return ""


def _png_folder(folder: Path, file: Path) -> Path:
    places = [file.with_suffix(""), folder / file.stem, folder / "annotations" / file.stem]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise UserError(
            f"{file} has no folder of panoptic PNGs (looked for {places[0]} and {places[1]}); "
            "put them there"
        )
    return found


def _image_index(folder: Path, file: Path, split: str, pngs: Path) -> ImageIndex:
    token = file.stem.rpartition("_")[2]
    names = dict.fromkeys((token, *SPLIT_NAMES[split]))
    places = [place / name for name in names for place in (folder, folder / "images")]
    places += [folder / "images", folder]
    chosen = next((p for p in places if images_in(p) and p != pngs), folder)
    return ImageIndex([chosen], root=folder)


def _image_names(content: PanopticJson) -> dict[Any, str]:
    return {
        image["id"]: image["file_name"]
        for image in content.images
        if isinstance(image, dict)
        and isinstance(image.get("id"), int | str)
        and isinstance(image.get("file_name"), str)
    }
