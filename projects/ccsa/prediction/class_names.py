"""The names, colors and COCO ids of the classes of a trained model.

The names are those stored with the weights, or else those of the datasets of the configuration.
Names whose number is not that of the model's classes belong to something else, and numbers are
used instead: a number is better than a wrong name.
"""

from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata

from ccsa.checkpoint import Classes
from ccsa.engine.data_settings import class_sections
from ccsa.engine.stored_classes import known_classes
from ccsa.visualization.painter import fill_metadata

_FIELDS = {"things": "thing_classes", "stuff": "stuff_classes"}


def model_classes(cfg: CfgNode) -> Classes:
    """Return the names of the classes that a model predicts, in the order of their numbers.

    Args:
        cfg: the configuration of the model, with its weights in ``MODEL.WEIGHTS``.

    Returns:
        ``things`` is empty for a model that finds no objects, ``stuff`` for one that does not
        classify pixels.
    """
    known = known_classes(cfg)
    counts: dict[str, list[int]] = {"things": [], "stuff": []}
    for section, field in class_sections(cfg, bool(known.things) or not known.stuff).items():
        counts[field].append(cfg.MODEL[section].NUM_CLASSES)
    return Classes(*(_named(getattr(known, field), counts[field]) for field in Classes._fields))


def _named(names: Sequence[str], counts: Sequence[int]) -> list[str]:
    """Return the names if a head has as many classes, else numbers as text."""
    if not counts or len(names) in counts:
        return list(names) if counts else []
    return [str(number) for number in range(max(counts))]


def drawing_metadata(cfg: CfgNode, classes: Classes) -> Metadata:
    """Return names and colors for drawing: the colors of the first dataset of the configuration
    that has these classes, or else hues at equal distances."""
    known: dict[str, object] = {}
    for dataset in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        metadata = MetadataCatalog.get(dataset)
        if all(_has(metadata, field, names) for field, names in classes._asdict().items() if names):
            known = metadata.as_dict()
            break
    for field, names in classes._asdict().items():
        if names:
            known[_FIELDS[field]] = list(names)
    return fill_metadata(known)


def category_ids(cfg: CfgNode, things: Sequence[str]) -> list[int]:
    """Return the COCO id of each class of objects: those of the first dataset of the configuration
    that has these classes and states its ids, or else 1, 2, 3, ..."""
    for dataset in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        metadata = MetadataCatalog.get(dataset)
        numbers = metadata.get("thing_dataset_id_to_contiguous_id") or {}
        ids = {number: category for category, number in numbers.items()}
        if _has(metadata, "things", things) and sorted(ids) == list(range(len(things))):
            return [ids[number] for number in range(len(things))]
    return list(range(1, len(things) + 1))


def _has(metadata: Metadata, field: str, names: Sequence[str]) -> bool:
    return list(metadata.get(_FIELDS[field]) or ()) == list(names)
