"""In which data types criss-cross attention computes."""

import contextlib

import torch
from torch import Tensor


def score_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of scores and softmax for operands of ``dtype``: at least float32.

    Scores are not scaled by 1/sqrt(Ck), so in float16 they would overflow at 65504.
    """
    return torch.promote_types(dtype, torch.float32)


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager:
    """Return a context that disables autocast for the device of ``x``; a no-op if it is off."""
    device = x.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):  # meta has no autocast
        return contextlib.nullcontext()
    return torch.autocast(device, enabled=False)
