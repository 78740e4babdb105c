"""``--data``: a configuration for a user's own data.

:mod:`ccsa.engine.data_settings` decides about classes, masks and intensities, and
:mod:`ccsa.engine.data_plan` about the schedule, sizes and limits. What the user wrote always wins,
except for a number of classes that contradicts the data, which is rejected.
"""

import argparse
from collections.abc import Collection
from pathlib import Path

from detectron2.config import CfgNode

from ccsa.data.own import (
    Source,
    dataset_name,
    label_mapping,
    read_source,
    register_own_data,
    reorder,
    source_of,
)
from ccsa.data.statistics import statistics
from ccsa.data.tasks import SEMANTIC, derive
from ccsa.engine.config_files import user_keys
from ccsa.engine.data_plan import Decision, batch_settings, plan
from ccsa.engine.data_settings import data_settings, model_kind
from ccsa.engine.data_table import data_table, settings_table
from ccsa.engine.overlays import overlay_files
from ccsa.engine.stored_classes import in_stored_order, stored_classes
from ccsa.engine.values.check import check_section
from ccsa.errors import UserError
from ccsa.utils.run_folders import overlay_names

__all__ = ["add_data_arguments", "apply_own_data", "data_table", "model_kind"]

_NEED_DATA = ("images", "val", "val_images", "data_format")


def add_data_arguments(parser: argparse.ArgumentParser, *, training: bool = False) -> None:
    """Add ``--data``, the options that go with it, and ``--import`` to the parser of a tool.

    Args:
        parser: the parser of a tool that calls :func:`ccsa.engine.setup_cfg`.
        training: whether the tool trains, so that it takes ``--epochs``.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> add_data_arguments(parser)
        >>> parser.parse_args(["--data", "folder", "--import", "my_blocks.py"]).imports
        ['my_blocks.py']
    """
    group = parser.add_argument_group("your own data and code (docs/OWN_DATA.md)")
    group.add_argument(
        "--data",
        metavar="FOLDER_OR_JSON",
        help="a folder of annotated images, or a COCO JSON file; also the new location of the data "
        "of a run",
    )
    group.add_argument(
        "--data-format",
        default="",
        metavar="NAME",
        help="the format of --data: coco, coco_panoptic, yolo, labelme, class_masks, "
        "instance_labels or voc; detected by default",
    )
    group.add_argument(
        "--images",
        default="",
        metavar="DIR",
        help="the folder of the images of a JSON file; by default that of the file",
    )
    group.add_argument(
        "--val", default="", metavar="JSON", help="the JSON file of the validation set"
    )
    group.add_argument(
        "--val-images",
        default="",
        metavar="DIR",
        help="the folder of the images of --val; by default that of --images",
    )
    if training:
        group.add_argument(
            "--epochs",
            type=int,
            metavar="N",
            help="how often each training image of --data is used; by default this follows from "
            "the number of images",
        )
    group.add_argument(
        "--import",
        dest="imports",
        action="append",
        default=[],
        metavar="FILE_OR_MODULE",
        help="Python code that registers blocks, heads or datasets; may be repeated",
    )


def data_options(args: argparse.Namespace) -> dict[str, object]:
    """Return the options of :func:`add_data_arguments` that a namespace has, by name."""
    names = ("data", *_NEED_DATA, "epochs", "imports")
    return {name: getattr(args, name) for name in names if hasattr(args, name)}


