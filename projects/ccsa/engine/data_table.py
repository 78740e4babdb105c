"""The tables that a run on a user's own data starts with."""

from collections.abc import Sequence

from detectron2.config import CfgNode

from ccsa.data.own import read_source, source_of, task_data
from ccsa.data.statistics import Statistics, statistics
from ccsa.data.tasks import DETECTION, PANOPTIC, SEMANTIC, TaskData
from ccsa.engine.data_plan import Decision
from ccsa.engine.model_parts import architecture, block_lists
from ccsa.utils.tables import wrapped_table

_MOST = 20  # classes that are listed
_WIDTHS = [None, 40, 70]


def data_table(cfg: CfgNode) -> str:
    """Return the table that a run starts with: data, model, losses, initial weights, images, and
    classes with their counts; empty for a run on registered datasets.

    Args:
        cfg: a configuration with ``DATASETS.OWN``.

    Raises:
        UserError: the data has moved or cannot be read.
    """
    own = cfg.DATASETS.OWN
    if not own.ROOT:
        return ""
    task = task_data(cfg)
    data = read_source(source_of(cfg))
    found = statistics(task)
    created = {"val": " (taken from the training images)"} if data.created else {}
    rows = [
        ("data", f"{own.ROOT} (format {data.format})"),
        ("model", _model(cfg)),
        ("losses", _losses(cfg, task)),
        ("initial weights", cfg.MODEL.WEIGHTS or "random"),
    ]
    for name, records in task.splits.items():
        text = f"{len(records):,}{created.get(name, '')}"
        empty = int((found.counts == 0).sum())
        if name == "train" and task.thing_classes and empty:
            left_out = cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
            text += f", {empty:,} of them without objects" + ", left out" * left_out
        rows.append((f"{name} images", text))
    rows.append((f"classes ({len(found.class_counts)})", _classes(task, found)))
    return "Your data:\n" + wrapped_table(rows, [None, 100])


def settings_table(decisions: Sequence[Decision]) -> str:
    """Return the table of the keys that follow from the data, each with its reason."""
    return "Settings that follow from the data:\n" + wrapped_table(decisions, _WIDTHS)


def _model(cfg: CfgNode) -> str:
    blocks = [spec.get("block") for key in block_lists(cfg) for spec in _value(cfg, key)]
    return architecture(cfg) + (f" with {', '.join(map(str, blocks))}" if blocks else "")


def _losses(cfg: CfgNode, task: TaskData) -> str:
    """Return the losses of a model in words."""
    head = cfg.MODEL.SEM_SEG_HEAD
    if task.kind == SEMANTIC:
        words = [f"cross entropy of the class of each pixel ({head.NAME})"]
        if head.NAME == "SANetHead":
            words = ["the mask, categorical and dense losses of SANet"]
        elif head.AUX.WEIGHT and head.NAME in ("CCNetHead", "FCNHead"):
            words.append("an auxiliary cross entropy")
        return ", ".join(words + ["the category consistent loss"] * bool(head.CCL.ENABLED))
    if architecture(cfg) == "RetinaNet":
        return "classes and boxes of anchors"
    words = ["proposals", "classes", "boxes"] + ["masks"] * bool(cfg.MODEL.MASK_ON)
    words += ["the class of each pixel"] * (task.kind == PANOPTIC)
    return ", ".join(words) + ("" if cfg.MODEL.MASK_ON or task.kind != DETECTION else " (no masks)")


def _classes(task: TaskData, found: Statistics) -> str:
    """Return the classes with their counts."""
    things = bool(task.thing_classes)
    unit = "objects" if things else "images"
    if not things and found.counted < found.images:
        unit += f" of a sample of {found.counted}"
    counts = [f"{name} {count:,}" for name, count in found.class_counts.items()]
    text = ", ".join(counts[:_MOST])
    if len(counts) > _MOST:
        text += f" and {len(counts) - _MOST} more"
    if things and task.stuff_classes[1:]:
        text += f"; pixels: {', '.join(task.stuff_classes[1 : _MOST + 1])}"
    return f"{text} ({unit})"


def _value(cfg: CfgNode, key: str) -> list:
    node = cfg
    for part in key.split("."):
        node = node[part]
    return list(node)
