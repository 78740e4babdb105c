"""How a model scales pixels: one rule for the command line, the model and the augmentation."""

from detectron2.config import CfgNode, get_cfg

from ccsa.errors import UserError
from ccsa.modeling.backbones.timm_models import SCHEME, normalisation

_KEYS = ("PIXEL_MEAN", "PIXEL_STD")


def pixel_constants(cfg: CfgNode) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel: those of ``cfg.MODEL``; with a backbone from
    timm those that it was trained with, where they are empty or both left at Detectron2's default.

    Raises:
        UserError: none are given and the backbone has none of its own, it is not known to timm, or
            its weights need another ``INPUT.FORMAT``.
    """
    model = cfg.MODEL
    mean, std = (list(model[key]) for key in _KEYS)
    if "timm" not in model.BACKBONE.NAME:
        if not (mean and std):
            raise UserError(
                f"MODEL.PIXEL_MEAN {mean} and PIXEL_STD {std} need a value for each channel: "
                f"{model.BACKBONE.NAME} has none of its own, as a backbone from timm has"
            )
        return mean, std
    if model.WEIGHTS.startswith(SCHEME) and cfg.INPUT.FORMAT != "RGB":
        raise UserError(
            f"MODEL.WEIGHTS {model.WEIGHTS} are of RGB images, but INPUT.FORMAT is "
            f"{cfg.INPUT.FORMAT}: make that RGB"
        )
    default = get_cfg().MODEL
    untouched = all(model[key] == default[key] for key in _KEYS)
    if mean and std and not untouched:
        return mean, std
    try:
        own = normalisation(model.TIMM.NAME, cfg.INPUT.FORMAT)
    except ValueError as error:
        raise UserError(str(error)) from error
    return own if untouched else (mean or own[0], std or own[1])


def with_pixel_constants(cfg: CfgNode) -> CfgNode:
    """A copy of ``cfg`` that has them written out."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = pixel_constants(cfg)
    return cfg


def check_pixels(cfg: CfgNode) -> None:
    """Refuse, where a model is being built, constants that are not written out.

    Raises:
        ValueError: its meta-architecture did not do so.
    """
    if tuple(list(cfg.MODEL[key]) for key in _KEYS) != pixel_constants(cfg):
        raise ValueError(
            f"MODEL.PIXEL_MEAN and PIXEL_STD are not those of timm's {cfg.MODEL.TIMM.NAME}: make "
            "MODEL.META_ARCHITECTURE ContextModel, which takes the model's own, or set both"
        )
