"""``MODEL.WEIGHTS timm://...``: weights for a backbone from timm, of a file with timm's keys or of
timm's hub. Files are read as all others, with no code in them run; timm gets what they hold."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ccsa.errors import UserError
from ccsa.insertion import CHILD
from ccsa.load_report import COUNTER, LoadReport
from ccsa.modeling.timm_backbone import TimmBackbone
from ccsa.modeling.timm_models import HUB, SCHEME, import_timm
from ccsa.weight_files import check_state, read_weights, state_within, told

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
    with told("timm://hub" if source == HUB else source, own):
        state = _of_hub(backbone.name) if source == HUB else _of_file(source)
        report = backbone.load_pretrained(state)
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
