"""Run tools/evaluate_panoptic.py as a user does, with every mistake in its files."""

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import evaluate_panoptic as tool
import numpy as np
import pytest
from PIL import Image
from support import panoptic_files as files

from ccsa.evaluation import evaluate_files

TOOL = Path(__file__).parents[2] / "tools" / "evaluate_panoptic.py"
PNG = "000000000002.png"


@pytest.fixture
def pair(tmp_path):
    return files.write_pair(tmp_path / "pair", 3, size=(20, 24))


@pytest.fixture
def run(pair, run_tool):
    """Run the tool on ``pair``."""
    return partial(run_tool, tool, *options_of(pair))


def options_of(pair):
    places = {"gt-json": "gt.json", "gt-dir": "gt", "pred-json": "pred.json", "pred-dir": "pred"}
    return [str(w) for key, name in places.items() for w in (f"--{key}", pair / name)]


def test_results_are_printed_and_written(run, pair, tmp_path):
    output = tmp_path / "new" / "results.json"
    status, printed, err = run("--output", output)
    assert status == 0
    results = json.loads(output.read_text())
    places = [pair / name for name in ("gt.json", "gt", "pred.json", "pred")]
    expected = evaluate_files(*places)[0].results()["All"]
    assert results["All"] == expected and 0.2 < expected["pq"] < 1
    assert set(results) == {"All", "Things", "Stuff", "per_class"}
    assert set(results["per_class"]) == {"1", "3", "7", "9"}
    assert f"{100 * expected['pq']:.3f}" in printed and "sky" in printed
    assert "3 images in" in printed and "images per minute" in printed and str(output) in printed
    assert "0/3 [" in err  # the progress bar
    assert [p.name for p in output.parent.iterdir()] == ["results.json"]


def test_of_predictions_no_more_is_read_than_counts(pair, run, tmp_path):
    run("--output", tmp_path / "before.json")
    content = json.loads((pair / "pred.json").read_text())
    content |= {"images": None, "categories": [{"id": 1}]}
    for annotation in content["annotations"]:
        for segment in annotation["segments_info"]:
            segment |= {"iscrowd": None, "area": "unknown"}
    (pair / "pred.json").write_text(json.dumps(content))
    assert run("--output", tmp_path / "after.json")[0] == 0
    assert (tmp_path / "after.json").read_text() == (tmp_path / "before.json").read_text()


def test_ground_truth_as_prediction_is_perfect(pair, run, tmp_path):
    content = json.loads((pair / "gt.json").read_text())
    for annotation in content["annotations"]:
        for segment in annotation["segments_info"]:
            segment["iscrowd"] = 0
    (pair / "gt.json").write_text(json.dumps(content))
    for source in (pair / "gt").iterdir():
        (pair / "pred" / source.name).write_bytes(source.read_bytes())
    (pair / "pred.json").write_text(json.dumps(content))
    assert run("--output", tmp_path / "r.json")[0] == 0
    results = json.loads((tmp_path / "r.json").read_text())
    assert results["All"] == {"pq": 1.0, "sq": 1.0, "rq": 1.0, "n": 4}


def test_images_that_the_ground_truth_does_not_have_are_left_out(pair, run, tmp_path):
    assert run("--output", tmp_path / "before.json")[0] == 0
    edit(
        pair / "pred.json",
        lambda c: entries(c).append({**c["annotations"][0], "image_id": 9}),
    )
    assert run("--output", tmp_path / "after.json")[0] == 0
    assert (tmp_path / "before.json").read_text() == (tmp_path / "after.json").read_text()


@pytest.mark.parametrize("place", ["file", "folder"])
def test_nothing_is_overwritten(run, tmp_path, place):
    output = tmp_path / "results.json"
    output.write_text("precious") if place == "file" else output.mkdir()
    status, printed, err = run("--output", output)
    assert status == 2 and printed == "" and "would be overwritten" in err and "0/3 [" not in err
    assert output.is_dir() or output.read_text() == "precious"


def test_an_output_that_cannot_be_written_is_refused_first(run, tmp_path):
    (tmp_path / "file").write_text("")
    status, printed, err = run("--output", tmp_path / "file" / "results.json")
    assert status == 2 and printed == "" and "cannot be written" in err


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def entries(content):
    return content["annotations"]


def segments(content):
    return entries(content)[1]["segments_info"]


def in_json(name, change):
    return lambda pair: edit(pair / name, change)


def in_segments(name, **changes):
    """Change keys of the first segment of image 2; None removes a key."""

    def change(content):
        segment = segments(content)[0]
        for key, value in changes.items():
            segment.pop(key) if value is None else segment.update({key: value})

    return in_json(name, change)


def with_image(folder, change, **options):
    def apply(pair):
        path = pair / folder / PNG
        with Image.open(path) as image:
            change(image.convert("RGB")).save(path, **options)

    return apply


def on_file(name, action):
    return lambda pair: action(pair / name)


def draw_999(image):
    pixels = np.array(image)
    pixels[0, 0] = 231, 3, 0  # 231 + 3 * 256
    return Image.fromarray(pixels)


