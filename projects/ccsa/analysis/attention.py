"""The attention of every block of a model for given inputs: ``attention_maps(model, inputs)``.

The model runs once as it does at inference. Semantic heads of this project also compute the outputs
and stages that inference skips. Results are on the CPU.

Dimensions: B inputs of a block (images, clips or regions), C channels, R applications (the
recurrence), S spatial size, which is (H, W) for images and (T, H, W) for clips.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ccsa.blocks import CrissCross, SqueezeAttention
from ccsa.inference.predictor import evaluation_mode
from ccsa.modeling.semantic_heads.semantic_head import SemanticHead


@dataclass(frozen=True)
class CrissCrossMaps:
    """What one call of a criss-cross block computed.

    Attributes:
        weights: the attention weights (B, *S, sum(S)) of each application at R = 1, 2, ...; the
            order of the last axis is that of :func:`ccsa.ops.criss_cross_weights`. Multiply them by
            :func:`ccsa.analysis.attended_by`.
        gamma: the factor of what each application adds.
        input_norms: for each application, the norm over channels of its input, (B, *S).
        added_norms: for each application, the norm over channels of gamma * attention, (B, *S).
        contribution_norm: the norm over channels of output minus input of the block, (B, *S).
    """

    weights: list[Tensor]
    gamma: float
    input_norms: list[Tensor]
    added_norms: list[Tensor]
    contribution_norm: Tensor


@dataclass(frozen=True)
class SqueezeAttentionMaps:
    """What one call of a squeeze-and-attention block computed.

    Attributes:
        attention: the attention branch X_att, (B, C, H, W).
        main: the main branch X_res, (B, C, H, W).
        product: X_att * X_res, (B, C, H, W); the block computes X_att * X_res + X_att.
        gamma: the factor of the result, or None in the non-residual form.
        input_norm: the norm over channels of the input, (B, H, W).
        contribution_norm: the norm over channels of what the block adds, gamma * (X_att * X_res +
            X_att), or of its output in the non-residual form, (B, H, W).
    """

    attention: Tensor
    main: Tensor
    product: Tensor
    gamma: float | None
    input_norm: Tensor
    contribution_norm: Tensor


@dataclass
class AttentionMaps:
    """The attention of a model for given inputs.

    Attributes:
        criss_cross: by module path, one :class:`CrissCrossMaps` for each call of the block. A block
            is called once unless the model applies it to several feature maps.
        squeeze_attention: by module path, one :class:`SqueezeAttentionMaps` for each call.
        class_scores: by module path of each semantic head, the logits of each of its outputs by
            name; see :meth:`SemanticHead.class_scores`.
        outputs: what the model returned.
    """

    criss_cross: dict[str, list[CrissCrossMaps]] = field(default_factory=dict)
    squeeze_attention: dict[str, list[SqueezeAttentionMaps]] = field(default_factory=dict)
    class_scores: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    outputs: Any = None


def attention_maps(model: nn.Module, inputs: Any) -> AttentionMaps:
    """Run a model once and return the attention of its blocks, by module path.

    Args:
        model: any module with blocks of this project, on any device. It runs in evaluation mode
            without gradients, and is left in the mode it was in.
        inputs: what the model is called with: a tuple of arguments, or one argument that is not a
            tuple, such as a tensor or a list of Detectron2's dictionaries.

    Returns:
        The maps, on the CPU. The blocks of a model without any are empty dictionaries.

    Example:
        >>> from ccsa import CrissCross
        >>> model = nn.Sequential(nn.Conv2d(3, 16, 3), CrissCross(16, recurrence=2))
        >>> maps = attention_maps(model, torch.zeros(1, 3, 7, 9))
        >>> [tuple(w.shape) for w in maps.criss_cross["1"][0].weights]  # B, H, W, H + W
        [(1, 5, 7, 12), (1, 5, 7, 12)]
    """
    arguments = inputs if isinstance(inputs, tuple) else (inputs,)
    recorder = _Recorder()
    with evaluation_mode(model), torch.no_grad(), uncompiled(model), recorder.attached(model):
        recorder.maps.outputs = model(*arguments)
    return recorder.maps


@contextlib.contextmanager
def uncompiled(model: nn.Module) -> Iterator[None]:
    """Run a model without the programs of torch.compile inside a ``with`` block: they ignore hooks
    that are registered after they were compiled."""
    modules = [m for m in model.modules() if m._compiled_call_impl is not None]
    programs = [module._compiled_call_impl for module in modules]
    for module in modules:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, program in zip(modules, programs, strict=True):
            module._compiled_call_impl = program


class _Recorder:
    """Fills :class:`AttentionMaps` while a model runs."""

    def __init__(self) -> None:
        self.maps = AttentionMaps()

    @contextlib.contextmanager
    def attached(self, model: nn.Module) -> Iterator[None]:
        """Record every block and semantic head of ``model`` inside a ``with`` block."""
        with contextlib.ExitStack() as stack:
            for path, module in model.named_modules():
                if isinstance(module, (CrissCross, SqueezeAttention)):
                    handle = module.register_forward_hook(self._hook(path))
                    stack.callback(handle.remove)
                elif isinstance(module, SemanticHead):
                    stack.enter_context(self._head(path, module))
            yield

    def _hook(self, path: str) -> Any:
        def record(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            if isinstance(module, CrissCross):
                maps = criss_cross_maps(module, args[0])
                self.maps.criss_cross.setdefault(path, []).append(maps)
            elif isinstance(module, SqueezeAttention):
                branches = squeeze_attention_maps(module, args[0])
                self.maps.squeeze_attention.setdefault(path, []).append(branches)

        return record

    @contextlib.contextmanager
    def _head(self, path: str, head: SemanticHead) -> Iterator[None]:
        """Record all outputs of a head whose ``layers`` is called, for which every stage runs."""
        layers, running = head.layers, False

        def recording_layers(features: Mapping[str, Tensor]) -> Tensor:
            nonlocal running
            if running:  # class_scores calls layers
                return layers(features)
            running = True
            try:
                scores = head.class_scores(features)
            finally:
                running = False
            self.maps.class_scores[path] = {k: _to_cpu(v) for k, v in scores.items()}
            return scores["prediction"]

        head.layers = recording_layers  # type: ignore[method-assign]
        try:
            yield
        finally:
            del head.layers


def criss_cross_maps(block: CrissCross, x: Tensor) -> CrissCrossMaps:
    """Return the maps of a block for an input x of shape (B, C, *S)."""
    weights, inputs, added = [], [], []
    gamma = float(block.gamma)
    with torch.no_grad():
        y = x
        for _ in range(block.recurrence):
            weights.append(_to_cpu(block.attention_weights(y)))
            inputs.append(_norm(y))
            added.append(_norm(gamma * block.context(y)))
            y = block.gate(y)
        return CrissCrossMaps(weights, gamma, inputs, added, _norm(y - x))


def squeeze_attention_maps(block: SqueezeAttention, x: Tensor) -> SqueezeAttentionMaps:
    """Return the maps of a block for an input x of shape (B, C, H, W)."""
    with torch.no_grad():
        attention, main = block.branches(x)
        product = attention * main
        gamma = None if block.gamma is None else float(block.gamma)
        added = (product + attention) * (1.0 if gamma is None else gamma)
        return SqueezeAttentionMaps(
            *(_to_cpu(attention), _to_cpu(main), _to_cpu(product)),
            *(gamma, _norm(x), _norm(added)),
        )


def _norm(x: Tensor) -> Tensor:
    return _to_cpu(torch.linalg.vector_norm(x.float(), dim=1))


def _to_cpu(x: Tensor) -> Tensor:
    return x.detach().float().cpu()
