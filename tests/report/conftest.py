"""Two runs of tiny models with random weights and active blocks, and a page of both."""

import copy

import numpy as np
import pytest
from PIL import Image
from support.tiny_runs import SEMANTIC, activate_blocks, write_run


def write_active_run(folder, recurrence, seed=0):
    """Write a run whose attention is neither uniform nor on one position, and gamma is not 0."""
    config = copy.deepcopy(SEMANTIC)
    config["MODEL"]["SEM_SEG_HEAD"]["BLOCKS"] = [{"block": "CrissCross", "recurrence": recurrence}]
    write_run(folder, config, seed=seed)
    activate_blocks(folder, gamma=0.7)
    return folder


@pytest.fixture(scope="session")
def explorer_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return [write_active_run(folder / f"R{r}", r, seed=r) for r in (1, 2)]


@pytest.fixture(scope="session")
def explorer_images(tmp_path_factory):
    """Two images whose sides are not multiples of the stride, (H, W) = (50, 70) and (41, 30)."""
    folder, random = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    files = []
    for index, size in enumerate([(50, 70), (41, 30)]):
        files.append(folder / f"{index}.png")
        Image.fromarray(random.integers(0, 255, (*size, 3), np.uint8)).save(files[-1])
    return files
