"""Checkpoints of other programs, in the keys of this project's models.

Sources:
    mmseg   MMSegmentation: ResNet or ResNetV1c; CCHead, or FCNHead with two convolutions and the
            input concatenated (CCNetHead with no context); FCNHead as auxiliary. Or the ResNet
            alone, as its ImageNet weights are.
    ccnet   the official CCNet code: its ResNet with deep stem, its head and ``dsn``.
    ccsa    this project: the weights of any of its checkpoints, or of Detectron2's, as they are.

Of the first two the result fits ``DenseSegmentor`` (or Detectron2's SemanticSegmentor) with
``dilated_resnet`` and ``CCNetHead``, ``strict=True``. What is no weight (dilation, activation,
recurrence, ``align_corners``, means of the image) is the configuration's: configs/cityscapes has
one for each.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from ccsa.checkpoint.conversion.fit import check_complete, model_options
from ccsa.checkpoint.conversion.rules import AUX, HEAD, RULES, our_key
from ccsa.checkpoint.weight_files import check_state, state_within
from ccsa.errors import UserError

__all__ = ["SOURCES", "convert_state_dict", "model_options", "source_of"]

OURS = "ccsa"
SOURCES = (*RULES, OURS)
_ABN_EPS = 1e-5


def convert_state_dict(state_dict: Mapping[str, Any], source: str) -> dict[str, Tensor]:
    """Give a state dict the keys of this project's models.

    Args:
        state_dict: of the source's model, or a checkpoint that holds it under ``state_dict`` or
            ``model``. The prefix ``module.`` of data-parallel training is taken off.
        source: ``mmseg`` or ``ccnet``; ``ccsa`` for a checkpoint of this project, whose keys stay.

    Returns:
        The same weights under new keys, with three adaptations. MMSegmentation's scalar gamma
        becomes a vector of one, and its auxiliary convolution, which has no bias, gets one of 0.
        The in-place norm of the official code, known by its lack of ``num_batches_tracked``, scales
        by |weight| + 1e-5, so that becomes the weight of the batch norm. An ImageNet classifier
        (``fc``) on a backbone alone is left out.

    Raises:
        UserError: an unknown source; keys that the source's models do not have; or weights that our
            model of the same depth and widths has and the state dict does not give, all listed.
    """
    if source not in SOURCES:
        raise UserError(f"source must be one of {', '.join(SOURCES)}, not {source!r}")
    if not isinstance(state_dict, Mapping):
        raise UserError(f"a state dict maps keys to tensors; this is a {type(state_dict).__name__}")
    state_dict = state_within(state_dict)
    if source == OURS:
        return _as_it_is(state_dict)
    converted, unknown = _rename_all(state_dict, source)
    if not converted:
        raise UserError(
            f"none of {len(state_dict)} keys is one of {source}'s CCNet with a ResNet: "
            f"{', '.join(unknown) or 'there are none'}; the sources are {', '.join(SOURCES)}"
        )
    if source == "mmseg":
        _from_mmseg(converted)
    else:
        _from_ccnet(converted)
    check_complete(converted, source, unknown)
    return converted


def _rename_all(state_dict: Mapping[str, Any], source: str) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under our keys, and the keys that have none of ours, or one that is taken."""
    converted: dict[str, Tensor] = {}
    unknown = []
    for key, value in state_dict.items():
        new = _our_key(str(key), source)
        if new is None or new in converted or not isinstance(value, Tensor):
            unknown.append(str(key))
        else:
            converted[new] = value
    if all(key.startswith("backbone.") for key in converted):
        unknown = [key for key in unknown if key.rpartition(".")[0] not in ("fc", "head.fc")]
    return converted, unknown


def _as_it_is(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    try:
        state = check_state(state_dict)
    except ValueError as error:
        raise UserError(str(error)) from error
    return {key.removeprefix("module."): torch.as_tensor(value) for key, value in state.items()}


def _our_key(key: str, source: str) -> str | None:
    bare = key.removeprefix("module.")
    new = our_key(bare, source)
    if new is None and source == "mmseg":  # ImageNet weights of the backbone have no prefix
        new = our_key(f"backbone.{bare}", source)
    return new


def source_of(keys: Collection[str]) -> str | None:
    """The source whose models have most of these keys; None where none has."""
    known = {s: sum(_our_key(key, s) is not None for key in keys) for s in RULES}
    best = max(RULES, key=known.__getitem__)
    return best if 2 * known[best] > len(keys) else None


def _from_mmseg(state: dict[str, Tensor]) -> None:
    gamma = f"{HEAD}.attention.gamma"
    if gamma in state:
        state[gamma] = state[gamma].reshape(1)
    conv = f"{AUX}.conv"
    for key in (f"{conv}.weight", f"{conv}.norm.weight"):
        if key in state:
            state.setdefault(f"{conv}.bias", state[key].new_zeros(len(state[key])))


def _from_ccnet(state: dict[str, Tensor]) -> None:
    for key in [k for k in state if k.endswith(".running_var")]:
        norm = key.removesuffix(".running_var")
        if f"{norm}.num_batches_tracked" not in state and f"{norm}.weight" in state:
            state[f"{norm}.weight"] = state[f"{norm}.weight"].abs() + _ABN_EPS