def apply_own_data(
    cfg: CfgNode,
    args: argparse.Namespace,
    written: Collection[str],
    *,
    configured_batch: int = 0,
) -> None:
    """Set all keys that follow from the user's data, and register the data.

    Args:
        cfg: a configuration that is not frozen; changed in place.
        args: with ``data`` and its options, all optional; gets ``data_settings``, a table of the
            keys that were set.
        written: keys that the user wrote, which are not replaced.
        configured_batch: see :func:`ccsa.engine.data_plan.batch_settings`.

    Raises:
        UserError: the data cannot be read, does not suit the model, or contradicts a number of
            classes; or options do not go together.
    """
    check_section(cfg, "DATASETS.OWN.")  # the data is registered before all values are checked
    cfg.DATASETS.LABEL_MAPPING = [dict(label_mapping(cfg))] if cfg.DATASETS.LABEL_MAPPING else []
    given = _given_source(args, cfg)
    epochs = _epochs(args, cfg, written, given)
    if given is None:
        register_own_data(cfg)
        return
    own = cfg.DATASETS.OWN
    replaced = [key for key in getattr(args, "written", ()) if key.startswith("DATASETS.OWN.")]
    if replaced:
        raise UserError(
            f"{replaced[0]} has no effect together with --data, which sets it; remove it"
        )
    data = read_source(given)
    kind = own.KIND or model_kind(cfg)
    task = derive(data, kind)
    is_recorded = bool(own.ROOT)  # the configuration of a run, whose data has moved
    if is_recorded:
        reorder(task, list(own.CLASSES), list(own.STUFF_CLASSES), given.data)
    else:
        found = task.thing_classes, task.stuff_classes
        stored = stored_classes(cfg.MODEL.WEIGHTS)
        own.CLASSES, own.STUFF_CLASSES = map(in_stored_order, found, stored)
        reorder(task, list(own.CLASSES), list(own.STUFF_CLASSES), given.data)
        own.NAME, own.KIND, own.SPLITS = dataset_name(data), kind, list(task.splits)
    own.ROOT, own.FORMAT, own.IMAGES = given.data, given.format, given.images
    own.VAL, own.VAL_IMAGES = given.val, given.val_images
    register_own_data(cfg)
    if is_recorded:
        return
    _set_datasets(cfg, written)
    decisions = [
        Decision(f"DATASETS.OWN.{key}", own[key], "numbered as in MODEL.WEIGHTS")
        for key, names in zip(("CLASSES", "STUFF_CLASSES"), found, strict=True)
        if own[key] != names
    ]
    for decision in batch_settings(cfg, written, configured_batch):
        _set(cfg, decision)
        decisions.append(decision)
    decisions += data_settings(cfg, data, task, written)
    detector = kind != SEMANTIC
    validation = statistics(task, "val") if detector and "val" in task.splits else None
    decisions += plan(
        cfg,
        statistics(task),
        epochs,
        detector=detector,
        written=set(written),
        validation=validation,
    )
    for decision in decisions:
        _set(cfg, decision)
    args.data_settings = settings_table(decisions)


def _epochs(
    args: argparse.Namespace, cfg: CfgNode, written: Collection[str], given: Source | None
) -> int | None:
    """Return the value of ``--epochs``, None by default; check options that need others.

    Raises:
        UserError: the value is below 1, or the options do not go together.
    """
    epochs = getattr(args, "epochs", None)
    if given is None:
        for option in _NEED_DATA:
            if getattr(args, option, ""):
                raise UserError(f"--{option.replace('_', '-')} needs --data")
    if epochs is None:
        return None
    if epochs < 1:
        raise UserError(f"--epochs must be at least 1, not {epochs}")
    if cfg.DATASETS.OWN.ROOT:
        raise UserError(
            "--epochs cannot change the schedule of a run that exists; set SOLVER.MAX_ITER (the "
            f"run has {cfg.SOLVER.MAX_ITER} iterations) and SOLVER.STEPS"
        )
    if given is None:
        raise UserError("--epochs needs --data; without it, set SOLVER.MAX_ITER")
    if "SOLVER.MAX_ITER" in written:
        raise UserError(
            f"--epochs and SOLVER.MAX_ITER ({_origin(args, 'SOLVER.MAX_ITER')}) both set the "
            "length of the run; remove one"
        )
    return epochs


def _origin(args: argparse.Namespace, key: str) -> str:
    """Return where the user wrote a key: the command line, or the name of a file."""
    if key in (getattr(args, "opts", None) or [])[::2]:
        return "on the command line"
    files = [args.config_file, *overlay_files(overlay_names(args), args.config_file)]
    return next((f"in {file}" for file in reversed(files) if key in user_keys(file)), "in a file")


def _given_source(args: argparse.Namespace, cfg: CfgNode) -> Source | None:
    """Return the source that the command line names, with absolute paths."""
    data = getattr(args, "data", None)
    if not data:
        return None

    def absolute(name: str) -> str:
        return str(Path(name).expanduser().absolute()) if name else ""

    return Source(
        absolute(data),
        getattr(args, "data_format", "") or "",
        absolute(getattr(args, "images", "")),
        absolute(getattr(args, "val", "")),
        absolute(getattr(args, "val_images", "")),
        source_of(cfg).mapping,
    )


def _set_datasets(cfg: CfgNode, written: Collection[str]) -> None:
    """Train on the training split and evaluate on the validation split. Of these keys, the user
    may write other splits of the data, or empty lists.

    Raises:
        UserError: the user wrote the name of other data.
    """
    own = cfg.DATASETS.OWN
    known = [f"{own.NAME}_{split}" for split in own.SPLITS]
    for key, split in (("TRAIN", "train"), ("TEST", "val")):
        names = cfg.DATASETS[key]
        if f"DATASETS.{key}" not in written:
            cfg.DATASETS[key] = (f"{own.NAME}_{split}",)
        elif any(name not in known for name in names):
            raise UserError(
                f"DATASETS.{key} {tuple(names)} and --data {own.ROOT} name different data; remove "
                f"one of them (the splits of --data are {', '.join(known)})"
            )


def _set(cfg: CfgNode, decision: Decision) -> None:
    *parents, name = decision.key.split(".")
    for part in parents:
        cfg = cfg[part]
    cfg[name] = decision.value
