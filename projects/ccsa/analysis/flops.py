"""The number of floating point operations (FLOPs) of a model, counted while it runs once.

This is PyTorch's counter (``torch.utils.flop_counter``), which intercepts every operator that runs,
with two differences:

* One multiply-add is one FLOP, as in fvcore and in most papers. PyTorch counts it as two.
* Forward passes of norms, bilinear resizing and adaptive average pooling count as in fvcore: a norm
  counts 2 FLOPs for each element if its statistics are fixed and 5 if they are computed, bilinear
  resizing 4 for each element of its output, and pooling 1 for each element of its input.

Convolutions, matrix multiplications and attention count exactly, in forward and backward passes.
Criss-cross attention registers its formula where its operators are defined
(``ccsa.ops.criss_cross.flops``). Activations, additions and softmax do not count.

The work of some models depends on their input (the proposals and detections of Mask R-CNN). It is
counted for the input that is given.
"""

import contextlib
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

import ccsa.ops  # noqa: F401  Registers the formulas of criss-cross attention.
from ccsa.inference.predictor import evaluation_mode
from ccsa.ops.criss_cross.precision import ignored_values

Shape = Sequence[int]
aten = torch.ops.aten

# FLOPs of a norm for each element: in evaluation, and where statistics are computed.
_NORM_WITH_FIXED_STATISTICS = 2
_NORM = 5
_BILINEAR = 4  # for each element of the output


def _fixed_norm(x: Shape, *_: Any, **__: Any) -> int:
    return math.prod(x) * _NORM_WITH_FIXED_STATISTICS


def _norm(x: Shape, *_: Any, **__: Any) -> int:
    return math.prod(x) * _NORM


def _batch_norm(
    x: Shape, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, *_: Any, **__: Any
) -> int:
    return _norm(x) if training else _fixed_norm(x)


def _bilinear(x: Shape, *_: Any, out_shape: Shape, **__: Any) -> int:
    return math.prod(out_shape) * _BILINEAR


def _pooling(x: Shape, *_: Any, **__: Any) -> int:
    return math.prod(x)


def _in_units_of_torch(formula: Callable[..., int]) -> Callable[..., int]:
    """Double a count, because the counter's formulas count two FLOPs for a multiply-add."""
    return lambda *args, **kwargs: 2 * formula(*args, **kwargs)


_FORMULAS: dict[Any, Callable[..., int]] = {
    # PyTorch has formulas for fused attention on GPUs only.
    aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: (
        sdpa_flop_count(query, key, value)
    ),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda *shapes, **__: (
        sdpa_backward_flop_count(*shapes[:4])
    ),
    **{
        operator: _in_units_of_torch(formula)
        for operator, formula in (
            (aten.native_batch_norm, _batch_norm),
            (aten.cudnn_batch_norm, _batch_norm),
            (aten.miopen_batch_norm, _batch_norm),
            (aten._native_batch_norm_legit, _batch_norm),
            (aten._native_batch_norm_legit_no_training, _fixed_norm),
            (aten._batch_norm_no_update, _fixed_norm),
            (aten._batch_norm_with_update, _norm),
            (aten.native_group_norm, _norm),
            (aten.native_layer_norm, _norm),
            (aten.upsample_bilinear2d, _bilinear),
            (aten.grid_sampler_2d, _bilinear),
            (aten._adaptive_avg_pool2d, _pooling),
        )
    },
}


class FlopAnalysis(FlopCounterMode):
    """FLOPs by module and by operator; see :func:`flop_analysis`, which returns one."""

    def __init__(self) -> None:
        super().__init__(display=False, custom_mapping=_FORMULAS)
        self._doubled: dict[str, Counter[str]] = defaultdict(Counter)  # innermost module: operator
        self._uncounted: Counter[str] = Counter()

    def _count_flops(self, func_packet: Any, out: Any, args: Any, kwargs: Any) -> Any:
        name = str(func_packet)
        formula = self.flop_registry.get(func_packet)
        if formula is None:
            self._uncounted[name] += 1
        else:
            innermost = max(self.mod_tracker.parents - {"Global"}, key=_depth, default="")
            self._doubled[innermost][name] += formula(*args, **kwargs, out_val=out)
        return out

    def total(self) -> int:
        """Return the FLOPs of the whole call."""
        return sum(sum(counts.values()) for counts in self._doubled.values()) // 2

    def by_operator(self) -> dict[str, int]:
        """Return the FLOPs of each operator that counts, e.g. ``aten.convolution``."""
        totals: Counter[str] = Counter()
        for counts in self._doubled.values():
            totals.update(counts)
        return {name: count // 2 for name, count in totals.items()}

    def by_module(self) -> dict[str, int]:
        """Return the FLOPs of each module, including the modules below it.

        Modules are named ``model.<path>``, the model itself is ``model``. A module that did not
        run, or whose operators do not count, has 0.
        """
        totals: dict[str, int] = defaultdict(int)
        for module, counts in self._doubled.items():
            path = ["model", *module.split(".")[1:]]
            for depth in range(1, len(path) + 1):
                totals[".".join(path[:depth])] += sum(counts.values())
        return defaultdict(int, {name: count // 2 for name, count in totals.items()})

    def uncounted_operators(self) -> dict[str, int]:
        """Return how often each operator ran that has no formula and counts as 0."""
        return dict(self._uncounted)


def flop_analysis(model: nn.Module | Callable[..., Any], inputs: Any) -> FlopAnalysis:
    """Run a model once and count its FLOPs by module and by operator.

    Attention counts in the dtype of its operands, whatever the scores; see
    :func:`ccsa.ops.criss_cross.precision.ignored_values`.

    Args:
        model: a module, which runs in evaluation mode without gradients and is left in the mode it
            was in; or any other function, which runs as it is, including its backward pass if it
            has one.
        inputs: what the model is called with: a tuple of arguments, or one argument that is not a
            tuple, such as a tensor or a list of Detectron2's dictionaries.

    Returns:
        The counts: ``total()``, ``by_module()``, ``by_operator()`` and ``uncounted_operators()``.

    Example:
        >>> from torch import nn
        >>> analysis = flop_analysis(nn.Sequential(nn.Linear(3, 5)), torch.zeros(1, 3))
        >>> analysis.by_module()["model.0"], analysis.by_operator()
        (15, {'aten.addmm': 15})
    """
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    with contextlib.ExitStack() as stack:
        stack.enter_context(ignored_values())
        if isinstance(model, nn.Module):
            stack.enter_context(evaluation_mode(model))
            stack.enter_context(torch.no_grad())
        analysis = stack.enter_context(FlopAnalysis())
        model(*arguments)
    return analysis


def count_flops(model: nn.Module | Callable[..., Any], inputs: Any) -> int:
    """Return the FLOPs of one call of a model, where one multiply-add is one FLOP.

    The arguments are those of :func:`flop_analysis`; the header of this module says what counts.

    Example:
        >>> from torch import nn
        >>> count_flops(nn.Conv2d(3, 8, 1), torch.zeros(1, 3, 10, 10))
        2400
        >>> layer, x = nn.Linear(3, 5), torch.zeros(1, 3, requires_grad=True)
        >>> count_flops(lambda: layer(x).sum().backward(), ())  # forward and backward pass
        45
    """
    return flop_analysis(model, inputs).total()


def _depth(module: str) -> int:
    return module.count(".")
