"""Checkpoints of other programs, in the keys of this project's models.

Sources:
    mmseg   MMSegmentation 1.x: ResNet or ResNetV1c; CCHead, or FCNHead with two convolutions and
            the input concatenated (CCNetHead with no context); FCNHead as auxiliary.
    ccnet   the official CCNet code: its ResNet with deep stem, its head and ``dsn``.

The result fits ``DenseSegmentor`` (or Detectron2's SemanticSegmentor) with ``dilated_resnet`` and
``CCNetHead``, ``strict=True``; settings that are no weights (dilation, activation, recurrence,
``align_corners``) are the configuration's.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from ccsa.errors import UserError

_HEAD, _AUX = "sem_seg_head", "sem_seg_head.auxiliary"
_BLOCK = [  # of a residual block, the same in both
    (r"layer(\d)\.(\d+)\.conv(\d)\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}."),
    (r"layer(\d)\.(\d+)\.bn(\d)\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.conv{m[3]}.norm."),
    (r"layer(\d)\.(\d+)\.downsample\.0\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut."),
    (r"layer(\d)\.(\d+)\.downsample\.1\.", lambda m: f"res{int(m[1]) + 1}.{m[2]}.shortcut.norm."),
]
_RULES: dict[str, list[tuple[str, str | Callable[[re.Match], str]]]] = {
    "mmseg": [
        *((rf"backbone\.{old}", lambda m, new=new: f"backbone.{new(m)}") for old, new in _BLOCK),
        (r"backbone\.stem\.([036])\.", lambda m: f"backbone.stem.conv{int(m[1]) // 3 + 1}."),
        (r"backbone\.stem\.([147])\.", lambda m: f"backbone.stem.conv{int(m[1]) // 3 + 1}.norm."),
        (r"backbone\.conv1\.", "backbone.stem.conv1."),
        (r"backbone\.bn1\.", "backbone.stem.conv1.norm."),
        (r"decode_head\.convs\.0\.conv\.", f"{_HEAD}.reduction."),
        (r"decode_head\.convs\.0\.bn\.", f"{_HEAD}.reduction.norm."),
        (r"decode_head\.convs\.1\.conv\.", f"{_HEAD}.refine."),
        (r"decode_head\.convs\.1\.bn\.", f"{_HEAD}.refine.norm."),
        (r"decode_head\.conv_cat\.conv\.", f"{_HEAD}.fusion."),
        (r"decode_head\.conv_cat\.bn\.", f"{_HEAD}.fusion.norm."),
        (r"decode_head\.cca\.gamma\.scale$", f"{_HEAD}.attention.gamma"),
        (r"decode_head\.cca\.", f"{_HEAD}.attention."),
        (r"decode_head\.conv_seg\.", f"{_HEAD}.predictor."),
        (r"auxiliary_head\.convs\.0\.conv\.", f"{_AUX}.conv."),
        (r"auxiliary_head\.convs\.0\.bn\.", f"{_AUX}.conv.norm."),
        (r"auxiliary_head\.conv_seg\.", f"{_AUX}.predictor."),
    ],
    "ccnet": [
        *((old, lambda m, new=new: f"backbone.{new(m)}") for old, new in _BLOCK),
        (r"conv([123])\.", r"backbone.stem.conv\1."),
        (r"bn([123])\.", r"backbone.stem.conv\1.norm."),
        (r"head\.conva\.0\.", f"{_HEAD}.reduction."),
        (r"head\.conva\.1\.", f"{_HEAD}.reduction.norm."),
        (r"head\.cca\.", f"{_HEAD}.attention."),
        (r"head\.convb\.0\.", f"{_HEAD}.refine."),
        (r"head\.convb\.1\.", f"{_HEAD}.refine.norm."),
        (r"head\.bottleneck\.0\.", f"{_HEAD}.fusion."),
        (r"head\.bottleneck\.1\.", f"{_HEAD}.fusion.norm."),
        (r"head\.bottleneck\.3\.", f"{_HEAD}.predictor."),
        (r"dsn\.0\.", f"{_AUX}.conv."),
        (r"dsn\.1\.", f"{_AUX}.conv.norm."),
        (r"dsn\.3\.", f"{_AUX}.predictor."),
    ],
}
_ABN_EPS = 1e-5


def convert_state_dict(state_dict: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Give a state dict the keys of this project's models.

    Args:
        state_dict: of the source's model, or a checkpoint that holds it under ``state_dict``. The
            prefix ``module.`` of data-parallel training is taken off.
        source: ``mmseg`` or ``ccnet``.

    Returns:
        The same weights under new keys, with three adaptations. MMSegmentation's scalar gamma
        becomes a vector of one, and its auxiliary convolution, which has no bias, gets one of 0.
        The in-place norm of the official code, known by its lack of ``num_batches_tracked``, scales
        by |weight| + 1e-5, so that becomes the weight of the batch norm.

    Raises:
        UserError: an unknown source, or a key that the source's models do not have.
    """
    if source not in _RULES:
        raise UserError(f"source must be one of {', '.join(_RULES)}, not {source!r}")
    if isinstance(state_dict.get("state_dict"), Mapping):
        state_dict = state_dict["state_dict"]
    converted: dict[str, Tensor] = {}
    unknown = []
    for key, value in state_dict.items():
        new = _rename(key.removeprefix("module."), _RULES[source])
        if new is None:
            unknown.append(key)
        else:
            converted[new] = value
    if unknown:
        listed = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        raise UserError(
            f"{len(unknown)} of {len(state_dict)} keys are not those of {source}'s CCNet with a "
            f"ResNet: {listed}; the sources are {', '.join(_RULES)}"
        )
    if source == "mmseg":
        _from_mmseg(converted)
    else:
        _from_ccnet(converted)
    return converted


def _rename(key: str, rules: list[tuple[str, str | Callable[[re.Match], str]]]) -> str | None:
    for pattern, new in rules:
        renamed, count = re.subn("^" + pattern, new, key)
        if count:
            return renamed
    return None


def _from_mmseg(state: dict[str, Tensor]) -> None:
    gamma = f"{_HEAD}.attention.gamma"
    if gamma in state:
        state[gamma] = state[gamma].reshape(1)
    weight = state.get(f"{_AUX}.conv.weight")
    if weight is not None:
        state.setdefault(f"{_AUX}.conv.bias", weight.new_zeros(len(weight)))


def _from_ccnet(state: dict[str, Tensor]) -> None:
    for key in [k for k in state if k.endswith(".running_var")]:
        norm = key.removesuffix(".running_var")
        if f"{norm}.num_batches_tracked" not in state and f"{norm}.weight" in state:
            state[f"{norm}.weight"] = state[f"{norm}.weight"].abs() + _ABN_EPS
