"""``MODEL.WEIGHTS timm://...``: weights for a timm backbone, from a file or from timm's hub.

Files are read by :mod:`ccsa.checkpoint.weight_files`, so code in them is never run. timm's own
loader then gets the state dict (``pretrained_cfg_overlay``), renames former keys and resizes
tensors as it does with its own files. timm accepts files that lack weights; here they are an error.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ccsa.checkpoint.load_report import BATCH_COUNTER, LoadReport, grouped
from ccsa.checkpoint.weight_files import (
    WeightsSource,
    read_weights,
    state_problem,
    state_within,
)
from ccsa.errors import UserError
from ccsa.insertion import CHILD
from ccsa.modeling.backbones.timm_backbone import TimmBackbone
from ccsa.modeling.backbones.timm_models import HUB, SCHEME, import_timm

# The keys under which timm looks for a state dict; averaged weights come first.
_STATE_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")

_FIRST_MARK = 1000  # larger than any initial weight


def load_timm_weights(model: nn.Module, weights: str) -> LoadReport:
    """Load the weights that ``MODEL.WEIGHTS timm://...`` names into the backbone of a model.

    Args:
        model: a model that contains a :class:`TimmBackbone`.
        weights: ``timm://hub`` or ``timm://FILE``.

    Returns:
        The report for the whole model, in which everything outside the backbone is missing.

    Raises:
        UserError: the model has no timm backbone; the weights cannot be read or fetched; or they do
            not contain every tensor of the backbone, which then remains unchanged.
    """
    backbones = ((name, m) for name, m in model.named_modules() if isinstance(m, TimmBackbone))
    path, backbone = next(backbones, ("", None))
    if backbone is None:
        raise UserError(
            f"MODEL.WEIGHTS {weights} is for build_timm_backbone or build_timm_fpn_backbone; set "
            "MODEL.BACKBONE.NAME to one of them, or name other weights"
        )
    file = weights.removeprefix(SCHEME)
    source = WeightsSource(
        weights if file == HUB else file,
        f"MODEL.WEIGHTS {SCHEME}FILE, or set MODEL.TIMM.NAME to the model of this file",
    )
    state = _hub_state(backbone.name) if file == HUB else _file_state(source)
    report = load_backbone_weights(backbone, state, source)
    prefix = f"{path}.net.".lstrip(".")
    missing = [
        key
        for key in model.state_dict()
        if not key.endswith(BATCH_COUNTER)
        and (not key.startswith(prefix) or f".{CHILD}." in key)  # a block inside the backbone
    ]
    return report._replace(missing=missing)


def _file_state(source: WeightsSource) -> Mapping[str, Tensor]:
    """Return the state dict of a file, without the prefixes of wrappers (DDP, torch.compile)."""
    state = state_within(read_weights(source.path, source), _STATE_KEYS)
    problem = state_problem(state)
    if problem:
        raise source.error(problem)
    clean = import_timm().models.clean_state_dict(state)
    return {key: torch.as_tensor(value) for key, value in clean.items()}


def _hub_state(name: str) -> Mapping[str, Tensor]:
    """Return the weights of the whole model from timm's hub; timm checks that they are complete."""
    timm = import_timm()
    try:
        network = timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub's client raises errors of many libraries
        raise UserError(
            f"the weights of timm's {name} cannot be loaded from its hub ({_one_line(error)}); "
            f"name their file with MODEL.WEIGHTS {SCHEME}FILE, or start from random weights with "
            'MODEL.WEIGHTS ""'
        ) from error
    return network.state_dict()


def load_backbone_weights(
    backbone: TimmBackbone, state: Mapping[str, Tensor], source: WeightsSource
) -> LoadReport:
    """Load a timm state dict into a backbone.

    Args:
        backbone: loaded in place.
        state: tensors with timm's current or former keys for this model.
        source: how error messages name the weights.

    Returns:
        The report for the backbone.

    Raises:
        UserError: ``state`` lacks weights of the backbone, or they have another shape; the backbone
            remains unchanged.
    """
    loaded = _load_with_timm(backbone, state, source)
    # timm renames keys on the way and does not report which tensors it used. A second network shows
    # it: each tensor of the state is replaced by a constant of its own, too large for a weight.
    marks = {key: _FIRST_MARK + i for i, key in enumerate(state)}
    marked = _load_with_timm(
        backbone,
        {key: torch.full(state[key].shape, float(mark)) for key, mark in marks.items()},
        source,
    )
    weights = [key for key, value in loaded.items() if value.is_floating_point()]
    missing = [key for key in weights if not (marked[key] > _FIRST_MARK / 2).any()]
    if missing:
        raise source.error(
            f"it lacks {len(missing)} weights of timm's {backbone.name}: "
            f"{', '.join(grouped(missing))}"
        )
    # The first column is enough: timm joins tensors along their first axis only.
    columns = (marked[key].reshape(*marked[key].shape[:1], -1)[..., 0] for key in weights)
    used = {mark for column in columns for mark in column.reshape(-1).tolist()}
    unexpected = [
        key for key, mark in marks.items() if mark not in used and state[key].is_floating_point()
    ]
    # Not strict, because the backbone may also contain context blocks.
    backbone.net.load_state_dict(loaded, strict=False)
    return LoadReport(len(weights), [], unexpected, [])


def _load_with_timm(
    backbone: TimmBackbone, state: Mapping[str, Tensor], source: WeightsSource
) -> Mapping[str, Tensor]:
    """Return the state dict of a new network that timm's loader has filled with ``state``."""
    overlay = {"state_dict": dict(state)}
    with torch.random.fork_rng(devices=[]):  # loading must not shift later random numbers
        try:
            network = backbone.create_network(pretrained=True, pretrained_cfg_overlay=overlay)
        except UserError:
            raise
        except Exception as error:  # timm raises many kinds of errors for weights that do not fit
            raise source.error(
                f"timm's {backbone.name} does not accept it: {_one_line(error)}"
            ) from error
    return network.state_dict()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
