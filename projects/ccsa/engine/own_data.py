"""``--data``: a configuration for a user's own data.

The data decides about datasets, classes and masks; :mod:`ccsa.engine.data_plan` about schedule,
sizes and limits. What the user wrote always wins, except for a number of classes that contradicts
the data, which is rejected.
"""

import argparse
import logging
from collections.abc import Collection
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from tabulate import tabulate

from ccsa.data.image_reader import check_range, intensity_percentiles, open_image
from ccsa.data.own import Source, dataset_name, read_source, register_own_data, reorder, source_of
from ccsa.data.statistics import Statistics, statistics
from ccsa.data.tasks import DETECTION, PANOPTIC, SEMANTIC, TaskData, derive
from ccsa.engine.data_plan import Decision, plan
from ccsa.errors import UserError

logger = logging.getLogger(__name__)

# What each of Detectron2's and this project's meta-architectures is trained on.
_KINDS = {
    **dict.fromkeys(("GeneralizedRCNN", "RetinaNet", "FCOS", "ProposalNetwork"), DETECTION),
    **dict.fromkeys(("SemanticSegmentor", "DenseSegmentor"), SEMANTIC),
    "PanopticFPN": PANOPTIC,
}
_SAMPLE = 64  # images that decide about the range of intensities


def add_data_arguments(parser: argparse.ArgumentParser, *, training: bool = False) -> None:
    """Add ``--data`` and the options that go with it to the parser of a tool.

    Args:
        parser: of a tool that calls :func:`ccsa.engine.setup_cfg`.
        training: whether the tool trains, and takes ``--epochs``.
    """
    group = parser.add_argument_group("your own data (docs/OWN_DATA.md)")
    group.add_argument(
        "--data",
        metavar="FOLDER_OR_JSON",
        help="a folder of annotated images, or a COCO JSON file",
    )
    group.add_argument(
        "--data-format", default="", metavar="NAME", help="its format; detected by default"
    )
    group.add_argument("--images", default="", metavar="DIR", help="the images of a JSON file")
    group.add_argument("--val", default="", metavar="JSON", help="the validation JSON file")
    group.add_argument("--val-images", default="", metavar="DIR", help="the images of --val")
    if training:
        group.add_argument(
            "--epochs", type=int, metavar="N", help="how often each training image is used"
        )


def apply_own_data(cfg: CfgNode, args: argparse.Namespace, written: Collection[str]) -> None:
    """Set all keys that follow from the user's data, and register the data.

    Args:
        cfg: a configuration that is not frozen; changed in place.
        args: with ``data`` and its options, all optional.
        written: keys that the user wrote, which are not replaced.

    Raises:
        UserError: the data cannot be read, does not suit the model, or contradicts a number of
            classes; or an option is given without ``--data``.
    """
    epochs = getattr(args, "epochs", None)
    if epochs is not None and epochs < 1:
        raise UserError(f"--epochs must be at least 1, not {epochs}")
    if epochs is not None and "SOLVER.MAX_ITER" in written:
        raise UserError("--epochs and SOLVER.MAX_ITER both set the length of the run; remove one")
    given = _given_source(args, cfg)
    if given is None:
        for option in ("images", "val", "val_images", "data_format"):
            if getattr(args, option, ""):
                raise UserError(f"--{option.replace('_', '-')} needs --data")
        if epochs is not None:
            raise UserError("--epochs needs --data; without it, set SOLVER.MAX_ITER")
        register_own_data(cfg)
        return
    data = read_source(given)
    kind = model_kind(cfg)
    task = derive(data, kind)
    own, known = cfg.DATASETS.OWN, bool(cfg.DATASETS.OWN.ROOT)
    if known:  # a run, whose data has moved
        reorder(task, list(own.CLASSES), list(own.STUFF_CLASSES), given.data)
    else:
        own.CLASSES, own.STUFF_CLASSES = list(task.thing_classes), list(task.stuff_classes)
        own.NAME, own.KIND, own.SPLITS = dataset_name(data), kind, list(task.splits)
    own.ROOT, own.FORMAT, own.IMAGES = given.data, given.format, given.images
    own.VAL, own.VAL_IMAGES = given.val, given.val_images
    register_own_data(cfg)
    if known:
        return
    _set_datasets(cfg, written)
    decisions = _class_counts(cfg, task, written)
    if kind != SEMANTIC:
        cfg.INPUT.MASK_FORMAT = data.mask_format
    decisions += _intensities(cfg, task)
    found = statistics(task)
    decisions += plan(cfg, found, epochs, detector=kind != SEMANTIC)
    if epochs is not None:  # --epochs is the user's word as well
        written = (
            set(written) - {"SOLVER.MAX_ITER"} if "SOLVER.MAX_ITER" not in written else written
        )
    settings = _apply(cfg, decisions, written)
    table = data_table(cfg, data.format, data.root, task, found)
    args.data_report = f"{table}\n\n{settings}"


def model_kind(cfg: CfgNode) -> str:
    """Return what the model of a configuration is trained on: ``detection``, ``semantic`` or
    ``panoptic``.

    Raises:
        UserError: it cannot be trained on a folder of images.
    """
    wrapped = cfg.MODEL.META_ARCHITECTURE == "ContextModel"
    name = cfg.MODEL.CONTEXT.META_ARCHITECTURE if wrapped else cfg.MODEL.META_ARCHITECTURE
    if name in _KINDS:
        return _KINDS[name]
    cls = META_ARCH_REGISTRY.get(name) if name in META_ARCH_REGISTRY else None
    kind = getattr(cls, "data_kind", None)
    if kind in (DETECTION, SEMANTIC, PANOPTIC):
        return kind
    raise UserError(
        f"--data cannot be used with {name}: it is not known what it is trained on; register your "
        "dataset in Python, or give the class an attribute data_kind = 'detection', 'semantic' or "
        "'panoptic'"
    )


