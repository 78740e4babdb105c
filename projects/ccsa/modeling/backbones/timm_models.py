"""Queries to timm that need no model: its presence, model names, and normalization constants.

timm is imported when it is used; without it the rest of ccsa works.
"""

from typing import Any

from ccsa.errors import MissingPackageError, UserError, missing_package, suggestion

# MODEL.WEIGHTS timm://hub stands for the weights that timm names for the model, fetched from its
# hub; timm://FILE stands for a file with timm's keys.
SCHEME = "timm://"
HUB = "hub"


def import_timm() -> Any:
    """Return the package timm.

    Raises:
        MissingPackageError: it is not installed, or cannot be imported.
    """
    install = "pip install '.[timm]' in a clone of ccsa"
    try:
        import timm
    except ModuleNotFoundError as error:
        if error.name == "timm":
            raise missing_package("A timm backbone", "timm", install) from error
        raise MissingPackageError(f"timm cannot be imported ({error}): run {install}") from error
    except ImportError as error:
        raise MissingPackageError(f"timm cannot be imported ({error}): run {install}") from error
    return timm


def check_name(name: str) -> None:
    """Check that timm has a model of this name, and weights of its tag if there is one.

    Raises:
        UserError: it has not; the message lists near misses, or the tags of the model.
    """
    timm = import_timm()
    model = name.partition(".")[0]
    if model not in timm.list_models():
        hint = suggestion(model, timm.list_models(), listed=0, limit=4)
        raise UserError(f"MODEL.TIMM.NAME: timm has no model '{name}'{hint}")
    tags = timm.list_pretrained(f"{model}.*")
    if model != name and name not in tags:
        raise UserError(f"MODEL.TIMM.NAME: timm has no '{name}'; {model} has {', '.join(tags)}")


def normalization_constants(name: str, image_format: str) -> tuple[list[float], list[float]]:
    """Return the pixel mean and standard deviation that a model was trained with.

    Args:
        name: the name of the model, with or without a tag.
        image_format: the order of the channels, ``RGB`` (timm's own) or ``BGR``.

    Returns:
        Two lists with one value for each channel, for pixels from 0 to 255.

    Raises:
        UserError: timm is not installed, or does not have the model.
    """
    check_name(name)
    settings = import_timm().models.get_pretrained_cfg(name)
    order = -1 if image_format == "BGR" else 1
    mean, std = (
        [round(255 * value, 4) for value in values][::order]
        for values in (settings.mean, settings.std)
    )
    return mean, std
