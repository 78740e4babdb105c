"""Each kind of damage in COCO JSON is reported under its name, with the file and the record."""

import json
import os

import pytest
from support.own_files import SQUARE, coco, save_image

from ccsa.data.folder import read_folder
from ccsa.data.problems import KINDS
from ccsa.errors import UserError

SIZE = [48, 64]


def rle(counts, size=SIZE):
    return {"segmentation": {"size": size, "counts": counts}}


ANNOTATION = {  # fields of one annotation, and the kind of problem
    "bool box": ({"bbox": [True, 1, 2, 3]}, "invalid_box"),
    "text in a box": ({"bbox": ["1", 1, 2, 3]}, "invalid_box"),
    "nan in a box": ({"bbox": [float("nan"), 1, 2, 3], "segmentation": []}, "invalid_box"),
    "infinite box": ({"bbox": [0, 0, float("inf"), 3]}, "invalid_box"),
    "long integer in a box": ({"bbox": [10**4000, 1, 2, 3]}, "invalid_box"),
    "box of 3": ({"bbox": [1, 2, 3]}, "invalid_box"),
    "far box": ({"bbox": [1e8, 0, 1, 1]}, "invalid_box"),
    "negative box": ({"bbox": [5, 5, -3, 4], "segmentation": []}, "empty_box"),
    "empty box with a mask": ({"bbox": [5, 5, 0, 4]}, "box_mask_mismatch"),
    "no box, no mask": ({"bbox": None, "segmentation": None}, "missing_field"),
    "no mask": ({"segmentation": []}, "missing_mask"),
    "odd polygon": ({"segmentation": [[*SQUARE, 1]]}, "invalid_polygon"),
    "far polygon": ({"segmentation": [[*SQUARE, 1e8, 1e8]]}, "invalid_polygon"),
    "infinite polygon": ({"segmentation": [[*SQUARE, float("inf"), 1]]}, "invalid_polygon"),
    "null in a polygon": ({"segmentation": [[*SQUARE, None, 1]]}, "invalid_polygon"),
    "endless polygon": ({"segmentation": [[0, 0, 600, 400] * 20_000]}, "invalid_polygon"),
    "nested polygon": ({"segmentation": [[[10, 10], [20, 10], [20, 20]]]}, "invalid_polygon"),
    "two points": ({"segmentation": [[1, 1, 5, 5]]}, "degenerate_polygon"),
    "text mask": ({"segmentation": "abc"}, "wrong_type"),
    "bad character": (rle("0\x19"), "invalid_rle"),
    "ends early": (rle("o"), "invalid_rle"),
    "long run": (rle("o" * 40), "invalid_rle"),
    "too few": (rle([10, 20]), "invalid_rle"),
    "too many": (rle([10, 48 * 64]), "invalid_rle"),
    "negative run": (rle([-10, 48 * 64 + 10]), "invalid_rle"),
    "text run": (rle(["1", 48 * 64 - 1]), "invalid_rle"),
    "no counts": (rle(None), "invalid_rle"),
    "no size": (rle([1], None), "invalid_rle"),
    "long integer": (rle([1, 10**4000]), "invalid_rle"),
    "exchanged size": (rle([10, 48 * 64 - 10], [64, 48]), "rle_size"),
    "giant size": (rle([10**18], [10**9, 10**9]), "rle_size"),
    "empty RLE": (rle([48 * 64]), "empty_mask"),
    "unknown category": ({"category_id": 7}, "unknown_category"),
    "category in quotes": ({"category_id": "1"}, "quoted_number"),
    "category as text": ({"category_id": "cell"}, "unknown_category"),
    "category null": ({"category_id": None}, "unknown_category"),
    "category true": ({"category_id": True}, "unknown_category"),
    "unknown image": ({"image_id": 99}, "unknown_image"),
    "image as list": ({"image_id": [1]}, "unknown_image"),
    "crowd null": ({"iscrowd": None}, "null_field"),
    "crowd in quotes": ({"iscrowd": "0"}, "quoted_number"),
    "crowd 2": ({"iscrowd": 2}, "wrong_type"),
    "ignore": ({"ignore": 1}, "ignored_annotation"),
    "area null": ({"area": None}, "null_field"),
    "area in quotes": ({"area": "400.5"}, "quoted_number"),
    "area as list": ({"area": []}, "wrong_type"),
    "area nan": ({"area": float("nan")}, "wrong_type"),
    "id 0": ({"id": 0}, "annotation_id_zero"),
    "id null": ({"id": None}, "null_field"),
    "id as list": ({"id": [1]}, "wrong_type"),
    "id 1.5": ({"id": 1.5}, "wrong_type"),
    "id of another": ({"id": 2}, "duplicate_annotation_id"),
}
IMAGE = {
    "size null": ({"width": None}, "missing_size"),
    "size 0": ({"height": 0}, "missing_size"),
    "size negative": ({"height": -48}, "wrong_type"),
    "size true": ({"height": True}, "wrong_type"),
    "size in quotes": ({"height": "48"}, "quoted_number"),
    "size as list": ({"width": [64]}, "wrong_type"),
    "size giant": ({"width": 10**9}, "wrong_type"),
    "size of many digits": ({"width": 10**4000}, "wrong_type"),
    "size infinite": ({"width": float("inf")}, "wrong_type"),
    "id of another": ({"id": 1}, "duplicate_image_id"),
    "id null": ({"id": None}, "wrong_type"),
    "id as list": ({"id": [0]}, "wrong_type"),
    "name null": ({"file_name": None}, "wrong_type"),
    "name as number": ({"file_name": 7}, "wrong_type"),
    "file of another": ({"file_name": "b.png"}, "duplicate_image_file"),
    "missing file": ({"file_name": "c.png"}, "missing_image"),
}
CATEGORIES = {
    "name null": ([{"id": 1, "name": None}], "wrong_type"),
    "no name": ([{"id": 1}], "missing_field"),
    "no id": ([{"name": "a"}], "missing_field"),
    "id in quotes": ([{"id": "1", "name": "a"}], "quoted_number"),
    "number": ([1], "wrong_type"),
    "id twice": ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "duplicate_category"),
    "name twice": ([{"id": 1, "name": "a"}, {"id": 2, "name": "a "}], "duplicate_category"),
}


