"""The results.json of a run, damaged in many ways."""

import json
import math

import pytest
from support.fuzz import settings as mutations
from support.refusals import message

from ccsa.analysis.results import read_results
from ccsa.errors import UserError


@pytest.fixture
def write(tmp_path):
    def make(content):
        file = tmp_path / "results.json"
        file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return file

    return make


def test_damaged_results_are_rejected_in_one_sentence(write):
    for name, content, verdict in mutations.results_files(seed=1, flips=60):
        file = write(content)
        try:
            results = read_results(file)
        except UserError as error:
            assert verdict != mutations.ACCEPT, (name, str(error))
            assert "\n" not in str(error) and len(str(error)) < 400, name
        else:
            assert verdict != mutations.REJECT, name
            values = [v for task in results.tasks.values() for v in task.values()]
            assert values and not any(map(math.isinf, values)), name


def test_null_is_nan_and_the_first_of_several_datasets_counts(write):
    tasks = {"sem_seg": {"mIoU": 50, "IoU-a": None}}
    file = write({"results": {"b": tasks, "a": {"sem_seg": {"mIoU": 1}}}})
    results = read_results(file, ["b", "a"])
    assert results.tasks["sem_seg"]["mIoU"] == 50.0 and math.isnan(
        results.tasks["sem_seg"]["IoU-a"]
    )
    assert results.memory is None
    assert "has no results on c" in message(read_results, file, ["c", "a"])


def test_messages_name_the_file_and_the_metric(write):
    file = write({"results": {"bbox": {"AP": "high"}}})
    assert message(read_results, file) == (
        f"{file}: the metric 'bbox/AP' must be a finite number or null, not 'high'; "
        "evaluate the run again"
    )
    file = write(b'{"results": {}, "results": {}}')
    assert "gives the key 'results' twice" in message(read_results, file)
    file.unlink()
    file.mkdir()
    assert message(read_results, file) == f"{file} is not a file; evaluate the run again"