MISTAKES = {
    "no folder": (lambda p: (p / "pred").rename(p / "moved"), ["no folder", "PNG"]),
    "no JSON": (on_file("gt.json", Path.unlink), ["gt.json does not exist"]),
    "missing PNG": (
        on_file(f"pred/{PNG}", Path.unlink),
        ["image 2", PNG, "does not exist", "pred.json"],
    ),
    "missing true PNG": (on_file(f"gt/{PNG}", Path.unlink), ["image 2", f"gt/{PNG}", "gt.json"]),
    "broken PNG": (
        on_file(f"pred/{PNG}", lambda p: p.write_bytes(p.read_bytes()[:90])),
        ["image 2", "cannot read", f"pred/{PNG}"],
    ),
    "grey PNG": (
        with_image("pred", lambda i: i.convert("L")),
        ["image 2", f"pred/{PNG}", "mode L"],
    ),
    "palette PNG": (with_image("gt", lambda i: i.convert("P")), ["image 2", f"gt/{PNG}", "mode P"]),
    "sizes": (
        with_image("pred", lambda i: i.resize((48, 40), Image.Resampling.NEAREST)),
        ["image 2", "48x40", "24x20"],
    ),
    "id in JSON alone": (
        in_json("pred.json", lambda c: segments(c).append({"id": 77, "category_id": 1})),
        ["image 2", "segment 77 is in the JSON but not in the PNG", "pred.json"],
    ),
    "id in PNG alone": (
        with_image("pred", draw_999),
        ["image 2", "segment 999 is in the PNG but not in the JSON"],
    ),
    "true id in PNG alone": (with_image("gt", draw_999), ["image 2", "segment 999", "gt.json"]),
    "id twice": (
        in_json("pred.json", lambda c: segments(c).append(segments(c)[0])),
        ["image 2", "occurs twice in the JSON"],
    ),
    "id of void": (in_segments("pred.json", id=0), ["image 2", "segment 0", "1 to 16777215"]),
    "unknown category": (
        in_segments("pred.json", category_id=4),
        ["image 2", "unknown category 4", "segment"],
    ),
    "unknown true category": (
        in_segments("gt.json", category_id=4),
        ["image 2", "unknown category 4", "gt.json"],
    ),
    "no prediction": (
        in_json("pred.json", lambda c: entries(c).pop(1)),
        ["1 of 3 images have no prediction", "image 2;"],
    ),
    "image ids of another type": (
        in_json("pred.json", lambda c: [a.update(image_id=str(a["image_id"])) for a in entries(c)]),
        ["3 of 3 images", "another type"],
    ),
    "image twice": (
        in_json("pred.json", lambda c: entries(c).append(entries(c)[1])),
        ["image 2 is annotated twice", "pred.json"],
    ),
    "nothing to evaluate": (in_json("gt.json", lambda c: entries(c).clear()), ["no images"]),
    "broken JSON": (
        on_file("pred.json", lambda p: p.write_text(p.read_text()[:-9])),
        ["cannot read", "pred.json", "line 1"],
    ),
    "binary JSON": (on_file("gt.json", lambda p: p.write_bytes(b"\xff\xfe\x00")), ["cannot read"]),
    "a list": (
        on_file("pred.json", lambda p: p.write_text("[]")),
        ["not a JSON object", "pred.json"],
    ),
    "no annotations": (in_json("pred.json", lambda c: c.pop("annotations")), ["'annotations'"]),
    "annotations by id": (
        in_json("gt.json", lambda c: c.update(annotations={"1": 2})),
        ["'annotations' of the file", "wrong type"],
    ),
    "annotation is text": (
        in_json("gt.json", lambda c: entries(c).append("x")),
        ["an annotation is not an object"],
    ),
    "no categories": (
        in_json("gt.json", lambda c: c.pop("categories")),
        ["'categories'", "gt.json"],
    ),
    "category twice": (
        in_json("gt.json", lambda c: c["categories"].append(c["categories"][0])),
        ["category 1 occurs twice"],
    ),
    "no isthing": (
        in_json("gt.json", lambda c: c["categories"][0].pop("isthing")),
        ["'isthing' of category 1"],
    ),
    "no image id": (
        in_json("pred.json", lambda c: entries(c)[1].pop("image_id")),
        ["'image_id'"],
    ),
    "no file name": (
        in_json("pred.json", lambda c: entries(c)[1].pop("file_name")),
        ["image 2 has no 'file_name'"],
    ),
    "no segments": (
        in_json("pred.json", lambda c: entries(c)[1].pop("segments_info")),
        ["image 2 has no 'segments_info'"],
    ),
    "no segment id": (in_segments("pred.json", id=None), ["a segment of image 2 has no 'id'"]),
    "segment id is text": (
        in_segments("pred.json", id="5"),
        ["'id' of a segment of image 2", "type"],
    ),
    "segment id is true": (in_segments("pred.json", id=True), ["'id' of a segment of image 2"]),
    "no category": (in_segments("gt.json", category_id=None), ["of image 2 has no 'category_id'"]),
    "category is a fraction": (
        in_segments("pred.json", category_id=1.5),
        ["'category_id'", "image 2"],
    ),
    "crowd is text": (in_segments("gt.json", iscrowd="no"), ["'iscrowd'", "image 2"]),
    "area is text": (in_segments("gt.json", area="9"), ["'area'", "image 2"]),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_message_that_names_it(name, pair, run, tmp_path):
    spoil, words = MISTAKES[name]
    assert run()[0] == 0
    spoil(pair)
    status, printed, err = run("--output", tmp_path / "results.json")
    assert status == 2 and printed == ""
    message = err[err.index("error: ") :]
    assert all(word in message for word in words), message
    assert "; " in message and len(message.splitlines()) == 1 and "Traceback" not in err
    assert not (tmp_path / "results.json").exists()


def test_the_command_itself(pair):
    command = [sys.executable, str(TOOL), *options_of(pair)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "| All" in done.stdout, done.stderr
    (pair / "pred" / PNG).unlink()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "image 2" in done.stderr
