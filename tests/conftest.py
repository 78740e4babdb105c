"""What the tests share: one thread (two may run at once), a tiny configuration, where the published
outputs lie."""

from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def vectors() -> Path:
    """Outputs of the published programs, beside a checkout."""
    folder = ROOT.parent / "shared" / "vectors"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: the published outputs are kept beside the checkout")
    return folder
