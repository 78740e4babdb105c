"""Checks of the datasets that a run uses, before it starts: their contents, classes and
evaluators."""

import logging
import tempfile
import time

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from torch import nn

from ccsa.data.checks.dataset import Checked, check_records
from ccsa.data.checks.own import check_folder
from ccsa.data.checks.registered import check_categories, load_registered
from ccsa.data.image_reader import intensity_range
from ccsa.data.loaders import build_test_mapper, load_records
from ccsa.data.own import read_source, source_of, task_data
from ccsa.data.problems import Problems, check_allowed
from ccsa.errors import UserError
from ccsa.evaluation import build_evaluator

logger = logging.getLogger(__name__)

MOST_SECONDS = 60.0  # for checking a dataset of any size before training
LEAST_SECONDS = 10.0  # for reading files
SECONDS_PER_IMAGE = 0.01


def check_contents(cfg: CfgNode, *, training: bool, report: bool = True) -> Checked:
    """Check every dataset of a run, print a table of what is wrong, and stop at errors.

    Args:
        cfg: the configuration of the run.
        training: whether the training sets are used.
        report: whether this process prints the table.

    Raises:
        UserError: an error whose kind is not in ``DATASETS.ALLOW``, or a dataset that cannot be
            loaded.
    """
    check_allowed(cfg.DATASETS.ALLOW)
    checked = check_own_data(cfg) if cfg.DATASETS.OWN.ROOT else check_registered(cfg, training)
    if report and len(checked.problems):
        print(f"Problems of the data:\n{checked.table()}")
    if report and checked.decoded < checked.images:
        print(
            f"Of {checked.images:,} images, a sample of {checked.decoded:,} was decoded; "
            "tools/check_dataset.py reads all."
        )
    checked.problems.check(cfg.DATASETS.ALLOW)
    return checked


def check_own_data(cfg: CfgNode) -> Checked:
    """Check the user's data that a configuration names."""
    start, task = time.monotonic(), task_data(cfg)
    masks = cfg.DATASETS.OWN.KIND != "detection" or needs_masks(cfg)
    seconds = _budget(sum(map(len, task.splits.values())), start)
    return check_folder(
        read_source(source_of(cfg)),
        task,
        masks=masks,
        intensity_range=intensity_range(cfg.INPUT.INTENSITY_RANGE),
        seconds=seconds,
    )


def check_registered(cfg: CfgNode, training: bool) -> Checked:
    """Check registered datasets; the training sets count as one split."""
    start, problems = time.monotonic(), Problems()
    train = tuple(cfg.DATASETS.TRAIN) if training else ()
    names = dict.fromkeys((*train, *cfg.DATASETS.TEST))
    records = {name: load_registered(name, problems, cfg.DATASETS.ALLOW) for name in names}
    splits = {"train": [r for name in train for r in records[name]]} if train else {}
    splits |= {name: records[name] for name in cfg.DATASETS.TEST if name not in train}
    if not splits:
        return Checked(problems)
    metadata = MetadataCatalog.get(next(iter(names)))
    checked = check_records(
        splits,
        things=metadata.get("thing_classes", ()),
        stuff=metadata.get("stuff_classes", ()),
        ignore=metadata.get("ignore_label", 255),
        source=", ".join(names),
        masks=needs_masks(cfg),
        intensity_range=intensity_range(cfg.INPUT.INTENSITY_RANGE),
        seconds=_budget(sum(map(len, splits.values())), start),
    )
    problems.extend(checked.problems)
    return Checked(problems, checked.images, checked.decoded)


def check_classes(cfg: CfgNode, model: nn.Module, *, training: bool) -> None:
    """Compare the classes of all datasets with each other and with the heads of the model.

    Args:
        cfg: the configuration of the run.
        model: of that configuration; on any device.
        training: whether the training sets are used.

    Raises:
        UserError: two datasets number their classes differently, or a head has another number of
            classes than a dataset.
    """
    train = tuple(cfg.DATASETS.TRAIN) if training else ()
    heads = _heads(cfg, model)
    for field, what in (("thing_classes", "classes"), ("stuff_classes", "classes of pixels")):
        if field not in heads:
            continue
        known = {
            name: MetadataCatalog.get(name).get(field) for name in (*train, *cfg.DATASETS.TEST)
        }
        named = {name: list(classes) for name, classes in known.items() if classes}
        check_categories(
            {name: named[name] for name in train if name in named},
            {name: named[name] for name in cfg.DATASETS.TEST if name in named},
            what,
        )
        key, count = heads[field]
        for name, classes in named.items():
            if len(classes) != count:
                listed = ", ".join(classes[:5]) + (", ..." if len(classes) > 5 else "")
                raise UserError(
                    f"{key} is {count}, but dataset '{name}' has {len(classes)} {what} ({listed}); "
                    f"set {key} {len(classes)}"
                )


def check_evaluation(cfg: CfgNode) -> None:
    """Build the evaluator of every test dataset, and prepare a record of each as in evaluation.

    Raises:
        UserError: the metadata of a dataset lack what its evaluator needs, or a record cannot be
            prepared.
    """
    mapper = build_test_mapper(cfg)
    for name in cfg.DATASETS.TEST:
        with tempfile.TemporaryDirectory() as folder:
            build_evaluator(
                name,
                folder,
                max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
                boundary=cfg.TEST.BOUNDARY_AP,
            )
        records = load_records(cfg, name)
        if not records:
            raise UserError(f"dataset '{name}' has no images; check its annotations")
        mapper(records[0])


def _heads(cfg: CfgNode, model: nn.Module) -> dict[str, tuple[str, int]]:
    """Return the key and number of classes of the heads that a model has, by the field of the
    metadata that lists the classes."""
    heads = {}
    if hasattr(model, "roi_heads"):
        heads["thing_classes"] = ("MODEL.ROI_HEADS.NUM_CLASSES", cfg.MODEL.ROI_HEADS.NUM_CLASSES)
    elif type(model).__name__ in ("RetinaNet", "FCOS"):
        name = type(model).__name__.upper()
        heads["thing_classes"] = (f"MODEL.{name}.NUM_CLASSES", cfg.MODEL[name].NUM_CLASSES)
    if hasattr(model, "sem_seg_head"):
        count = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        heads["stuff_classes"] = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", count)
    return heads


def needs_masks(cfg: CfgNode) -> bool:
    """Whether the model is trained on the masks of objects."""
    wrapped = cfg.MODEL.META_ARCHITECTURE == "ContextModel"
    name = cfg.MODEL.CONTEXT.META_ARCHITECTURE if wrapped else cfg.MODEL.META_ARCHITECTURE
    return cfg.MODEL.MASK_ON and name in ("GeneralizedRCNN", "PanopticFPN")


def _budget(images: int, start: float) -> float:
    """Return how many seconds remain for reading the files of a dataset."""
    wanted = max(LEAST_SECONDS, SECONDS_PER_IMAGE * images)
    elapsed = time.monotonic() - start
    return max(1.0, min(wanted, MOST_SECONDS - elapsed))
