"""In which data types attention computes.

The score of two positions has a rounding error of about 1e-7 of its magnitude in float32, and a
weight is the exponential of a score: with scores of 1e6, weights that are computed again in the
backward pass have nothing in common with those of the forward pass, and a projected query or key
that is rounded to float32 selects another position. Where scores can be that large, attention
computes in float64, which costs about twice the time. Normalized features never get there.
"""

import contextlib
import contextvars
import logging
from collections.abc import Iterator

import torch
from torch import Tensor

logger = logging.getLogger(__name__)
_calls = 0  # of _warn_of_large_scores
_warned = False

LARGEST_SCORE = 256.0
"""The bound of the scores above which attention computes in float64."""

HALF = (torch.float16, torch.bfloat16)
_ignores_values = contextvars.ContextVar("ignores_values", default=False)


def needs_float64(query: Tensor, key: Tensor) -> bool:
    """Return whether scores may be so large that attention has to compute in float64.

    The bound is the largest norm of a query times the largest norm of a key. It depends on the
    values, so that programs that are compiled, traced or exported do not look at it, nor does a
    CUDA graph. On a GPU, float64 is used for float32 only, because the bound waits for the device;
    for half precision, it is computed in a few of the calls, and a large one is reported once.

    Args:
        query: (B, Ck, *S).
        key: (B, Ck, *S).

    Example:
        >>> query = torch.ones(1, 4, 5, 7)
        >>> needs_float64(query, query), needs_float64(query, 100 * query)
        (False, True)
    """
    if query.dtype not in (torch.float32, *HALF) or not query.numel():
        return False
    if not (_values_are_known(query) and _values_are_known(key)):
        return False
    wide = query.device.type == "cpu" or query.dtype == torch.float32
    if not wide and not _is_checked():
        return False
    bound = score_bound(query, key)
    if bound <= LARGEST_SCORE:
        return False
    # A projection to half precision that overflows gives an infinite bound or NaN.
    if query.dtype in HALF:
        _warn_of_large_scores(bound, query.dtype, wide)
    return wide


@contextlib.contextmanager
def ignored_values() -> Iterator[None]:
    """Compute in the dtype of the operands, whatever the scores, inside a ``with`` block.

    The cost of a model is counted in this way, so that it does not depend on weights and inputs.

    Example:
        >>> query = torch.full((1, 4, 5, 7), 100.0)
        >>> with ignored_values():
        ...     needs_float64(query, query)
        False
    """
    token = _ignores_values.set(True)
    try:
        yield
    finally:
        _ignores_values.reset(token)


def cannot_resolve(lse: Tensor) -> bool:
    """Return whether weights that are computed again from ``lse`` would be wrong.

    This is for backward passes whose forward pass could not ask :func:`needs_float64`, because it
    was part of a compiled program. An operator runs when the values are known.

    Args:
        lse: (B, *S), the log-sum-exp of the scores, to any base.
    """
    if lse.dtype == torch.float64 or not lse.numel() or not _values_are_known(lse):
        return False
    return float(lse.abs().amax()) > 2 * LARGEST_SCORE


def _is_checked() -> bool:
    """Return whether this call of :func:`needs_float64` looks at values in half precision on a GPU.

    Calls 1, 2, 4, 8 and so on do until a warning was given.
    """
    global _calls
    _calls += 1
    return not _warned and not _calls & (_calls - 1)


def _warn_of_large_scores(bound: float, dtype: torch.dtype, wide: bool) -> None:
    """Log once that scores in half precision may be large."""
    global _warned
    if _warned or (wide and dtype != torch.float16):
        return
    _warned = True
    name = str(dtype).removeprefix("torch.")
    problem = f"gradients may exceed the range of {name}" if wide else f"{name} loses accuracy"
    logger.warning(
        f"the scores of an attention block may reach {bound:.0f}: above {LARGEST_SCORE:.0f}, "
        f"{problem} (docs/OPS.md, Numerical accuracy); normalize the features before the block, or "
        "compute it in float32"
    )


@torch.no_grad()
def score_bound(query: Tensor, key: Tensor) -> float:
    """Return the largest norm of a query (B, Ck, *S) times the largest norm of a key."""
    with without_autocast(query):
        norms = (torch.linalg.vector_norm(x, dim=1, dtype=torch.float32) for x in (query, key))
        largest = [norm.amax() for norm in norms]
        return float(largest[0] * largest[1])


def _values_are_known(x: Tensor) -> bool:
    """Return whether the program may depend on the values of ``x``."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch.onnx.is_in_onnx_export():
        return False
    if _ignores_values.get():
        return False
    if x.device.type not in ("cpu", "cuda") or _is_symbolic(x):
        return False
    return x.device.type == "cpu" or not torch.cuda.is_current_stream_capturing()


def _is_symbolic(x: Tensor) -> bool:
    """Return whether ``x`` belongs to torch.func.vmap, a fake tensor or a trace of torch.fx."""
    modes = torch._C._TorchDispatchModeKey
    if any(torch._C._get_dispatch_mode(mode) is not None for mode in (modes.FAKE, modes.PROXY)):
        return True
    functorch = torch._C._functorch
    while functorch.is_functorch_wrapped_tensor(x):
        if functorch.is_batchedtensor(x):
            return True
        x = functorch.get_unwrapped(x)
    return isinstance(x, torch._subclasses.FakeTensor)


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
