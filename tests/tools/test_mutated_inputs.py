"""Mutated inputs of the tools: success, or one sentence and exit status 2, within a minute, and no
file is touched that does not belong to the tool. `make soak` tries thousands."""

import pytest
from support.fuzz import attempt_of, judge, make_world
from support.fuzz.kinds import KINDS
from support.fuzz.runner import REJECTED, WORKED, Attempt

COUNT = 7  # of each kind


@pytest.fixture(scope="module")
def world(root, tmp_path_factory):
    return make_world(root, tmp_path_factory.mktemp("world"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_mutated_inputs_end_in_one_sentence_or_succeed(kind, world, tmp_path):
    for number in range(COUNT):
        verdict = judge(attempt_of(KINDS, kind, number, world, tmp_path / "scratch"))
        assert verdict.outcome in (WORKED, REJECTED), f"{kind} {number}: {verdict}"


def rejected(words, folder, verdict="reject"):
    return Attempt("check_dataset", words, folder, "a test", verdict)


def test_what_is_judged(world, tmp_path):
    """Every fault that the suite looks for is found."""
    accepted = rejected(["--data", world.data("yolo")], tmp_path)
    assert judge(accepted).outcome == "accepted"
    assert judge(rejected(["--data", "nowhere"], tmp_path, "accept")).outcome == "refused"
    assert judge(rejected(["--data", "nowhere"], tmp_path)).outcome == REJECTED
    written = ["--data", world.data("yolo"), "--json", "other"]
    assert judge(rejected(written, tmp_path, "any")).outcome == "touched"
    assert (tmp_path / "other").exists()
    owned = rejected([*written[:-1], "out"], tmp_path, "any")
    assert judge(owned).outcome == WORKED
    assert judge(rejected(["--data", "x"], tmp_path / "none")).outcome == "traceback"
    assert judge(owned._replace(words=[*written[:-1], "hang"]), seconds=0.0).outcome == "hang"
