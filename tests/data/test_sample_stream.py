"""The stream of training samples is a function of the seed and of the number of batches before."""

import itertools
import random

import numpy as np
import pytest
import torch
from detectron2.data.samplers import (
    RandomSubsetTrainingSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
)

from ccsa.data.sample_stream import TrainLoader

RECORDS = [{"id": i, "width": 1 + i % 3, "height": 2} for i in range(11)]


def draw(record):
    """A mapper that draws from every random state."""
    return {**record, "drawn": (random.random(), np.random.rand(), torch.rand(2).tolist())}


def loader(sampler=None, size=3, seed=5, mapper=draw, **options):
    sampler = sampler or TrainingSampler(len(RECORDS), seed=99)
    return TrainLoader(RECORDS, mapper, sampler, size, seed, **options)


def first(loader, count):
    return list(itertools.islice(loader, count))


SAMPLERS = {
    "all": lambda: TrainingSampler(11, seed=random.randrange(100)),
    "repeated": lambda: RepeatFactorTrainingSampler(
        torch.linspace(1, 3, 11), seed=random.randrange(100)
    ),
    "subset": lambda: RandomSubsetTrainingSampler(
        11, 0.5, seed_shuffle=random.randrange(100), seed_subset=random.randrange(100)
    ),
}


@pytest.mark.parametrize("group_shapes", [False, True])
@pytest.mark.parametrize("name", SAMPLERS)
def test_it_continues_after_any_number_of_batches(name, group_shapes):
    """Eleven batches of three are three epochs of eleven records."""
    expected = first(loader(SAMPLERS[name](), group_shapes=group_shapes), 11)
    for done in (1, 3, 4, 10):
        again = loader(SAMPLERS[name](), group_shapes=group_shapes)
        again.resume(done)
        assert first(again, 11 - done) == expected[done:]


def test_the_number_of_workers_changes_nothing():
    expected = first(loader(), 9)
    for workers in (1, 2, 4):
        assert first(loader(num_workers=workers), 9) == expected
    resumed = loader(num_workers=2)
    resumed.resume(5)
    assert first(resumed, 4) == expected[5:]


def test_the_seed_changes_order_and_augmentation():
    one, other = first(loader(), 4), first(loader(seed=6), 4)
    assert [r["id"] for b in one for r in b] != [r["id"] for b in other for r in b]
    drawn = [record["drawn"] for batch in first(loader(), 11) for record in batch]
    assert len({str(values) for values in drawn}) == 33  # an image is augmented anew in each epoch


def test_every_record_comes_once_in_an_epoch():
    ids = [record["id"] for batch in first(loader(size=1), 22) for record in batch]
    assert sorted(ids[:11]) == sorted(ids[11:]) == list(range(11)) and ids[:11] != ids[11:]


def test_batches_have_one_shape_each():
    for batch in first(loader(group_shapes=True), 20):
        assert len({record["width"] > record["height"] for record in batch}) == 1


def test_the_global_random_states_are_left_alone():
    def states():
        return random.random(), np.random.rand(), torch.rand(1).item()

    for workers in (0, 2):
        expected, got = [], []
        for values, load in ((expected, False), (got, True)):
            random.seed(1)
            np.random.seed(1)
            torch.manual_seed(1)
            if load:
                first(loader(num_workers=workers), 3)
            values.extend(states())
        assert got == expected


def test_processes_get_parts_of_one_stream(monkeypatch):
    whole = [r for batch in first(loader(size=1), 12) for r in batch]
    parts = []
    for rank in range(2):
        monkeypatch.setattr("detectron2.utils.comm.get_rank", lambda rank=rank: rank)
        monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
        parts.append([r for batch in first(loader(size=2), 3) for r in batch])
    assert [record for pair in zip(*parts, strict=True) for record in pair] == whole


def test_a_record_without_result_is_replaced():
    def odd(record):
        return record["id"] if record["id"] % 2 else None

    assert all(value % 2 for batch in first(loader(mapper=odd), 6) for value in batch)
    with pytest.raises(RuntimeError, match="the mapper returns None"):
        first(loader(mapper=lambda record: None), 1)
