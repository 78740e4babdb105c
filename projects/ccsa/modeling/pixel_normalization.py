"""Pixel normalization: the mean and standard deviation that a model subtracts and divides by.

``MODEL.PIXEL_MEAN`` and ``MODEL.PIXEL_STD`` may be left open for a timm backbone, which then uses
the constants it was trained with. :func:`pixel_constants` is the only rule for that.
``ccsa.engine.setup_cfg`` and ContextModel write its result into the configuration; the augmentation
calls it to pad images, because it may also get a configuration that was not set up by the tools.
"""

from detectron2.config import CfgNode, get_cfg

from ccsa.errors import UserError
from ccsa.modeling.backbones.timm_models import SCHEME, normalization_constants

_KEYS = ("PIXEL_MEAN", "PIXEL_STD")


def pixel_constants(cfg: CfgNode) -> tuple[list[float], list[float]]:
    """Return the pixel mean and standard deviation of each channel, for values from 0 to 255.

    They are those of ``cfg.MODEL``, except for a timm backbone whose constants are empty or both
    left at Detectron2's default: then they are the constants the timm model was trained with.

    Raises:
        UserError: the constants are empty and the backbone has none of its own; timm does not know
            the model; or its weights need another ``INPUT.FORMAT``.
    """
    model = cfg.MODEL
    mean, std = (list(model[key]) for key in _KEYS)
    if "timm" not in model.BACKBONE.NAME:
        if not (mean and std):
            raise UserError(
                f"MODEL.PIXEL_MEAN {mean} and PIXEL_STD {std} need a value for each channel: "
                f"{model.BACKBONE.NAME} has none of its own, unlike a timm backbone"
            )
        return mean, std
    if model.WEIGHTS.startswith(SCHEME) and cfg.INPUT.FORMAT != "RGB":
        raise UserError(
            f"MODEL.WEIGHTS {model.WEIGHTS} were trained on RGB images, but INPUT.FORMAT is "
            f"{cfg.INPUT.FORMAT}: set it to RGB"
        )
    default = get_cfg().MODEL
    untouched = all(model[key] == default[key] for key in _KEYS)
    if mean and std and not untouched:
        return mean, std
    own = normalization_constants(model.TIMM.NAME, cfg.INPUT.FORMAT)
    return own if untouched else (mean or own[0], std or own[1])


def resolve_pixel_constants(cfg: CfgNode) -> CfgNode:
    """Return a copy of ``cfg`` with the result of :func:`pixel_constants` written into it."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = pixel_constants(cfg)
    return cfg


def check_pixel_constants(cfg: CfgNode) -> None:
    """Check that the constants in ``cfg`` are resolved; backbones call it when they are built.

    Raises:
        UserError: neither the tools nor the meta-architecture resolved them.
    """
    if tuple(list(cfg.MODEL[key]) for key in _KEYS) != pixel_constants(cfg):
        raise UserError(
            f"MODEL.PIXEL_MEAN and PIXEL_STD are not those of timm's {cfg.MODEL.TIMM.NAME}: set "
            "MODEL.META_ARCHITECTURE to ContextModel, which uses the model's own, or set both"
        )
