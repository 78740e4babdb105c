"""Conversion of published checkpoints to the keys of ccsa.

Sources:
    mmseg   MMSegmentation: ResNet or ResNetV1c with CCHead, or with an FCNHead of two convolutions
            whose input is concatenated (CCNetHead without blocks), and FCNHead as auxiliary head.
            ImageNet weights of the ResNet only are accepted too.
    ccnet   The official CCNet code: its ResNet with a deep stem, its head, and ``dsn``.
    ccsa    This project: the weights of any of its checkpoints, or of Detectron2's, unchanged.

Weights of the first two fit ``DenseSegmentor`` (or Detectron2's SemanticSegmentor) with
``dilated_resnet`` and ``CCNetHead``, loaded with ``strict=True``. Dilation, activation, recurrence,
``align_corners`` and the pixel constants are not in the weights: they come from the configuration.
configs/cityscapes has one for each source.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from ccsa.checkpoint.conversion.rules import AUXILIARY, HEAD, RULES, to_ccsa_key
from ccsa.checkpoint.conversion.validation import check_complete, model_options
from ccsa.checkpoint.values import value_problem
from ccsa.checkpoint.weight_files import state_problem, state_within
from ccsa.errors import UserError, one_of

__all__ = ["CCSA", "SOURCES", "convert_state_dict", "model_options", "source_of"]

CCSA = "ccsa"
SOURCES = (*RULES, CCSA)
_IN_PLACE_NORM_EPS = 1e-5


def convert_state_dict(
    state_dict: Mapping[str, Any],
    source: str,
    *,
    label: str = "the state dict",
    advice: str = "",
) -> dict[str, Tensor]:
    """Convert a state dict to the keys of ccsa.

    Four adaptations are made besides renaming. MMSegmentation's scalar gamma becomes a vector of
    length 1. Its auxiliary convolution has no bias and gets a bias of 0. The in-place norm of the
    official code scales by |weight| + 1e-5, which becomes the weight of the batch norm; it is
    recognized by its lack of ``num_batches_tracked``. An ImageNet classifier (``fc``) is left out
    if there is no head.

    Args:
        state_dict: the weights, or a checkpoint that has them under ``state_dict`` or ``model``.
            The prefix ``module.`` of data-parallel training is removed.
        source: ``mmseg`` or ``ccnet``; ``ccsa`` keeps the keys.
        label: how error messages name the weights.
        advice: how to fix a mistake, added to the end of error messages.

    Returns:
        The tensors by their new keys.

    Raises:
        UserError: an unknown source; values that are not finite; keys that the models of the source
            do not have; or weights that a model of the same depth and widths needs and
            ``state_dict`` lacks. All of them are listed.

    Example:
        >>> state = torch.load("ccnet_r50-d8.pth", weights_only=True)  # doctest: +SKIP
        >>> model.load_state_dict(convert_state_dict(state, "mmseg"))  # doctest: +SKIP
        <All keys matched successfully>
    """
    one_of(SOURCES, source, "source")
    if not isinstance(state_dict, Mapping):
        kind = type(state_dict).__name__
        raise UserError(f"{label}: a mapping of keys to tensors is needed, not a {kind}{advice}")
    state_dict = state_within(state_dict)
    if source == CCSA:
        problem = state_problem(state_dict)
        if problem:
            raise UserError(f"{label}: {problem}{advice}")
        converted = {
            key.removeprefix("module."): torch.as_tensor(value) for key, value in state_dict.items()
        }
        _check_values(converted, label, advice)
        return converted
    converted, unknown = _rename_all(state_dict, source)
    if not converted:
        raise UserError(
            f"{label}: none of {len(state_dict)} keys is one of {source}'s CCNet with a ResNet: "
            f"{', '.join(unknown) or 'it is empty'}; the sources are {', '.join(SOURCES)}{advice}"
        )
    if source == "mmseg":
        _adapt_mmseg(converted)
    else:
        _adapt_ccnet(converted)
    check_complete(converted, source, unknown, label=label, advice=advice)
    _check_values(converted, label, advice)
    return converted


def _check_values(converted: Mapping[str, torch.Tensor], label: str, advice: str) -> None:
    problem = value_problem(converted)
    if problem:
        raise UserError(f"{label}: {problem}{advice}")


def source_of(keys: Collection[str]) -> str | None:
    """Return the source whose models have most of these keys, or ``None`` if there is none."""
    known = {s: sum(_to_ccsa_key(key, s) is not None for key in keys) for s in RULES}
    best = max(RULES, key=known.__getitem__)
    return best if 2 * known[best] > len(keys) else None


def _rename_all(state_dict: Mapping[str, Any], source: str) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors by their new keys, and the keys without a new key of their own."""
    converted: dict[str, Tensor] = {}
    unknown = []
    for key, value in state_dict.items():
        new = _to_ccsa_key(str(key), source)
        if new is None or new in converted or not isinstance(value, Tensor):
            unknown.append(str(key))
        else:
            converted[new] = value
    if all(key.startswith("backbone.") for key in converted):
        unknown = [key for key in unknown if key.rpartition(".")[0] not in ("fc", "head.fc")]
    return converted, unknown


def _to_ccsa_key(key: str, source: str) -> str | None:
    """Return the new key of a key that may have or lack a prefix."""
    key = key.removeprefix("module.")
    new = to_ccsa_key(key, source)
    if new is None and source == "mmseg":  # its ImageNet weights lack the prefix
        new = to_ccsa_key(f"backbone.{key}", source)
    return new


def _adapt_mmseg(state: dict[str, Tensor]) -> None:
    gamma = f"{HEAD}.attention.gamma"
    if gamma in state:
        state[gamma] = state[gamma].reshape(1)
    conv = f"{AUXILIARY}.conv"
    for key in (f"{conv}.weight", f"{conv}.norm.weight"):
        if key in state:
            state.setdefault(f"{conv}.bias", state[key].new_zeros(len(state[key])))


def _adapt_ccnet(state: dict[str, Tensor]) -> None:
    for key in [k for k in state if k.endswith(".running_var")]:
        norm = key.removesuffix(".running_var")
        if f"{norm}.num_batches_tracked" not in state and f"{norm}.weight" in state:
            state[f"{norm}.weight"] = state[f"{norm}.weight"].abs() + _IN_PLACE_NORM_EPS
