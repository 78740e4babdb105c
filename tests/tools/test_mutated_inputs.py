"""Mutated inputs of the tools: success, or one sentence and exit status 2, within a minute, and no
file is touched that does not belong to the tool. `make soak` tries thousands."""

import os
import subprocess
import sys

import pytest
from support import own_scenes
from support.fuzz import judge
from support.fuzz.kinds import KINDS
from support.fuzz.runner import REJECTED, WORKED, Attempt

COUNT = 7  # of each kind


@pytest.mark.slow
def test_mutated_inputs_end_in_one_sentence_or_succeed(root):
    """In a process of its own, because forked processes of one with many threads can hang."""
    places = [str(root / "projects"), str(root / "tests"), str(root)]
    done = subprocess.run(
        [sys.executable, "-m", "support.fuzz", "--count", str(COUNT)],
        cwd=root,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(places), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
    assert f"{COUNT * len(KINDS)} attempts, 0 faults" in done.stdout


@pytest.fixture
def data(tmp_path):
    own_scenes.write_yolo(tmp_path / "yolo", own_scenes.make_scenes(8))
    return tmp_path / "yolo"


def rejected(words, folder, verdict="reject"):
    return Attempt("check_dataset", words, folder, "a test", verdict)


def test_what_is_judged(data, tmp_path):
    """Every fault that the suite looks for is found."""
    tmp_path = tmp_path / "call"
    tmp_path.mkdir()
    accepted = rejected(["--data", data], tmp_path)
    assert judge(accepted).outcome == "accepted"
    assert judge(rejected(["--data", "nowhere"], tmp_path, "accept")).outcome == "refused"
    assert judge(rejected(["--data", "nowhere"], tmp_path)).outcome == REJECTED
    written = ["--data", data, "--json", "other"]
    assert judge(rejected(written, tmp_path, "any")).outcome == "touched"
    assert (tmp_path / "other").exists()
    owned = rejected([*written[:-1], "out"], tmp_path, "any")
    assert judge(owned).outcome == WORKED
    assert judge(rejected(["--data", "x"], tmp_path / "none")).outcome == "traceback"
    assert judge(owned._replace(words=[*written[:-1], "hang"]), seconds=0.0).outcome == "hang"
