"""The names of the classes that weights were trained on, which a run on a user's data stores in the
``config.yaml`` beside its weights.

The layers of two models with equally many classes have the same shapes, so that weights for other
classes would load without an error and give every object a wrong name.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import yaml
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model

from ccsa.engine.data_settings import class_sections
from ccsa.errors import UserError
from ccsa.utils.run_folders import CONFIG

logger = logging.getLogger(__name__)


class Classes(NamedTuple):
    """Names of classes.

    Attributes:
        things: classes of objects.
        stuff: classes of pixels.
    """

    things: list[str]
    stuff: list[str]


def stored_classes(weights: str) -> Classes:
    """Return the classes that weights were trained on; empty lists if they are not stored.

    Args:
        weights: the value of ``MODEL.WEIGHTS``.
    """
    try:
        content = yaml.safe_load((Path(weights).parent / CONFIG).read_text()) if weights else {}
        own = content["DATASETS"]["OWN"]
        return Classes(list(own["CLASSES"]), list(own["STUFF_CLASSES"]))
    except (OSError, UnicodeError, yaml.YAMLError, KeyError, TypeError):
        return Classes([], [])  # a file of another program


def in_stored_order(names: Sequence[str], stored: Sequence[str]) -> list[str]:
    """Return the names in the stored order, if both have the same names.

    Example:
        >>> in_stored_order(["a", "b"], ["b", "a"]), in_stored_order(["a", "b"], ["b", "c"])
        (['b', 'a'], ['a', 'b'])
    """
    return list(stored if sorted(names) == sorted(stored) else names)


def check_stored_classes(cfg: CfgNode) -> None:
    """Check that weights to be evaluated were trained on the classes of the test datasets.

    Raises:
        UserError: they were trained on other ones, or on the same in another order.
    """
    for stored, names in _different(cfg, cfg.DATASETS.TEST).values():
        raise UserError(
            f"weights {cfg.MODEL.WEIGHTS} were trained on the classes {_shown(stored)}, but the "
            f"data has {_shown(names)}; evaluate with the config.yaml beside the weights on data "
            "with these classes, or train on this data"
        )


def class_layers_to_restart(cfg: CfgNode) -> set[str]:
    """Return the tensors of the model that depend on classes which ``MODEL.WEIGHTS`` was not
    trained on, and log them."""
    different = _different(cfg, cfg.DATASETS.TRAIN)
    keys = _tensors_by_classes(cfg, list(different)) if different else set()
    for stored, names in different.values():
        layers = sorted({key.rpartition(".")[0] for key in keys})
        logger.warning(
            f"{cfg.MODEL.WEIGHTS} was trained on the classes {_shown(stored)}, and this data has "
            f"{_shown(names)}: the layers that depend on classes start from random weights: "
            f"{', '.join(layers)}"
        )
    return keys


def _different(cfg: CfgNode, datasets: Sequence[str]) -> dict[str, tuple[list[str], list[str]]]:
    """Return the stored names and those of the data, by section of ``MODEL``, if they differ."""
    stored = stored_classes(cfg.MODEL.WEIGHTS)
    if not datasets or not any(stored):
        return {}
    metadata = MetadataCatalog.get(datasets[0])
    current = Classes(
        list(metadata.get("thing_classes") or ()), list(metadata.get("stuff_classes") or ())
    )
    result = {}
    for section, field in class_sections(cfg, bool(current.things)).items():
        before, names = getattr(stored, field), getattr(current, field)
        if before and names and before != names:
            result[section] = before, names
    return result


def _tensors_by_classes(cfg: CfgNode, sections: Sequence[str]) -> set[str]:
    """Return the keys of the tensors whose shapes depend on the number of classes."""
    shapes = []
    for added in (0, 1):
        other = cfg.clone()
        other.defrost()
        other.MODEL.DEVICE = "meta"
        other.MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS = []
        for section in sections:
            other.MODEL[section].NUM_CLASSES += added
        with torch.device("meta"):
            state = build_model(other).state_dict()
        shapes.append({key: tensor.shape for key, tensor in state.items()})
    return {key for key, shape in shapes[0].items() if shapes[1].get(key) != shape}


def _shown(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
