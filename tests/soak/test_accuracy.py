"""The sweep of tests/blocks/test_accuracy.py over more sizes, seeds and backends."""

import pytest
import torch

from benchmarks.accuracy import BACKENDS, BLOCKS, DTYPES, SCALES, SIZES, bound, measure

LARGER = [*SIZES, (2, 2), (7, 13), (3, 41), (40, 25), (1, 7, 1), (2, 9, 8), (5, 1, 6)]


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BLOCKS)
def test_errors_are_below_the_documented_bounds(name, dtype, seed):
    spec = BLOCKS[name]
    attention = spec["name"] in ("CrissCross", "NonLocal")
    backends = BACKENDS[:2] if spec["name"] == "CrissCross" else [None]
    for scale in [*SCALES, 3.0, 30.0, 3e3]:
        limit = bound(spec["name"], dtype, scale)
        for size in LARGER if limit else []:
            if len(size) == 3 and not attention:
                continue
            for backend in backends:
                errors = measure(spec, size, DTYPES[dtype], scale, backend, seed=seed)
                positions = torch.Size(size).numel()
                assert not limit.broken_by(errors, positions), (scale, size, backend, errors)
