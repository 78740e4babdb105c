"""Classes, masks and intensities: the settings of a model that its data dictates."""

from collections.abc import Collection
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from ccsa.data.folder import FolderDataset
from ccsa.data.image_reader import check_range
from ccsa.data.statistics import training_intensities
from ccsa.data.tasks import DETECTION, IGNORE, PANOPTIC, SEMANTIC, TaskData
from ccsa.engine.data_plan import Decision
from ccsa.engine.model_parts import architecture
from ccsa.errors import UserError, suggestion

# What each of Detectron2's and this project's meta-architectures is trained on.
_KINDS = {
    **dict.fromkeys(("GeneralizedRCNN", "RetinaNet", "FCOS", "ProposalNetwork"), DETECTION),
    **dict.fromkeys(("SemanticSegmentor", "DenseSegmentor"), SEMANTIC),
    "PanopticFPN": PANOPTIC,
}
_SEMANTIC_HEAD = "SEM_SEG_HEAD"
_REASON = "the classes of the data"


def model_kind(cfg: CfgNode) -> str:
    """Return what the model of a configuration is trained on: ``detection``, ``semantic`` or
    ``panoptic``.

    A meta-architecture of the user declares it by the class attribute ``data_kind``.

    Raises:
        UserError: the model cannot be trained on a folder of images.
    """
    name = architecture(cfg)
    if name in _KINDS:
        return _KINDS[name]
    if name not in META_ARCH_REGISTRY:
        known = [other for other, _ in META_ARCH_REGISTRY]
        raise UserError(
            f"there is no meta-architecture '{name}'{suggestion(name, known, listed=0)}; if it is "
            "your own, name the file that registers it by --import FILE"
        )
    cls = META_ARCH_REGISTRY.get(name)
    if getattr(cls, "takes_clips", False):
        raise UserError(
            f"--data cannot be used with {name}, which is trained on clips of videos; use an image "
            "model, e.g. configs/own/ccnet.yaml"
        )
    kind = getattr(cls, "data_kind", None)
    if kind in (DETECTION, SEMANTIC, PANOPTIC):
        return kind
    raise UserError(
        f"--data cannot be used with {name}, because it is not known what it is trained on; give "
        "the class an attribute data_kind = 'detection', 'semantic' or 'panoptic', or register "
        "your dataset in Python and name it in DATASETS.TRAIN"
    )


def data_settings(
    cfg: CfgNode, data: FolderDataset, task: TaskData, written: Collection[str]
) -> list[Decision]:
    """Return the keys that the data dictates.

    Args:
        cfg: the configuration.
        data: the data, for the format of its masks.
        task: the data as the model is trained on it.
        written: the keys that the user wrote.

    Raises:
        UserError: the user wrote a number of classes that contradicts the data.
    """
    decisions = _class_counts(cfg, task, written)
    # Polygons can be trained as bitmasks, but bitmasks not as polygons.
    is_bound = data.mask_format == "bitmask" or "INPUT.MASK_FORMAT" not in written
    if task.kind != SEMANTIC and data.mask_format != cfg.INPUT.MASK_FORMAT and is_bound:
        reason = f"how the masks of the data are stored ({data.format})"
        decisions.append(Decision("INPUT.MASK_FORMAT", data.mask_format, reason))
    return decisions + _intensities(cfg, task)


def _class_counts(cfg: CfgNode, task: TaskData, written: Collection[str]) -> list[Decision]:
    """Return the number of classes of every head of the model, and what depends on it.

    Raises:
        UserError: the user wrote another number.
    """
    things, stuff = task.thing_classes, task.stuff_classes
    decisions = []
    for section, field in class_sections(cfg, bool(things)).items():
        names = things if field == "things" else stuff
        key = f"MODEL.{section}.NUM_CLASSES"
        if names and key in written and len(names) != cfg.MODEL[section].NUM_CLASSES:
            raise UserError(
                f"{key} is {cfg.MODEL[section].NUM_CLASSES}, but the data has {len(names)} classes "
                f"({_shown(names)}); remove the key, because the number follows from the data"
            )
        if names:
            decisions.append(Decision(key, len(names), f"{_REASON}: {_shown(names)}"))
    if not stuff:
        return decisions
    head = cfg.MODEL.SEM_SEG_HEAD
    if head.IGNORE_VALUE != IGNORE:
        reason = "the value of pixels without a class"
        decisions.append(Decision("MODEL.SEM_SEG_HEAD.IGNORE_VALUE", IGNORE, reason))
    key = "MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS"
    if head.CLASS_WEIGHTS and key not in written:
        decisions.append(Decision(key, [], "the weights of a project's config are for its data"))
    elif head.CLASS_WEIGHTS and len(head.CLASS_WEIGHTS) != len(stuff):
        raise UserError(
            f"{key} has {len(head.CLASS_WEIGHTS)} values, but the data has {len(stuff)} classes "
            f"({_shown(stuff)}); give one weight per class, or remove the key"
        )
    return decisions


def class_sections(cfg: CfgNode, has_things: bool) -> dict[str, str]:
    """Return which classes the heads of a model predict: ``things`` or ``stuff``, by the section of
    ``MODEL`` that has their number.

    Args:
        cfg: the configuration.
        has_things: whether the data has classes of objects.
    """
    return {
        section: "stuff" if section == _SEMANTIC_HEAD or not has_things else "things"
        for section in _used_heads(cfg)
    }


def _used_heads(cfg: CfgNode) -> list[str]:
    """Return the sections of ``MODEL`` with a number of classes that the model uses.

    Of a meta-architecture that is not Detectron2's, these are all of them, also those that the
    user's code has added.
    """
    name = architecture(cfg)
    unused = {
        "GeneralizedRCNN": ("RETINANET", _SEMANTIC_HEAD, "FCOS"),
        "ProposalNetwork": ("RETINANET", _SEMANTIC_HEAD, "FCOS"),
        "RetinaNet": ("ROI_HEADS", _SEMANTIC_HEAD, "FCOS"),
        "FCOS": ("ROI_HEADS", _SEMANTIC_HEAD, "RETINANET"),
        "PanopticFPN": ("RETINANET", "FCOS"),
        "SemanticSegmentor": ("ROI_HEADS", "RETINANET", "FCOS"),
        "DenseSegmentor": ("ROI_HEADS", "RETINANET", "FCOS"),
    }.get(name, ())
    sections = [s for s, node in cfg.MODEL.items() if isinstance(node, CfgNode)]
    return [s for s in sections if "NUM_CLASSES" in cfg.MODEL[s] and s not in unused]


def _shown(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _intensities(cfg: CfgNode, task: TaskData) -> list[Decision]:
    """Return the range of intensities of images with more than 8 bits."""
    value: Any = cfg.INPUT.INTENSITY_RANGE
    if not isinstance(value, str):
        check_range(value)
        return []
    found = training_intensities(task)
    if found is None:
        return []
    reason = (
        f"the 0.1 and 99.9 percentiles of {found.images} training images of more than 8 bits, "
        "mapped to 0 and 255"
    )
    return [Decision("INPUT.INTENSITY_RANGE", list(found.range), reason)]
