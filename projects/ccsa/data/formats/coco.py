"""COCO instances JSON, in the dialects of the programs that write it.

Understood are plain COCO, Roboflow (``train/_annotations.coco.json``), CVAT
(``annotations/instances_default.json``, masks marked ``iscrowd: 1``), Label Studio
(``result.json``, file names with a prefix) and VIA (flat polygons, ids in quotes).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ccsa.data.formats.coco_annotation import AnnotationReader
from ccsa.data.formats.coco_conventions import (
    masks_are_marked_crowd,
    report_normalized,
    report_unlisted,
)
from ccsa.data.formats.coco_fields import FieldReader, as_integer
from ccsa.data.formats.coco_structure import check_structure
from ccsa.data.formats.image_files import ImageIndex
from ccsa.data.formats.masks import is_image_size
from ccsa.data.formats.text_files import read_json, shown
from ccsa.data.problems import Problems
from ccsa.data.records import Split, image_header


class CocoReader(FieldReader):
    """Reads one JSON file into a :class:`Split`.

    Args:
        file: the JSON file.
        images: finds image files by the names in the JSON.
        name: the name of the split.
        problems: where problems are reported.
    """

    def __init__(self, file: Path, images: ImageIndex, name: str, problems: Problems):
        super().__init__(file, problems)
        self.images, self.name = images, name
        self.content = check_structure(read_json(file, problems), file)
        self.unusable: set[str] = set()  # names of images whose record has been reported
        self.categories = self._read_categories()  # names by id; several ids may have one name

    def used_categories(self) -> set[Any]:
        """Return the category ids that annotations use."""
        entries = (e for e in self.content["annotations"] if isinstance(e, dict))
        return {as_integer(e.get("category_id")) for e in entries}

    def supercategories(self) -> set[str]:
        """Return the names that categories give as their supercategory."""
        entries = (e for e in self.content["categories"] if isinstance(e, dict))
        return {str(e.get("supercategory")) for e in entries if e.get("id") not in (0, "0")}

    def read_split(self) -> Split:
        """Return the records, images in the order of their ids."""
        names = self._class_names()
        index = {number: names.index(name) for number, name in self.categories.items()}
        split = Split(self.name, names, source=self.file)
        records = self._read_images()
        entries = self.content["annotations"]
        crowds_are_objects = masks_are_marked_crowd(entries, self.file, self.problems)
        annotations = AnnotationReader(
            self.file, index, self.problems, crowds_are_objects=crowds_are_objects
        )
        report_normalized(entries, self.file, self.problems)
        seen: dict[Any, set[str]] = {}
        numbers: set[Any] = set()
        for position, entry in enumerate(entries):
            where = f"annotation {position + 1} of the list"
            if not isinstance(entry, dict):
                self.report("wrong_type", f"{where} is {shown(entry)}, not an object")
                continue
            if "id" in entry:
                if isinstance(entry["id"], int | str):
                    where = f"annotation {shown(entry['id'])}"
                self._check_number(entry["id"], numbers, where)
            number = self.integer(entry, "image_id", where, text=True)
            record = records.get(number)
            if record is None:
                if number not in records:  # otherwise the image has been reported
                    kind = "unknown_image" if "image_id" in entry else "missing_field"
                    self.report(kind, f"{where}: image_id {shown(entry.get('image_id'))}")
                continue
            where += f" of image {record['file_name'].rpartition('/')[2]}"
            annotation = annotations.read(entry, record, where)
            if annotation is None:
                continue
            key = (
                f"{annotation['category_id']} {annotation['bbox']} {annotation.get('segmentation')}"
            )
            known = seen.setdefault(record["image_id"], set())
            if key in known:
                self.report("duplicate_annotation", f"{where} repeats another annotation")
            known.add(key)
            record["annotations"].append(annotation)
        split.records = [record for record in records.values() if record is not None]
        return split

    def _check_number(self, value: Any, numbers: set[Any], where: str) -> None:
        number = as_integer(value)
        if not isinstance(number, int | str):
            kind = "null_field" if value is None else "wrong_type"
            self.report(kind, f"{where}: 'id' is {shown(value)}")
            return
        if number == 0:
            self.report("annotation_id_zero", f"{where} has the id 0")
        if number in numbers:
            self.report("duplicate_annotation_id", f"{where} is not the only one of this id")
        numbers.add(number)

    def _read_categories(self) -> dict[int, str]:
        categories: dict[int, str] = {}
        for position, entry in enumerate(self.content["categories"]):
            where = f"category {position + 1} of the list"
            if not isinstance(entry, dict):
                self.report("wrong_type", f"{where} is {shown(entry)}, not an object")
                continue
            number, name = self.integer(entry, "id", where), entry.get("name")
            if number is None:
                kind = "wrong_type" if "id" in entry else "missing_field"
                self.report(kind, f"{where}: 'id' is {shown(entry.get('id'))}, not an integer")
                continue
            if not isinstance(name, str) or not name.strip():
                kind = "wrong_type" if "name" in entry else "missing_field"
                self.report(kind, f"category {number}: 'name' is {shown(name)}, not text")
                continue
            name = name.strip()
            if number in categories:
                self.report("duplicate_category", f"category {number} ({name}) occurs twice")
                continue
            categories[number] = name
        return categories

    def _class_names(self) -> list[str]:
        """Return the class names in the order of their ids, each once."""
        names: list[str] = []
        for number in sorted(self.categories):
            name = self.categories[number]
            if name in names:
                self.report("duplicate_category", f"category {number} has the name {name}, too")
            else:
                names.append(name)
        return names

    def _read_images(self) -> dict[Any, dict[str, Any] | None]:
        """Return records by image id, in the order of the ids; None for one that is unusable."""
        found: dict[Any, dict[str, Any] | None] = {}
        files: set[str] = set()
        for position, entry in enumerate(self.content["images"]):
            where = f"image {position + 1} of the list"
            if not isinstance(entry, dict):
                self.report("wrong_type", f"{where} is {shown(entry)}, not an object")
                continue
            number, file_name = self.integer(entry, "id", where, text=True), entry.get("file_name")
            if number is None:
                kind = "wrong_type" if "id" in entry else "missing_field"
                self.report(kind, f"{where}: 'id' is {shown(entry.get('id'))}")
                self.unusable.add(str(file_name))
                continue
            where = f"image {number}"
            if not isinstance(file_name, str) or not file_name.strip():
                kind = "wrong_type" if "file_name" in entry else "missing_field"
                self.report(kind, f"{where}: 'file_name' is {shown(file_name)}")
                found.setdefault(number, None)
                continue
            if number in found:
                self.report("duplicate_image_id", f"{where} ({file_name}) has the id of another")
                self.unusable.add(str(file_name))
                continue
            found[number] = record = self._image(entry, file_name, where)
            if record is None:
                self.unusable.add(str(file_name))
            else:
                if record["file_name"] in files:
                    self.report("duplicate_image_file", f"{where}: {file_name} occurs twice")
                files.add(record["file_name"])
        order = sorted(found, key=lambda n: (isinstance(n, str), n))
        for position, number in enumerate(order):
            record = found[number]
            if record is not None:
                record["image_id"] = position + 1  # the ids of a file may be text
        return {number: found[number] for number in order}

    def _image(self, entry: Mapping, file_name: str, where: str) -> dict[str, Any] | None:
        path = self.images.find(file_name)
        if path is None:
            kind, reason = self.images.failure(file_name)
            self.report(kind, f"{where} ({shown(file_name, 200)}): {reason}")
            return None
        self.images.report_outside(path, self.file, self.problems)
        record: dict[str, Any] = {"file_name": str(path), "annotations": []}
        size = self._size(entry, where)
        if size is None:
            try:
                header = image_header(str(path))
            except OSError as error:
                self.problems.add("unreadable_image", path, str(error))
                return None
            size = header.width, header.height
            self.report("missing_size", f"{where} ({file_name}) has no width and height")
        record["width"], record["height"] = size
        return record

    def _size(self, entry: Mapping, where: str) -> tuple[int, int] | None:
        values = []
        for key in ("width", "height"):
            value = as_integer(entry.get(key))
            if (value is None and not isinstance(entry.get(key), bool | list | dict)) or value == 0:
                return None
            if isinstance(entry[key], str) and isinstance(value, int):
                self.report("quoted_number", f"{where}: '{key}' is {shown(entry[key])}")
            if not isinstance(value, int) or not is_image_size((value, 1)):
                self.report("wrong_type", f"{where}: '{key}' is {shown(entry[key])}")
                return None
            values.append(value)
        if not is_image_size((values[1], values[0])):
            self.report("wrong_type", f"{where}: the size is {values[0]} x {values[1]}")
            return None
        return values[0], values[1]


def read_splits(files: Sequence[tuple[str, Path, ImageIndex]], problems: Problems) -> list[Split]:
    """Read the JSON files of a dataset.

    Args:
        files: (name of the split, JSON file, where its images are) of each.
        problems: where problems are reported.
    """
    readers = [CocoReader(file, images, name, problems) for name, file, images in files]
    used = set().union(*(reader.used_categories() for reader in readers))
    for reader in readers:
        name = reader.categories.get(0)
        if name is not None and 0 not in used and name in reader.supercategories():
            problems.add("dropped_category", reader.file, f"category 0 ({name}) has no annotation")
            del reader.categories[0]
    splits = [reader.read_split() for reader in readers]
    report_unlisted(
        [reader.images for reader in readers],
        {record["file_name"] for split in splits for record in split.records},
        set().union(*(reader.unusable for reader in readers)),
        problems,
    )
    return splits
