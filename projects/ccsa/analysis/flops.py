"""FLOPs of a model, counted by fvcore while the model runs once.

As fvcore and most papers count: one multiply-add is one FLOP; convolutions, matrix products, norms
and bilinear resizing count, activations, additions and softmax do not. To what fvcore knows come
the attention operators, which it would leave out:

* criss-cross attention: every position has one product with each position of its cross, of Ck
  channels for the score and of Cv for the output;
* scaled dot-product attention: two matrix products.

A model whose work depends on what it sees (proposals and detections of Mask R-CNN) is counted for
the input that is given.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.utils.analysis import FlopCountAnalysis
from fvcore.nn.jit_handles import get_shape
from torch import nn

from ccsa.inference.predictor import evaluation_mode
from ccsa.ops.criss_cross.flops import multiply_adds


def criss_cross_flops(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Of query (B, Ck, *S), key and value (B, Cv, *S)."""
    return multiply_adds(get_shape(inputs[0]), get_shape(inputs[2]))


def dot_product_attention_flops(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Of query (*B, L, E), key (*B, S, E) and value (*B, S, Ev): prod(B) * L * S * (E + Ev)."""
    query, _, value = (get_shape(x) for x in inputs[:3])
    *batch, length, channels = query
    return math.prod(batch) * length * value[-2] * (channels + value[-1])


def added_product_flops(inputs: Sequence[Any], outputs: Sequence[Any]) -> int:
    """Of an addend, (B, L, C) and (B, C, M): the matrix products."""
    batch, length, channels = get_shape(inputs[1])
    return batch * length * channels * get_shape(inputs[2])[-1]


HANDLES = {
    "ccsa::criss_cross_forward": criss_cross_flops,
    "ccsa::criss_cross_triton_forward": criss_cross_flops,
    "aten::scaled_dot_product_attention": dot_product_attention_flops,
    "aten::baddbmm": added_product_flops,
}


def flop_analysis(model: nn.Module, inputs: Any) -> FlopCountAnalysis:
    """fvcore's analysis (``total()``, ``by_module()``, ``by_operator()``), complete and silent.

    Args:
        model: is run in evaluation mode and left in the mode it was in.
        inputs: what it is called with: a tensor, a tuple of arguments, or a list of Detectron2's
            dictionaries.

    Returns:
        The analysis, computed. Modules below the model are named ``model.<path>``.
    """
    with evaluation_mode(model), torch.no_grad():
        analysis = FlopCountAnalysis(model, inputs)
        analysis.set_op_handle(**HANDLES)
        analysis.tracer_warnings("none")
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.total()
    return analysis


def count_flops(model: nn.Module, inputs: Any) -> int:
    """FLOPs of one call ``model(inputs)`` in evaluation mode; see :func:`flop_analysis`."""
    return round(flop_analysis(model, inputs).total())
