"""Choice of the backend that computes criss-cross attention.

A backend can be requested by the keyword of the call, by :func:`use_backend`, or by the environment
variable CCSA_BACKEND; the first of these that is given wins. A requested backend that cannot run
raises an error that states the reason. Without a request, exported programs, forward-mode
derivatives and torch.func use ``export``; otherwise the first backend of ``BACKENDS`` that can run
is used, and logged once.
"""

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ccsa.errors import UserError, shown
from ccsa.ops.criss_cross.export import export_attention
from ccsa.ops.criss_cross.reference import reference_attention
from ccsa.ops.criss_cross.tiled import tiled_attention
from ccsa.ops.criss_cross.triton_ops import triton_attention

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]

BACKENDS: dict[str, Attention] = {  # in the order of preference
    "triton": triton_attention,
    "tiled": tiled_attention,
    "export": export_attention,
    "reference": reference_attention,
}
ALIASES = {"torch": "tiled"}  # names of former versions
ENVIRONMENT = "CCSA_BACKEND"
OLDEST_TRITON = (3, 4)  # comes with torch 2.8
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

logger = logging.getLogger(__name__)
_managers: list[list[str]] = []  # one list with one name per active use_backend, innermost last


def _triton_version() -> tuple[int, ...] | None:
    """Return the major and minor version of Triton without importing it, or None."""
    try:
        if importlib.util.find_spec("triton") is None:
            return None
    except (ImportError, ValueError):  # an import hook refuses it, or a stub without a spec
        return None
    for name in ("triton", "pytorch-triton", "pytorch-triton-rocm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found = re.match(r"(\d+)\.(\d+)", importlib.metadata.version(name))
            return tuple(map(int, found.groups())) if found else None
    return None


TRITON = _triton_version()


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Compute criss-cross attention by the backend ``name`` inside a ``with`` block.

    The keyword ``backend`` of a call takes precedence. The choice holds in all threads, because
    autograd may recompute a forward pass in a thread of its own.

    Args:
        name: ``triton``, ``tiled``, ``export`` or ``reference``.

    Raises:
        UserError: the name is unknown.

    Example:
        >>> import torch
        >>> from ccsa.ops import criss_cross_attention, use_backend
        >>> query, key, value = torch.randn(3, 1, 2, 5, 7)
        >>> with use_backend("reference"):
        ...     expected = criss_cross_attention(query, key, value)
        >>> torch.allclose(criss_cross_attention(query, key, value), expected, atol=1e-5)
        True
    """
    entry = [canonical_name(name, "use_backend")]
    _managers.append(entry)
    try:
        yield
    finally:  # the last entry may belong to another thread
        _managers[:] = [other for other in _managers if other is not entry]


def choose(keyword: str | None, query: Tensor, key: Tensor, value: Tensor) -> Attention:
    """Return the function that computes the attention of these operands.

    Raises:
        UserError: a requested backend is unknown or cannot run, or no backend can run.
    """
    source, requested = requested_backend(keyword)
    if requested is not None:
        name = canonical_name(requested, source)
        reason = why_not(name, query)
        if reason is not None:
            others = _listed(other for other in BACKENDS if why_not(other, query) is None)
            available = f"; what can run: {others}" if others else ""
            raise UserError(f"{source} '{name}' cannot run: {reason}{available}")
        return BACKENDS[name]
    if _exporting() or _transformed():
        return BACKENDS["export"]
    reasons = {name: why_not(name, query) for name in BACKENDS}
    if query.device.type == "cpu":  # Triton's interpreter only serves to test the kernels
        reasons["triton"] = "the tensors are on the CPU"
    elif query.dtype == torch.float64:  # the tiles of the kernels are made for half precision
        reasons["triton"] = "float64 is left to the library's matrix multiplications"
    able = [name for name, reason in reasons.items() if reason is None]
    if not able:
        names: dict[str | None, list[str]] = {}
        for name, reason in reasons.items():
            names.setdefault(reason, []).append(name)
        causes = "; ".join(f"{_listed(group)}: {reason}" for reason, group in names.items())
        raise UserError(
            f"no backend can compute {query.dtype} operands on {query.device} ({causes}); convert "
            "the operands"
        )
    if not torch.compiler.is_compiling():
        _log(able[0], query.device.type, query.dtype, reasons["triton"])
    return BACKENDS[able[0]]


def can_run_triton(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether the Triton kernels can compute these operands.

    They need CUDA with compute capability 8.0 or higher, or Triton's interpreter on the CPU;
    a floating-point type; and one to three spatial axes.
    """
    return why_not("triton", query) is None


def can_run_tiled(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether the tiled computation can compute these operands, on any device and size."""
    return why_not("tiled", query) is None


def can_run_export(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether the exportable computation can compute these operands, if memory suffices."""
    return why_not("export", query) is None


def can_run_reference(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Return whether the dense definition can compute these operands, if memory suffices."""
    return why_not("reference", query) is None


can_run_torch = can_run_tiled  # name of former versions


def why_not(name: str, query: Tensor) -> str | None:
    """Return the reason why a backend cannot compute these operands, or None if it can."""
    if query.dtype not in DTYPES:
        return f"it computes {_listed([str(t) for t in DTYPES])}, not {query.dtype}"
    if name in ("triton", "tiled") and _transformed():
        return "its operators support neither forward-mode derivatives nor torch.func"
    return _why_not_triton(query) if name == "triton" else None


def _why_not_triton(query: Tensor) -> str | None:
    device = query.device
    if query.dim() > 5:
        return f"it computes feature maps of up to 3 axes, not {query.dim() - 2}"
    if TRITON is None:
        return "the package triton is not installed (pip install triton)"
    if TRITON < OLDEST_TRITON:
        have, need = (".".join(map(str, v)) for v in (TRITON, OLDEST_TRITON))
        return f"it needs Triton {need}, which comes with torch 2.8, but {have} is installed"
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
        return None
    if device.type != "cuda":
        return f"it needs CUDA (or TRITON_INTERPRET=1 on the CPU), and the tensors are on {device}"
    if torch.version.hip is None:
        major, minor = _capability(device.index)
        if major < 8:
            return f"it needs compute capability 8.0, and {device} has {major}.{minor}"
    return None


def requested_backend(keyword: str | None) -> tuple[str, str | None]:
    """Return where a backend is requested and its name, which is None if there is no request.

    Args:
        keyword: the keyword ``backend`` of the call.

    Example:
        >>> requested_backend("tiled")
        ('backend', 'tiled')
    """
    if keyword is not None:
        return "backend", keyword
    if _managers:
        return "use_backend", _managers[-1][0]
    return ENVIRONMENT, os.environ.get(ENVIRONMENT) or None


def canonical_name(name: str, source: str) -> str:
    """Return the current name of a backend, which may be given by a former name.

    Args:
        name: the name of the backend.
        source: where it is requested, for the message.

    Raises:
        UserError: the name is unknown.

    Example:
        >>> canonical_name("torch", "backend")
        'tiled'
    """
    if not isinstance(name, str):
        raise UserError(
            f"{source} must be the name of a backend, not {shown(name)}; "
            f"available: {_listed(BACKENDS)}"
        )
    name = ALIASES.get(name, name)
    if name not in BACKENDS:
        raise UserError(f"{source}: unknown backend '{name}'; available: {_listed(BACKENDS)}")
    return name


def _exporting() -> bool:
    """Return whether a program is exported, which cannot call the operators of this library."""
    # torch.compiler.is_exporting() (from torch 2.7 on) returns this flag, but torch.compile takes
    # the result of that function to be always True.
    flag = getattr(torch.compiler, "_is_exporting_flag", False)
    return flag or torch.onnx.is_in_onnx_export()


def _transformed() -> bool:
    """Return whether forward-mode derivatives or a transform of torch.func are being computed.

    PyTorch takes the derivative of an operator without a forward-mode formula to be 0. The operands
    do not show whether they will be needed: tangents may belong to an outer level, or arrive with
    the gradient of the output.
    """
    # There is no public API for either level.
    if forward_ad._current_level >= 0:
        return True
    return (
        not torch.compiler.is_compiling() and torch._C._functorch.maybe_current_level() is not None
    )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _capability(device: int | None) -> tuple[int, int]:
    """Return the compute capability of a CUDA device; torch.compile takes it as a constant."""
    return torch.cuda.get_device_capability(device)


# torch.compiler.assume_constant_result sets this as well, but it imports torch._dynamo, which takes
# longer than the rest of this package.
_capability._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _log(name: str, device: str, dtype: torch.dtype, reason: str | None) -> None:
    because = f"; not triton: {reason}" if reason and device != "cpu" else ""
    dtype_name = str(dtype).removeprefix("torch.")
    logger.info(
        f"criss-cross attention uses the backend '{name}' ({device}, {dtype_name}){because}"
    )
