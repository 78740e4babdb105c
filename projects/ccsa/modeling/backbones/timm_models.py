"""What is asked of timm before a model is built: whether it is there, names, how pixels are scaled.

timm is imported where it is used; without it the rest of ccsa works.
"""

from typing import Any

from ccsa.errors import UserError, suggestion

# MODEL.WEIGHTS timm://hub: what timm names for the model, from its hub; timm://FILE: a file with
# timm's keys.
SCHEME = "timm://"
HUB = "hub"


def import_timm() -> Any:
    """The package.

    Raises:
        UserError: it is not installed.
    """
    try:
        import timm
    except ImportError as error:
        raise UserError(f"a backbone from timm needs it ({error}): pip install timm") from error
    return timm


def check_name(name: str) -> None:
    """Refuse a name that timm does not have.

    Raises:
        ValueError: with the near misses.
    """
    timm = import_timm()
    model = name.partition(".")[0]
    if model not in timm.list_models():
        hint = suggestion(model, timm.list_models(), listed=0, limit=4)
        raise UserError(f"MODEL.TIMM.NAME: timm has no model '{name}'{hint}")
    tags = timm.list_pretrained(f"{model}.*")
    if model != name and name not in tags:
        raise UserError(f"MODEL.TIMM.NAME: timm has no '{name}'; {model} has {', '.join(tags)}")


def normalisation(name: str, image_format: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of pixels, 0 to 255, that a model was trained with.

    Args:
        name: of the model.
        image_format: ``RGB``, timm's own, or ``BGR``: the order of the channels.
    """
    check_name(name)
    settings = import_timm().models.get_pretrained_cfg(name)
    order = -1 if image_format == "BGR" else 1
    mean, std = (
        [round(255 * value, 4) for value in values][::order]
        for values in (settings.mean, settings.std)
    )
    return mean, std