def read(folder, change):
    """Read a dataset of two images after a change to its JSON; return data and problems."""
    for number, name in enumerate(("a.png", "b.png")):
        save_image(folder / "train" / name, number)
    content = coco("a.png", "b.png")
    change(content)
    (folder / "train.json").write_text(json.dumps(content))
    return read_folder(folder)


def check(data, kind):
    found = [problem for problem in data.problems if problem.kind == kind]
    assert found, list(data.problems)
    assert found[0].file.endswith("train.json") and found[0].severity == KINDS[kind].severity
    assert any(char.isdigit() for char in found[0].message)  # the number of the record


@pytest.mark.parametrize("case", ANNOTATION)
def test_annotations(case, tmp_path):
    fields, kind = ANNOTATION[case]
    check(read(tmp_path, lambda content: content["annotations"][0].update(fields)), kind)


@pytest.mark.parametrize("key", ["category_id", "image_id"])
def test_annotations_without_a_field(key, tmp_path):
    check(read(tmp_path, lambda content: content["annotations"][0].pop(key)), "missing_field")


@pytest.mark.parametrize("case", IMAGE)
def test_images(case, tmp_path):
    fields, kind = IMAGE[case]
    check(read(tmp_path, lambda content: content["images"][0].update(fields)), kind)


def test_annotations_of_a_missing_image_are_not_reported_again(tmp_path):
    data = read(tmp_path, lambda content: content["images"][0].update(file_name="none.png"))
    assert data.problems.counts == {"missing_image": 1, "empty_split": 1, "unlisted_image": 1}


@pytest.mark.parametrize("case", CATEGORIES)
def test_categories(case, tmp_path):
    categories, kind = CATEGORIES[case]
    check(read(tmp_path, lambda content: content.update(categories=categories)), kind)


def test_categories_of_one_name_are_one_class(tmp_path):
    categories = [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]

    def change(content):
        content["categories"] = categories
        content["annotations"][1]["category_id"] = 2

    data = read(tmp_path, change)
    assert data.classes == ["a"] and len(data.annotations) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\0\0\0", "is empty"),
        (b'{"images": [', "ends too early"),
        (b"[" * 10_000, "is not usable JSON"),
        (b'{"images": ' + b"9" * 5000 + b"}", "is not usable JSON"),
        (b'{"images": [], "annotations": 3, "categories": []}', "has 3 as list 'annotations'"),
        (b'{"images": [], "annotations": []}', "has no list 'categories'"),
        (b"[1, 2]", "contains a list instead of an object"),
        (b'{"images": [{"file_name": "\\ud800"}], "annotations": []}', "half of a character"),
        (b"\xff\xfe{\0", "has no list"),
        (b"\xff\xfe{\0}", "not text in UTF-16"),
        (b'{"a": "\xff"}', "not text in UTF-8"),
        (b'{"images": [], "annotations": [{"segments_info": []}]}', "COCO panoptic"),
    ],
)
def test_files_that_are_unusable_as_a_whole(content, message, tmp_path):
    file = tmp_path / "train.json"
    if content == b"\xff\xfe{\0":
        content += "}".encode("utf-16-le")
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_folder(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_byte_order_marks_are_reported(encoding, tmp_path):
    save_image(tmp_path / "a.png", 1)
    save_image(tmp_path / "b.png", 2)
    (tmp_path / "train.json").write_text(json.dumps(coco("a.png", "b.png")), encoding=encoding)
    data = read_folder(tmp_path)
    assert data.problems.kinds() == ["encoding"] and len(data.annotations) == 2


@pytest.mark.parametrize("kind", ["pipe", "folder", "link"])
def test_annotations_that_are_not_a_regular_file(kind, tmp_path):
    file = tmp_path / "train.json"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to(file)
    with pytest.raises(UserError, match=r"not recognized|not a regular file|does not exist"):
        read_folder(tmp_path)
    with pytest.raises(UserError, match=r"is not a|does not exist|not recognized"):
        read_folder(file)
