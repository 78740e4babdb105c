"""Damaged annotation files: the outcome is data with problems, or a UserError, within a second."""

import copy
import json
import random
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from support import own_scenes

from ccsa.data.folder import read_folder
from ccsa.data.problems import KINDS
from ccsa.data.tasks import decode_mask, derive
from ccsa.errors import UserError

COUNT = 140  # mutations of each format
SEED = 0
LIMIT = 1.0  # seconds of CPU time
DEEP = json.loads("[" * 300 + "]" * 300)
VALUES = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        3,
        1.5,
        -0.0,
        1e8,
        -1e8,
        1e300,
        10**18,
        10**4000,
        2**31,
        2**63,
    ),
    *(float("nan"), float("inf"), -float("inf"), "", " ", "1", "01", "-3", "1e5", "abc", "\0", "é"),
    *("a" * 5000, "../../../etc/passwd", "/etc/passwd", "/dev/zero", ".", "..", "a/../b", "\\"),
    *([], {}, [[]], [{}], [[[]]], [0], [0, 0], [1e8] * 4, [1e8] * 6, [[1e8] * 6], [-1] * 6, DEEP),
    *([[5, 5, 5, 5, 5, 5]], [[0, 0, 1e5, 1e5, 0, 1e5]], ["1", "2"], [None] * 4, [True] * 4),
    *({"size": [96, 128], "counts": "0"}, {"size": [96, 128], "counts": ""}, {"counts": [1, 2]}),
    *({"size": [10**9, 10**9], "counts": [10**18]}, {"size": [96, 128], "counts": [0, 12288, 0]}),
    *({"size": [96, 128], "counts": "oooooooooooooooo"}, {"size": [96, 128], "counts": [12288]}),
    *({"size": [96, 128], "counts": [-1, 12289]}, {"size": [96, 128], "counts": "é0"}),
]
BYTES = [
    lambda b, r: b"",
    lambda b, r: b[: r.randrange(len(b))],
    lambda b, r: b"\xef\xbb\xbf" + b,
    lambda b, r: b.decode("utf-8", "replace").encode("utf-16"),
    lambda b, r: b.decode("utf-8", "replace").encode("utf-16-le"),
    lambda b, r: b.decode("utf-8", "replace").encode("utf-16")[:-1],
    lambda b, r: b[: len(b) // 2] + b"\0" + b[len(b) // 2 :],
    lambda b, r: b[: len(b) // 2] + b"\xff\xfe" + b[len(b) // 2 :],
    lambda b, r: b"\0" * 64,
    lambda b, r: b"[" * 10_000 + b"]" * 10_000,
    lambda b, r: b"null",
    lambda b, r: b"[]",
    lambda b, r: b"{}",
    lambda b, r: b"9" * 5_000,
    lambda b, r: b.replace(b"1", b"9" * 5_000, 1),
    lambda b, r: b.replace(b"0.", b"NaN ", 3),
    lambda b, r: b.replace(b'"', b'"\\ud800', 4),
    lambda b, r: bytes(c if r.random() > 0.01 else r.randrange(256) for c in b),
    lambda b, r: b + b,
]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    root = tmp_path_factory.mktemp("originals")
    scenes = [s for s in own_scenes.make_scenes(14) if s.name.endswith(("1", "7", "14"))]
    for name in ("coco_mixed", "yolo", "labelme", "coco_panoptic"):
        own_scenes.DIALECTS[name][0](root / name, scenes)
    return root


def paths_of(value, prefix=()):
    yield prefix
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths_of(item, (*prefix, key))


def mutate_json(content, rng):
    """Return a copy of JSON content in which one value is replaced, removed or repeated."""
    content = copy.deepcopy(content)
    # Short paths are few: choose the depth first.
    paths = list(paths_of(content))
    depth = rng.choice(sorted({len(path) for path in paths}))
    path = rng.choice([path for path in paths if len(path) == depth])
    if not path:
        return rng.choice(VALUES)
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    action = rng.random()
    if action < 0.15:
        del holder[path[-1]]
    elif action < 0.25 and isinstance(holder, list):
        holder.append(holder[path[-1]])
    elif action < 0.35 and isinstance(holder[path[-1]], str) and holder[path[-1]]:
        text = holder[path[-1]]
        place = rng.randrange(len(text))
        holder[path[-1]] = text[:place] + chr(rng.randrange(1, 0x250)) + text[place + 1 :]
    else:
        holder[path[-1]] = rng.choice(VALUES)
    return content


def mutate_text(text, rng):
    """Return the text with one word replaced."""
    words = text.split(" ")
    words[rng.randrange(len(words))] = str(rng.choice(VALUES))[:6000].replace("\n", " ")
    return " ".join(words)


def mutate(folder, rng):
    """Damage one annotation file of a folder."""
    suffix = (".json", ".txt", ".yaml")
    file = rng.choice(sorted(f for f in folder.rglob("*") if f.suffix in suffix))
    content = file.read_bytes()
    if rng.random() < 0.2:
        file.write_bytes(rng.choice(BYTES)(content, rng))
    elif file.suffix == ".json":
        file.write_text(json.dumps(mutate_json(json.loads(content), rng)))
    else:
        file.write_text(mutate_text(content.decode(), rng))


def check(data):
    """Check that what was read can be trained on."""
    for problem in data.problems:
        assert problem.kind in KINDS and problem.severity == KINDS[problem.kind].severity
        assert problem.message and problem.file
        problem.message.encode()
    for records in data.splits.values():
        for record in records:
            assert Path(record["file_name"]).is_file()
            assert min(record["height"], record["width"]) > 0
            for annotation in record.get("annotations", ()):
                assert 0 <= annotation["category_id"] < len(data.classes)
                assert np.isfinite(annotation["bbox"]).all() and min(annotation["bbox"][2:]) > 0
                assert np.isfinite(annotation["area"]) and annotation["iscrowd"] in (0, 1)
                size = record["height"], record["width"]
                if "segmentation" in annotation and max(size) < 2000:
                    assert decode_mask(annotation, size).shape == size
    derive(data, "detection")


@pytest.mark.parametrize("name", ["coco_mixed", "yolo", "labelme", "coco_panoptic"])
def test_a_damaged_file_gives_problems_or_an_error(name, originals, tmp_path):
    rng = random.Random(f"{name} {SEED}")
    outcomes = {"data": 0, "problems": 0, "error": 0}

    def interrupt(*_):
        pytest.fail(f"mutation {number} of {name} hangs")

    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        for number in range(COUNT):
            folder = tmp_path / str(number)
            shutil.copytree(originals / name, folder)
            mutate(folder, rng)
            signal.alarm(20)
            start = time.process_time()
            try:
                data = read_folder(folder)
            except UserError as error:
                outcomes["error"] += 1
                assert len(str(error)) < 2000
                str(error).encode()
            else:
                check(data)
                outcomes["problems" if len(data.problems) else "data"] += 1
            assert time.process_time() - start < LIMIT, f"mutation {number}"
            signal.alarm(0)
            shutil.rmtree(folder)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
    assert outcomes["problems"] + outcomes["error"] > COUNT / 2
