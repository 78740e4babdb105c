"""Whether converted weights are the whole of a model: one of the same depth and widths is built,
with no memory for its weights, and every key and shape compared."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone, build_model
from torch import Tensor

from ccsa.config import add_ccsa_config
from ccsa.conversion.rules import AUX, HEAD, their_key
from ccsa.errors import UserError
from ccsa.modeling.backbone import BLOCKS

_STAGES = ("res2", "res3", "res4", "res5")
_COUNTER = "num_batches_tracked"  # torch fills it in where a norm had none


def model_options(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """The sizes of the model that converted weights are of, as configuration keys.

    Raises:
        UserError: no ResNet is that deep.
    """
    first = "backbone.res2.0"
    bottleneck = f"{first}.conv3.weight" in state
    deep = "backbone.stem.conv2.weight" in state
    options = {
        "MODEL.RESNETS.DEPTH": _depth(state, bottleneck),
        "MODEL.RESNETS.STEM_TYPE": "deeplab" if deep else "basic",
        "MODEL.RESNETS.STEM_OUT_CHANNELS": _width(
            state, f"backbone.stem.conv{3 if deep else 1}.weight"
        ),
        "MODEL.RESNETS.WIDTH_PER_GROUP": _width(state, f"{first}.conv1.weight"),
        "MODEL.RESNETS.RES2_OUT_CHANNELS": _width(
            state, f"{first}.conv{3 if bottleneck else 2}.weight"
        ),
    }
    if has_head(state):
        aux = any(key.startswith(f"{AUX}.") for key in state)
        options |= {
            "MODEL.SEM_SEG_HEAD.NUM_CLASSES": _width(state, f"{HEAD}.predictor.weight"),
            "MODEL.SEM_SEG_HEAD.CONVS_DIM": _width(state, f"{HEAD}.reduction.weight"),
        }
        if aux:
            options["MODEL.SEM_SEG_HEAD.AUX.CHANNELS"] = _width(state, f"{AUX}.conv.weight")
        else:
            options["MODEL.SEM_SEG_HEAD.AUX.WEIGHT"] = 0.0
        if not any(key.startswith(f"{HEAD}.attention.") for key in state):
            options["MODEL.SEM_SEG_HEAD.CONTEXT"] = []
    return options


def has_head(state: Mapping[str, Tensor]) -> bool:
    """Whether converted weights hold a semantic head beside the backbone."""
    return any(key.startswith(f"{HEAD}.") for key in state)


def check_complete(state: Mapping[str, Tensor], source: str) -> None:
    """Compare converted weights with the model of their sizes.

    Raises:
        UserError: weights that the model lacks, that have no place in it, or of another shape.
    """
    options = model_options(state)
    wanted = _shapes(options, has_head(state))
    missing = [key for key in wanted if key not in state and not key.endswith(_COUNTER)]
    extra = [key for key in state if key not in wanted]
    # Where weights are missing, sizes that were read off them are guesses.
    misfits = [] if missing else [k for k in wanted if k in state and state[k].shape != wanted[k]]
    troubles = [
        f"{len(keys)} {what}: {listed([f'{their_key(k, source)} (here {k})' for k in keys])}"
        for keys, what in (
            (missing, "missing"),
            (extra, "with no place in it"),
            (misfits, "of a shape that does not fit the others"),
        )
        if keys
    ]
    if troubles:
        raise UserError(
            f"the weights are not those of a whole CCNet with a ResNet-"
            f"{options['MODEL.RESNETS.DEPTH']}, or of the ResNet alone: {'; '.join(troubles)}"
        )


def _shapes(options: Mapping[str, Any], head: bool) -> dict[str, torch.Size]:
    """Keys and shapes of our model with these options, or of its backbone alone."""
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
    cfg.merge_from_list(list(_pairs({**common, **options})))
    with torch.device("meta"):
        state = build_model(cfg).state_dict() if head else build_backbone(cfg).state_dict()
    return {key if head else f"backbone.{key}": value.shape for key, value in state.items()}


def _pairs(options: Mapping[str, Any]) -> Iterator[Any]:
    for key, value in options.items():
        yield key
        yield value


def _depth(state: Mapping[str, Tensor], bottleneck: bool) -> int:
    """The shallowest ResNet that has every block found: of weights that were cut it is the one that
    says what is missing."""
    counts = [
        1
        + max(
            (int(key.split(".")[2]) for key in state if key.startswith(f"backbone.{stage}.")),
            default=-1,
        )
        for stage in _STAGES
    ]
    for depth, blocks in BLOCKS.items():
        fits = all(found <= there for found, there in zip(counts, blocks, strict=True))
        if fits and (depth >= 50) == bottleneck:
            return depth
    raise UserError(
        f"the weights have {counts} residual blocks in {', '.join(_STAGES)}; "
        f"the ResNets here are {', '.join(map(str, BLOCKS))}"
    )


def _width(state: Mapping[str, Tensor], key: str) -> int:
    return len(state[key]) if key in state and state[key].dim() else 64


def listed(keys: list[str], separator: str = ", ", most: int = 20) -> str:
    """The keys of an error; those of another network altogether would fill the screen."""
    more = f"{separator}and {len(keys) - most} more" if len(keys) > most else ""
    return separator.join(keys[:most]) + more
