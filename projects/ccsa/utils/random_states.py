"""Random states of torch, NumPy and Python: set from numbers, and kept."""

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def seed_random_states(*numbers: int, devices: bool = True) -> None:
    """Set the random states from numbers; different numbers give independent states.

    Args:
        numbers: of at least 0, for example a seed and the number of an iteration.
        devices: whether the states of GPUs are set as well.

    Example:
        >>> with preserved_random_states():
        ...     seed_random_states(1, 7)
        ...     first = random.random()
        ...     seed_random_states(1, 7)
        ...     first == random.random()
        True
    """
    words = np.random.SeedSequence(numbers).generate_state(4, np.uint64)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]) & 0xFFFFFFFF)
    (torch.manual_seed if devices else torch.default_generator.manual_seed)(int(words[2] >> 1))


@contextlib.contextmanager
def preserved_random_states(devices: bool = True) -> Iterator[None]:
    """Restore the random states of torch, NumPy and Python at the end.

    Args:
        devices: whether the states of GPUs are restored as well.
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=None if devices else []):
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)
