"""The counts of images are the same from one process and from several, and damaged files are
rejected."""

import contextlib
import io

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ccsa.errors import UserError
from ccsa.evaluation import semantic
from ccsa.evaluation.image_counts import SEMANTIC, read_semantic_counts, write_semantic_counts
from ccsa.evaluation.semantic import SemanticEvaluator
from ccsa.evaluation.semantic_metrics import semantic_metrics

NAME, CLASSES, COUNT = "image_counts_val", ["a", "b", "c"], 5


@pytest.fixture
def dataset(tmp_path):
    """Register five images with random labels, of which some pixels are ignored."""
    rng, records = np.random.default_rng(0), []
    for i in range(COUNT):
        label = rng.integers(0, 3, (12, 17)).astype(np.uint8)
        label[rng.random(label.shape) < 0.1] = 255
        image, file = tmp_path / "images" / f"{i}.png", tmp_path / f"{i}.png"
        Image.fromarray(label).save(file)
        records.append({"file_name": str(image), "sem_seg_file_name": str(file)})
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(stuff_classes=CLASSES, ignore_label=255)
    yield records
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def process(evaluator, records):
    evaluator.reset()
    for record in records:
        rng = np.random.default_rng(int(record["file_name"][-5]))
        scores = torch.from_numpy(rng.random((3, 12, 17)))
        evaluator.process([record], [{"sem_seg": scores}])


def test_two_processes_store_the_counts_of_one(dataset, tmp_path, monkeypatch):
    one = SemanticEvaluator(NAME, tmp_path / "one")
    process(one, dataset)
    results = one.evaluate()
    parts = []
    for rank in (1, 0):  # the main process gathers what the other one sends
        part = SemanticEvaluator(NAME, tmp_path / "two")
        process(part, dataset[rank::2])
        parts.insert(0, (part._conf_matrix, part._counts))
    monkeypatch.setattr(semantic.comm, "gather", lambda _: parts)
    assert part.evaluate() == results
    expected, found = (read_semantic_counts(tmp_path / name) for name in ("one", "two"))
    assert expected.images == found.images == [f"{i}.png" for i in range(COUNT)]
    for name in ("pixels", "boundary", "confusion"):
        assert np.array_equal(getattr(expected, name), getattr(found, name)), name
    confusion = np.zeros((4, 4), np.int64)
    confusion[:3, :3] = expected.confusion
    overall, _ = semantic_metrics(confusion, expected.boundary.sum(0), CLASSES)
    shown = {name: results["sem_seg"][name] for name in overall}
    assert shown == pytest.approx(overall, abs=1e-12)
    correct, labelled, predicted = expected.pixels.sum(0)
    assert np.array_equal(correct, expected.confusion.diagonal())
    assert np.array_equal(labelled, expected.confusion.sum(0))
    assert np.array_equal(predicted, expected.confusion.sum(1))


@pytest.mark.parametrize(
    "change",
    [
        lambda counts: counts._replace(pixels=counts.pixels[:1]),
        lambda counts: counts._replace(pixels=counts.pixels - 10**6),
        lambda counts: counts._replace(boundary=counts.boundary.astype(float)),
        lambda counts: counts._replace(confusion=counts.confusion[:2]),
        lambda counts: counts._replace(classes=["a"]),
    ],
)
def test_counts_that_do_not_belong_together_are_rejected(dataset, tmp_path, change):
    evaluator = SemanticEvaluator(NAME, tmp_path)
    process(evaluator, dataset)
    evaluator.evaluate()
    write_semantic_counts(tmp_path, change(read_semantic_counts(tmp_path)))
    with pytest.raises(UserError, match=f"{SEMANTIC} is damaged; evaluate the run again"):
        read_semantic_counts(tmp_path)


def test_a_file_with_objects_is_rejected(tmp_path):
    stream = io.BytesIO()
    np.savez(stream, **dict.fromkeys(("images", "classes"), np.array([object()], dtype=object)))
    (tmp_path / SEMANTIC).write_bytes(stream.getvalue())
    with pytest.raises(UserError, match="is damaged"):
        read_semantic_counts(tmp_path)


def test_damaged_bytes_are_rejected_wherever_they_are(dataset, tmp_path):
    evaluator = SemanticEvaluator(NAME, tmp_path)
    process(evaluator, dataset)
    evaluator.evaluate()
    content = (tmp_path / SEMANTIC).read_bytes()
    for position in range(0, len(content), 7):
        changed = bytearray(content)
        changed[position] ^= 255
        (tmp_path / SEMANTIC).write_bytes(changed)
        with contextlib.suppress(UserError):  # some bytes, such as dates, do not matter
            read_semantic_counts(tmp_path)
