"""Checks of the contents of the datasets that a run uses, before it starts."""

import logging

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ccsa.data.checks.dataset import Checked, check_records
from ccsa.data.own import read_source, source_of, task_data
from ccsa.data.problems import check_allowed

logger = logging.getLogger(__name__)

SECONDS = 60.0  # for reading the files of a large dataset


def check_contents(cfg: CfgNode, *, training: bool) -> None:
    """Check every dataset of a run, print a table of what is wrong, and stop at errors.

    Args:
        cfg: the configuration of the run.
        training: whether the training sets are used.

    Raises:
        UserError: an error whose kind is not in ``DATASETS.ALLOW``.
    """
    check_allowed(cfg.DATASETS.ALLOW)
    checked = check_own_data(cfg) if cfg.DATASETS.OWN.ROOT else check_registered(cfg, training)
    if len(checked.problems):
        logger.warning("Problems of the data:\n%s", checked.table())
    if checked.decoded < checked.images:
        logger.info(
            "Of %d images, a sample of %d was decoded; tools/check_dataset.py reads all.",
            *(checked.images, checked.decoded),
        )
    checked.problems.check(cfg.DATASETS.ALLOW)


def check_own_data(cfg: CfgNode, seconds: float | None = SECONDS) -> Checked:
    """Check the user's data that a configuration names."""
    task = task_data(cfg)
    checked = check_records(
        task.splits,
        things=task.thing_classes,
        stuff=task.stuff_classes,
        source=cfg.DATASETS.OWN.ROOT,
        masks=cfg.DATASETS.OWN.KIND != "detection" or cfg.MODEL.MASK_ON,
        seconds=seconds,
    )
    checked.problems.extend(read_source(source_of(cfg)).problems)
    return checked


def check_registered(cfg: CfgNode, training: bool, seconds: float | None = SECONDS) -> Checked:
    """Check registered datasets; the training sets count as one split."""
    splits = {}
    if training:
        splits["train"] = [r for name in cfg.DATASETS.TRAIN for r in DatasetCatalog.get(name)]
    for name in cfg.DATASETS.TEST:
        splits[name] = DatasetCatalog.get(name)
    first = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)[0]
    metadata = MetadataCatalog.get(first)
    return check_records(
        splits,
        things=metadata.get("thing_classes", ()),
        stuff=metadata.get("stuff_classes", ()),
        ignore=metadata.get("ignore_label", 255),
        source=first,
        masks=cfg.MODEL.MASK_ON,
        seconds=seconds,
    )
