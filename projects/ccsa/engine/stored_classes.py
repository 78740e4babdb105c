"""The names of the classes that weights were trained on, which every checkpoint stores, and which
are compared with those of the data.

The layers of two models with equally many classes have the same shapes, so that weights for other
classes would load without an error and give every object a wrong name.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from ccsa.checkpoint import Classes, read_classes
from ccsa.engine.data_settings import class_sections
from ccsa.errors import UserError
from ccsa.utils.run_folders import CONFIG
from ccsa.utils.yaml_files import read_yaml

logger = logging.getLogger(__name__)


def stored_classes(weights: str) -> Classes:
    """Return the classes that weights were trained on: those that the file stores, or else those in
    the ``config.yaml`` of a run on a user's data beside it; empty lists if they are not stored.

    Args:
        weights: the value of ``MODEL.WEIGHTS``.
    """
    found = read_classes(weights)
    if any(found):
        return found
    try:
        file = Path(weights).parent / CONFIG
        content = read_yaml(file) if weights and file.is_file() else {}
        own = content["DATASETS"]["OWN"]
        return Classes(list(own["CLASSES"]), list(own["STUFF_CLASSES"]))
    except (UserError, OSError, KeyError, TypeError):
        return Classes([], [])  # a file of another program


def dataset_classes(datasets: Sequence[str]) -> Classes:
    """Return the classes of registered datasets, which number them alike.

    Args:
        datasets: their names; COCO files must have been loaded.
    """
    if not datasets:
        return Classes([], [])
    metadata = MetadataCatalog.get(datasets[0])
    return Classes(
        list(metadata.get("thing_classes") or ()), list(metadata.get("stuff_classes") or ())
    )


def known_classes(cfg: CfgNode) -> Classes:
    """Return the classes of a trained model: those stored with its weights, or else those of its
    datasets; empty lists if neither is known."""
    stored = stored_classes(cfg.MODEL.WEIGHTS)
    if any(stored):
        return stored
    registered = DatasetCatalog.list()
    names = [name for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) if name in registered]
    found = (dataset_classes([name]) for name in names)
    return next((classes for classes in found if any(classes)), Classes([], []))


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
            f"data has {_shown(names)}; evaluate them on data with their classes, or train on this "
            "data"
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
    current = dataset_classes(datasets)
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
