"""What a registered dataset is evaluated by, and therefore what it is for."""

import logging

from detectron2.data import DatasetCatalog, MetadataCatalog

logger = logging.getLogger(__name__)

SEMANTIC_EVALUATORS = ("sem_seg", "cityscapes_sem_seg")


def evaluator_type(name: str) -> str | None:
    """Return the kind of evaluator of a dataset: that of its metadata, or the one that suits what
    its records contain, which the metadata then states.

    Args:
        name: a dataset; None is returned if it is not registered, or if nothing suits its records.
    """
    metadata = MetadataCatalog.get(name)
    kind = metadata.get("evaluator_type")
    if kind is not None or name not in DatasetCatalog.list():
        return kind
    records = DatasetCatalog.get(name)
    keys = set().union(*records) if records else set()
    if "pan_seg_file_name" in keys and metadata.get("panoptic_json"):
        kind = "coco_panoptic_seg"
    elif "annotations" in keys:
        kind = "coco"
    elif "sem_seg_file_name" in keys:
        kind = "sem_seg"
    if kind is not None:
        logger.info("Dataset '%s' has no evaluator_type; its records suit '%s'.", name, kind)
        metadata.evaluator_type = kind
    return kind


def is_semantic(name: str) -> bool:
    """Return whether a dataset is one of semantic segmentation: a class per pixel, no objects."""
    return evaluator_type(name) in SEMANTIC_EVALUATORS
