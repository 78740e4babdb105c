"""Which computation runs: by device, type and shape, unless somebody says otherwise.

Who says it, the first that does: the keyword of the call, :func:`use_backend`, the environment
variable CCSA_BACKEND. A backend that was asked for and cannot run refuses with the reason; where
nobody asked, the first of ``BACKENDS`` that can run does, and is logged once. Exported programs and
forward-mode derivatives get plain tensor operations.
"""

import contextlib
import importlib.metadata
import importlib.util
import logging
import os
import re
from collections.abc import Callable, Iterator
from functools import cache

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ccsa.ops.criss_cross.plain import plain_attention
from ccsa.ops.criss_cross.reference import reference_attention
from ccsa.ops.criss_cross.torch_ops import torch_attention
from ccsa.ops.criss_cross.triton_ops import triton_attention

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]

BACKENDS: dict[str, Attention] = {  # the best first
    "triton": triton_attention,
    "torch": torch_attention,
    "reference": reference_attention,
}
ENVIRONMENT = "CCSA_BACKEND"
OLDEST_TRITON = (3, 4)  # comes with torch 2.8
HALF_OR_SINGLE = (torch.float16, torch.bfloat16, torch.float32)

logger = logging.getLogger(__name__)
_managers: list[list[str]] = []  # one name each: of the use_backend around the call, innermost last


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
    """Calls inside take this backend, unless their own keyword names another; in all threads, as
    autograd's own may compute a forward pass again.

    Raises:
        ValueError: an unknown backend.
    """
    entry = [_known(name, "use_backend")]
    _managers.append(entry)
    try:
        yield
    finally:  # another thread's may stand behind it
        _managers[:] = [other for other in _managers if other is not entry]


def choose(keyword: str | None, query: Tensor, key: Tensor, value: Tensor) -> Attention:
    """The computation for these operands.

    Raises:
        ValueError: an unknown backend, or one that was asked for and cannot take them.
    """
    source, name = requested_backend(keyword)
    if name is not None:
        reason = why_not(_known(name, source), query)
        if reason is not None:
            others = _listed(other for other in BACKENDS if why_not(other, query) is None)
            can = f"; what can run: {others}" if others else ""
            raise ValueError(f"{source} '{name}' cannot run: {reason}{can}")
        return BACKENDS[name]
    if _exporting() or _forward_mode():
        return plain_attention
    reasons = {name: why_not(name, query) for name in BACKENDS}
    if query.device.type == "cpu":  # Triton's interpreter is there to test the kernels
        reasons["triton"] = "the tensors are on the CPU"
    able = [name for name, reason in reasons.items() if reason is None]
    if not able:
        raise ValueError(f"no backend can run: {reasons}")
    if not torch.compiler.is_compiling():
        _log(able[0], query.device.type, query.dtype, reasons["triton"])
    return BACKENDS[able[0]]


def can_run_triton(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the Triton kernels take these operands: on CUDA (compute capability 8.0 on), or on
    the CPU in Triton's interpreter; float16, bfloat16 or float32; one to three spatial axes."""
    return why_not("triton", query) is None


def can_run_torch(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the line by line computation takes these operands: any device and size."""
    return why_not("torch", query) is None


def can_run_reference(query: Tensor, key: Tensor, value: Tensor) -> bool:
    """Whether the dense definition takes these operands: as torch, memory permitting."""
    return why_not("reference", query) is None


def why_not(name: str, query: Tensor) -> str | None:
    """What keeps a backend from these operands, or None."""
    types = HALF_OR_SINGLE if name == "triton" else (*HALF_OR_SINGLE, torch.float64)
    if query.dtype not in types:
        return f"it computes {_listed([str(t) for t in types])}, not {query.dtype}"
    if name != "reference" and _forward_mode():
        return "its operators have no forward-mode derivatives"
    return _why_not_triton(query) if name == "triton" else None


def _why_not_triton(query: Tensor) -> str | None:
    device = query.device
    if query.dim() > 5:
        return f"it takes maps of up to 3 axes, not {query.dim() - 2}"
    if TRITON is None:
        return "the package triton is not installed (pip install triton)"
    if TRITON < OLDEST_TRITON:
        have, need = (".".join(map(str, v)) for v in (TRITON, OLDEST_TRITON))
        return f"it needs Triton {need}, which torch 2.8 brings, and {have} is installed"
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
    """Who names a backend, the call's ``keyword`` or somebody else, and which; none if nobody."""
    if keyword is not None:
        return "backend", keyword
    if _managers:
        return "use_backend", _managers[-1][0]
    return ENVIRONMENT, os.environ.get(ENVIRONMENT) or None


def _known(name: str, source: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{source}: unknown backend '{name}'; there are {_listed(BACKENDS)}")
    return name


def _exporting() -> bool:
    """For a program that leaves this library, and so cannot call its operators."""
    # torch.compiler.is_exporting() (torch 2.7 on) returns this; torch.compile takes that for True.
    flag = getattr(torch.compiler, "_is_exporting_flag", False)
    return flag or torch.onnx.is_in_onnx_export()


def _forward_mode() -> bool:
    """Whether forward-mode derivatives may be asked for. PyTorch takes those of an operator that
    has none for 0, and tangents may belong to an outer level, or come with the output's gradient,
    so the operands do not tell."""
    return forward_ad._current_level >= 0  # there is no public word; torch.func enters a level too


def _listed(names) -> str:
    return ", ".join(names)


def _capability(device: int | None) -> tuple[int, int]:
    """Return the compute capability of a CUDA device; torch.compile takes it as a constant."""
    return torch.cuda.get_device_capability(device)


# torch.compiler.assume_constant_result does this too, but it imports torch._dynamo, which takes
# longer than the rest of this package.
_capability._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def _log(name: str, device: str, dtype: torch.dtype, reason: str | None) -> None:
    because = f" (not triton: {reason})" if reason and device != "cpu" else ""
    logger.info(f"criss-cross attention on {device}, {dtype}: {name}{because}")
