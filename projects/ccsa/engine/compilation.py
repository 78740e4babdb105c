"""Compilation of the parts of a model by torch.compile (``MODEL.COMPILE``).

A whole detector cannot be compiled, because the number of its proposals depends on values
(pytorch/vision issue 7440). The parts that map tensors to tensors are compiled one by one, in
place: keys of the state dict, the model itself and its losses stay as they are. A copy of a model
(``copy.deepcopy``), such as its moving average, is not compiled.
"""

import os
import shlex
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn

from ccsa.errors import UserError
from ccsa.modeling.losses.category_consistent import CategoryConsistentLoss

# Modules whose forward pass maps tensors to tensors, and heads whose forward pass also computes
# losses, of which the layers are compiled.
_WHOLE = (
    *("backbone", "proposal_generator.rpn_head", "head", "roi_heads.res5", "roi_heads.box_head"),
    "roi_heads.box_predictor",
)
_HEADS = ("roi_heads.mask_head", "roi_heads.keypoint_head", "sem_seg_head")
_CONTAINERS = (nn.ModuleList, nn.ModuleDict)
_MOST_VARIANTS = 64  # of the call of a module: parts, modes and sizes share one limit
_FIX = "or set MODEL.COMPILE False"


def compiled_parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the path and the module of each part of a model that ``MODEL.COMPILE`` compiles."""
    modules = dict(model.named_modules())
    for path in _WHOLE:
        if path in modules:
            yield from _members(path, modules[path])
    for path in _HEADS:
        if path in modules:
            for name, layer in modules[path].named_children():
                yield from _members(f"{path}.{name}", layer)


def _members(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield a module, or the modules of a container, unless it is a loss or has no parameters."""
    if isinstance(module, _CONTAINERS):
        for name, member in module.named_children():
            yield from _members(f"{path}.{name}", member)
    elif not isinstance(module, CategoryConsistentLoss) and any(True for _ in module.parameters()):
        yield path, module


def compile_parts(cfg: CfgNode, model: nn.Module, backend: str = "inductor") -> nn.Module:
    """Compile the parts of a model in place if ``MODEL.COMPILE`` is True.

    Each part is compiled when it is called first, and again for another mode. The second size of an
    image compiles a variant for all sizes.

    Args:
        cfg: the configuration of the model; see :func:`check_compilation`.
        model: the model.
        backend: the backend of torch.compile.

    Returns:
        ``model``.
    """
    if not cfg.MODEL.COMPILE:
        return model
    import torch._dynamo.config as dynamo  # takes seconds, so that other runs do without it
    import torch._inductor.config as inductor

    dynamo.recompile_limit = max(dynamo.recompile_limit, _MOST_VARIANTS)
    options: dict[str, Any] = {}
    if backend == "inductor" and hasattr(inductor, "strict_output_strides"):
        # Without it, inductor compares the strides of views that are kept for the backward pass
        # by their formulas, which fails for images of varying size (pytorch issue 185510).
        options["options"] = {"strict_output_strides": True}
    for _, part in compiled_parts(model):
        part.compile(backend=backend, **options)
    return model


def check_compilation(cfg: CfgNode, model: nn.Module, processes: int = 1) -> None:
    """Check that ``MODEL.COMPILE``, if it is True, works for this model on this machine.

    Args:
        cfg: the configuration of the run.
        model: its model, on any device.
        processes: the number of processes of the job.

    Raises:
        UserError: the job has several processes, the model has no part that can be compiled, or
            the compiler is missing or does not work.
    """
    if not cfg.MODEL.COMPILE:
        return
    if processes > 1:
        raise UserError(
            f"MODEL.COMPILE True supports one process, and this job has {processes}; "
            f"use one process, {_FIX}"
        )
    if not any(True for _ in compiled_parts(model)):
        raise UserError(
            f"MODEL.COMPILE True finds nothing to compile in a {type(model).__name__}, which has "
            "none of the modules backbone, proposal_generator.rpn_head, head, roi_heads and "
            "sem_seg_head; set MODEL.COMPILE False"
        )
    name = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if not shutil.which(next(iter(shlex.split(name)), "")):
        raise UserError(
            f"MODEL.COMPILE True needs a C++ compiler, and {name} was not found; install it (on "
            f"Debian and Ubuntu: apt install g++), name another one by the variable CXX, {_FIX}"
        )
    _try(cfg.MODEL.DEVICE)


def _try(device: str) -> None:
    """Compile a function of one addition.

    Raises:
        UserError: this fails, e.g. because the headers of Python or Triton are missing.
    """
    try:
        torch.compile(_increment)(torch.zeros(8, device=device))
    except UserError:
        raise
    except Exception as error:  # whatever a compiler may cause
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(
            f"MODEL.COMPILE True cannot be used, because torch.compile fails on {device} even for "
            f"an addition ({reason}); fix the compiler, {_FIX}"
        ) from error


def _increment(x: torch.Tensor) -> torch.Tensor:
    return x + 1