def data_table(cfg: CfgNode, format: str, root: Path, task: TaskData, found: Statistics) -> str:
    """Return the table that a run starts with: model, losses, images, classes and their counts."""
    wrapped = cfg.MODEL.META_ARCHITECTURE == "ContextModel"
    model = cfg.MODEL.CONTEXT.META_ARCHITECTURE if wrapped else cfg.MODEL.META_ARCHITECTURE
    rows = [("data", f"{root} ({format})"), ("model", f"{model}, {_losses(cfg, task.kind)}")]
    rows.append(("initial weights", cfg.MODEL.WEIGHTS or "random"))
    rows += [(f"{name} images", f"{len(records):,}") for name, records in task.splits.items()]
    counts = [f"{name} {count:,}" for name, count in found.class_counts.items()]
    shown = ", ".join(counts[:20]) + (f" and {len(counts) - 20} more" if len(counts) > 20 else "")
    unit = "objects" if task.thing_classes else "images"
    rows.append((f"{len(counts)} classes ({unit})", shown))
    return "Your data:\n" + tabulate(rows, tablefmt="plain")


def _losses(cfg: CfgNode, kind: str) -> str:
    """Return what the losses of a model are about, in words."""
    if kind == SEMANTIC:
        return f"a class per pixel ({cfg.MODEL.SEM_SEG_HEAD.NAME})"
    boxes = "boxes and masks" if cfg.MODEL.MASK_ON else "boxes only"
    return boxes if kind == DETECTION else f"{boxes}, and a class per pixel"


def _given_source(args: argparse.Namespace, cfg: CfgNode) -> Source | None:
    """Return the source that the command line names, with absolute paths."""
    data = getattr(args, "data", None)
    if not data:
        return None

    def absolute(name: str) -> str:
        return str(Path(name).expanduser().absolute()) if name else ""

    own = source_of(cfg)  # for the mapping of labels
    return Source(
        absolute(data),
        getattr(args, "data_format", "") or "",
        absolute(getattr(args, "images", "")),
        absolute(getattr(args, "val", "")),
        absolute(getattr(args, "val_images", "")),
        own.mapping,
    )


def _set_datasets(cfg: CfgNode, written: Collection[str]) -> None:
    name = cfg.DATASETS.OWN.NAME
    for key in ("DATASETS.TRAIN", "DATASETS.TEST"):
        if key in written:
            raise UserError(f"{key} and --data name different data; remove one of them")
    cfg.DATASETS.TRAIN = (f"{name}_train",)
    cfg.DATASETS.TEST = (f"{name}_val",)


def _class_counts(cfg: CfgNode, task: TaskData, written: Collection[str]) -> list[Decision]:
    """Return the number of classes of every head.

    Raises:
        UserError: the user wrote another one.
    """
    things, stuff = len(task.thing_classes), len(task.stuff_classes)
    counts = {}
    if things:
        counts["MODEL.ROI_HEADS.NUM_CLASSES"] = things
        counts["MODEL.RETINANET.NUM_CLASSES"] = things
    if stuff:
        counts["MODEL.SEM_SEG_HEAD.NUM_CLASSES"] = stuff
        counts["MODEL.SEM_SEG_HEAD.IGNORE_VALUE"] = 255
    names = task.thing_classes or task.stuff_classes
    for key, count in counts.items():
        if key in written and _value(cfg, key) != count and key.endswith("NUM_CLASSES"):
            raise UserError(
                f"{key} is {_value(cfg, key)}, but the data has {count} classes "
                f"({', '.join(names[:10])}); remove the key, the number follows from the data"
            )
    reason = "the classes of the data"
    decisions = [Decision(key, count, reason) for key, count in counts.items()]
    weights = cfg.MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS
    if stuff and weights and len(weights) != stuff:
        if "MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS" in written:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS has {len(weights)} values for {stuff} classes"
            )
        decisions.append(Decision("MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", [], reason))
    return decisions


def _intensities(cfg: CfgNode, task: TaskData) -> list[Decision]:
    """Return the range of intensities of images with more than 8 bits."""
    value = cfg.INPUT.INTENSITY_RANGE
    if not isinstance(value, str):
        check_range(value)
        return []
    files = [record["file_name"] for record in task.splits["train"]]
    step = max(1, len(files) // _SAMPLE)
    sample = [file for file in files[::step] if _is_deep(file)]
    found = intensity_percentiles(sample) if sample else None
    if found is None:
        return []
    reason = "the 0.1 and 99.9 percentiles of the training images, mapped to 0 and 255"
    return [Decision("INPUT.INTENSITY_RANGE", [round(v, 6) for v in found], reason)]


def _is_deep(file: str) -> bool:
    try:
        return open_image(file)[1] is not None
    except UserError:  # the checks of the dataset report it
        return False


def _apply(cfg: CfgNode, decisions: list[Decision], written: Collection[str]) -> str:
    """Set the keys that the user did not write; return the table of what was decided."""
    rows = []
    for key, value, reason in decisions:
        if key in written:
            continue
        node, name = cfg, key
        while "." in name:
            part, _, name = name.partition(".")
            node = node[part]
        node[name] = value
        rows.append((key, value, reason))
    return "Settings that follow from the data:\n" + tabulate(
        rows, tablefmt="plain", maxcolwidths=[None, 40, 70], disable_numparse=True
    )


def _value(cfg: CfgNode, key: str) -> Any:
    for part in key.split("."):
        cfg = cfg[part]
    return cfg
