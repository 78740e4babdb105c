"""Validation of converted weights: do they form a complete model?

A model of the same depth and widths is built on the meta device, and all keys and shapes are
compared with it.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone, build_model
from torch import Tensor

from ccsa.checkpoint.conversion.rules import AUXILIARY, HEAD, to_source_key
from ccsa.checkpoint.load_report import BATCH_COUNTER
from ccsa.config import add_ccsa_config
from ccsa.errors import UserError
from ccsa.modeling.backbones.dilated_resnet import BLOCKS

_STAGES = ("res2", "res3", "res4", "res5")


def model_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the configuration of the model that converted weights belong to.

    Args:
        state: converted weights.

    Returns:
        Configuration keys and their values. If weights are missing, the values describe the most
        similar model.
    """
    options: dict[str, Any] = {
        "MODEL.RESNETS.DEPTH": _depth(state),
        "MODEL.RESNETS.STEM_TYPE": "deeplab" if _deep_stem(state) else "basic",
    }
    if has_head(state):
        if not any(key.startswith(f"{AUXILIARY}.") for key in state):
            options["MODEL.SEM_SEG_HEAD.AUX.WEIGHT"] = 0.0
        if not any(key.startswith(f"{HEAD}.attention.") for key in state):
            options["MODEL.SEM_SEG_HEAD.BLOCKS"] = []
    for option, key in size_keys(state).items():
        options[option] = _width(state, key)
    return options


def size_keys(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Return the weights whose shapes determine sizes of the model, by configuration key."""
    stem, last = (3 if _deep_stem(state) else 1), (3 if _bottleneck(state) else 2)
    keys = {
        "MODEL.RESNETS.STEM_OUT_CHANNELS": f"backbone.stem.conv{stem}.weight",
        "MODEL.RESNETS.WIDTH_PER_GROUP": "backbone.res2.0.conv1.weight",
        "MODEL.RESNETS.RES2_OUT_CHANNELS": f"backbone.res2.0.conv{last}.weight",
    }
    if has_head(state):
        keys["MODEL.SEM_SEG_HEAD.NUM_CLASSES"] = f"{HEAD}.predictor.weight"
        keys["MODEL.SEM_SEG_HEAD.CONVS_DIM"] = f"{HEAD}.reduction.weight"
        if any(key.startswith(f"{AUXILIARY}.") for key in state):
            keys["MODEL.SEM_SEG_HEAD.AUX.CHANNELS"] = f"{AUXILIARY}.conv.weight"
    return keys


def _width(state: Mapping[str, Tensor], key: str) -> int:
    """Return the output channels of a convolution; if its weight is missing, those of its norm."""
    layer = key.removesuffix("weight")
    candidates = [f"{layer}{leaf}" for leaf in ("weight", "norm.weight", "bias", "norm.bias")]
    return next((len(state[k]) for k in candidates if k in state and state[k].dim()), 64)


def _bottleneck(state: Mapping[str, Tensor]) -> bool:
    return any(key.startswith("backbone.res") and ".conv3." in key for key in state)


def _deep_stem(state: Mapping[str, Tensor]) -> bool:
    return any(key.startswith(("backbone.stem.conv2.", "backbone.stem.conv3.")) for key in state)


def has_head(state: Mapping[str, Tensor]) -> bool:
    """Return whether converted weights contain a semantic head besides the backbone."""
    return any(key.startswith(f"{HEAD}.") for key in state)


def check_complete(
    state: Mapping[str, Tensor],
    source: str,
    unknown: Sequence[str] = (),
    *,
    label: str = "the state dict",
    advice: str = "",
) -> None:
    """Compare converted weights with the model of the same depth and widths.

    Args:
        state: converted weights.
        source: the codebase of the weights; errors name its keys as well.
        unknown: keys of the source that could not be converted.
        label: how error messages name the weights.
        advice: how to fix a mistake, added to the end of the messages.

    Raises:
        UserError: keys that could not be converted, missing or superfluous weights, or weights of
            another shape; all of them are listed.
    """
    options = model_options(state)
    expected = _shapes(options, has_head(state))
    missing = [key for key in expected if key not in state and not key.endswith(BATCH_COUNTER)]
    extra = [key for key in state if key not in expected]
    mismatched = [key for key in expected if key in state and state[key].shape != expected[key]]
    names = {
        key: f"{to_source_key(key, source)} (here {key})" for key in (*missing, *extra, *mismatched)
    }
    problems = [
        f"{len(keys)} {what}: {', '.join(names.get(key, key) for key in keys)}"
        for keys, what in (
            (unknown, f"not among {source}'s keys"),
            (missing, "missing"),
            (extra, "without a counterpart"),
            (mismatched, "of a shape that does not match the others"),
        )
        if keys
    ]
    if problems:
        raise UserError(
            f"{label}: not the weights of a complete CCNet with a ResNet, or of a complete ResNet; "
            f"compared with the most similar one, ResNet-{options['MODEL.RESNETS.DEPTH']} of "
            f"{', '.join(map(str, BLOCKS))}: {'; '.join(problems)}{advice}"
        )


def _shapes(options: Mapping[str, Any], head: bool) -> dict[str, torch.Size]:
    """Return the keys and shapes of ccsa's model with these options, or of its backbone only."""
    cfg = get_cfg()
    add_ccsa_config(cfg)
    common = {
        "MODEL.DEVICE": "meta",
        "MODEL.META_ARCHITECTURE": "DenseSegmentor",
        "MODEL.BACKBONE.NAME": "build_dilated_resnet_backbone",
        "MODEL.BACKBONE.FREEZE_AT": 0,
        "MODEL.RESNETS.NORM": "BN",
        "MODEL.RESNETS.OUT_FEATURES": ["res4", "res5"],
        "MODEL.SEM_SEG_HEAD.NAME": "CCNetHead",
        "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res5"],
        "MODEL.SEM_SEG_HEAD.NORM": "BN",
    }
    cfg.merge_from_list(list(chain.from_iterable({**common, **options}.items())))
    with torch.device("meta"):
        state = build_model(cfg).state_dict() if head else build_backbone(cfg).state_dict()
    return {key if head else f"backbone.{key}": value.shape for key, value in state.items()}


def _depth(state: Mapping[str, Tensor]) -> int:
    """Return the depth of the ResNet whose residual blocks match best, the smallest of equals."""
    found = {tuple(key.split(".")[1:3]) for key in state if key.startswith("backbone.res")}

    def differing(depth: int) -> int:
        blocks = zip(_STAGES, BLOCKS[depth], strict=True)
        return len(found ^ {(stage, str(i)) for stage, count in blocks for i in range(count)})

    bottleneck = _bottleneck(state)
    return min((depth for depth in BLOCKS if (depth >= 50) == bottleneck), key=differing)
