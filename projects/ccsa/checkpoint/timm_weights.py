"""``MODEL.WEIGHTS timm://...``: weights for a backbone from timm, of a file with timm's keys or of
timm's hub. Files are read as all others, with no code in them run; timm gets what they hold."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ccsa.checkpoint.load_report import COUNTER, LoadReport, grouped
from ccsa.checkpoint.weight_files import check_state, loading_errors, read_weights, state_within
from ccsa.errors import UserError
from ccsa.insertion import CHILD
from ccsa.modeling.backbones.timm_backbone import TimmBackbone
from ccsa.modeling.backbones.timm_models import HUB, SCHEME, import_timm

_FIRST_MARK = 1000  # no weight is as large

# Where timm looks in a checkpoint, averaged weights first, and what its keys may begin with.
_PLACES = ("state_dict_ema", "model_ema", "state_dict", "model")
_PREFIXES = ("_orig_mod.", "module.", "_orig_mod.")


def load_timm_weights(model: nn.Module, weights: str) -> LoadReport:
    """Load what ``MODEL.WEIGHTS timm://...`` names into the model's backbone.

    Returns:
        What was loaded of the whole model.

    Raises:
        UserError: the model's backbone is none from timm, or the weights cannot be read, fetched,
            or are not all that the backbone needs.
    """
    modules = ((name, m) for name, m in model.named_modules() if isinstance(m, TimmBackbone))
    place, backbone = next(modules, ("", None))
    if backbone is None:
        raise UserError(
            f"MODEL.WEIGHTS {weights} is for build_timm_backbone or build_timm_fpn_backbone; name "
            "one by MODEL.BACKBONE.NAME, or other weights"
        )
    source = weights.removeprefix(SCHEME)
    own = f"MODEL.WEIGHTS {SCHEME}FILE, or the model that the file is of by MODEL.TIMM.NAME"
    with loading_errors("timm://hub" if source == HUB else source, own):
        state = _of_hub(backbone.name) if source == HUB else _of_file(source)
        report = load_backbone_weights(backbone, state)
    inside = f"{place}.net.".lstrip(".")
    rest = [
        key
        for key in model.state_dict()
        if not (key.endswith(COUNTER) or (key.startswith(inside) and f".{CHILD}." not in key))
    ]
    return report._replace(missing=rest)


def _of_file(file: str) -> Mapping[str, Tensor]:
    state = check_state(state_within(read_weights(file), _PLACES))
    for prefix in _PREFIXES:
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {key: torch.as_tensor(value) for key, value in state.items()}


def _of_hub(name: str) -> Mapping[str, Tensor]:
    """The whole model's weights, which timm checks to be complete."""
    try:
        return import_timm().create_model(name, pretrained=True).state_dict()
    except Exception as error:  # whatever the hub raises
        raise UserError(
            f"weights of timm's {name} cannot be loaded from its hub "
            f"({' '.join(str(error).split())[:300]}); name their file by MODEL.WEIGHTS "
            f'{SCHEME}FILE, or start from random weights by MODEL.WEIGHTS ""'
        ) from error


def load_backbone_weights(backbone: TimmBackbone, state: Mapping[str, Tensor]) -> LoadReport:
    """Take weights of the model, renamed and resized by timm as it does with its own files.

    Args:
        state: with the model's keys as timm has them or had them.

    Returns:
        What was loaded, of this backbone, and what of ``state`` was not.

    Raises:
        ValueError: weights of the backbone are not there, or of another shape; it is as it was.
    """
    # What timm takes is seen by what becomes of marks in its place, a number for each tensor:
    # norms start as constants, so what a file lacks does not show by values.
    numbers = {key: _FIRST_MARK + i for i, key in enumerate(state)}
    marks = {key: torch.full(state[key].shape, float(n)) for key, n in numbers.items()}
    found, marked = _filled(backbone, state), _filled(backbone, marks)
    weights = [key for key, value in found.items() if value.is_floating_point()]
    missing = [key for key in weights if torch.equal(found[key], marked[key])]
    columns = (marked[key].reshape(*marked[key].shape[:1], -1) for key in weights)
    seen = {n for column in columns for n in column[..., 0].reshape(-1).tolist()}
    if missing:
        raise ValueError(
            f"it lacks {len(missing)} weights of timm's {backbone.name}: "
            f"{', '.join(grouped(missing))}"
        )
    # Built alike, they have the keys of this network, but for context blocks within.
    backbone.net.load_state_dict(found, strict=False)
    unexpected = [
        key for key, n in numbers.items() if n not in seen and state[key].is_floating_point()
    ]
    return LoadReport(len(weights), [], unexpected, [])


def _filled(backbone: TimmBackbone, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The state of a network that timm builds with these weights; what they lack is the same
    each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        overlay = {"state_dict": dict(state)}
        try:
            return backbone.create_network(
                pretrained=True, pretrained_cfg_overlay=overlay
            ).state_dict()
        except Exception as error:  # whatever timm raises for weights that do not fit
            reason = " ".join(str(error).split())[:300]
            raise ValueError(f"timm's {backbone.name} does not take it: {reason}") from error
