"""``python -m benchmarks`` and tools/analyze_model.py as programs."""

import json
import subprocess
import sys
from functools import partial

import pytest

from benchmarks import __main__ as benchmark


@pytest.fixture
def run(run_tool):
    return partial(run_tool, benchmark)


def test_it_writes_what_it_prints_and_never_overwrites(run, tmp_path):
    folder = tmp_path / "new"
    words = ("--suites", "operator", "block", "--shapes", "1x16x5x6", "--repeats", 1)
    status, out, _ = run(*words, "--output", folder)
    assert status == 0 and str(folder) in out
    text = (folder / "BENCHMARKS.md").read_text()
    assert "## The operator" in text and "## The block" in text and "1x16x5x6" in text
    content = json.loads((folder / "benchmarks.json").read_text())
    assert {"operator", "block", "machine", "command"} <= set(content)
    before = {p: p.read_bytes() for p in folder.iterdir()}
    status, _, err = run(*words, "--output", folder)
    assert status == 2 and "name a new folder" in err
    assert {p: p.read_bytes() for p in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--shapes", "1x512x97"), "is not a shape"),
        (("--shapes", "1x9x5x5"), "divisible by 8"),
        (("--repeats", "0"), "not an integer of at least 1"),
        (("--suites", "speed"), "invalid choice"),
    ],
)
def test_mistakes_are_named(run, words, message):
    status, _, err = run(*words)
    assert status == 2 and message in err


def test_analyze_model_lists_modules_and_totals(root):
    done = subprocess.run(
        [
            *(sys.executable, root / "tools/analyze_model.py", "--size", "64x96", "--config-file"),
            *(root / "configs/digits/ccnet.yaml", "MODEL.DEVICE", "cpu"),
        ],
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    for part in ("backbone", "sem_seg_head", "parameters  0.327 M", "one image of 64x96", "MiB"):
        assert part in done.stdout


def test_analyze_model_wants_one_of_two(root):
    command = [sys.executable, root / "tools/analyze_model.py"]
    done = subprocess.run(command, text=True, capture_output=True)
    assert done.returncode == 2 and "required: --config-file" in done.stderr
