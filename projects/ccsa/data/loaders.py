"""The data loaders of a configuration.

Only this module distinguishes the data of image models from that of video models: a model whose
meta-architecture declares ``takes_clips = True`` gets clips of frames, and an image model never
runs any of the code in :mod:`ccsa.data.video`.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    MetadataCatalog,
    build_detection_test_loader,
    build_detection_train_loader,
    get_detection_dataset_dicts,
)

from ccsa.data.mapper import ReportingMapper, SemanticMapper
from ccsa.data.video.clips import with_clips
from ccsa.data.video.mapper import ClipMapper
from ccsa.errors import UserError
from ccsa.modeling.clip import Clip, takes_clips

SEMANTIC_EVALUATORS = ("sem_seg", "cityscapes_sem_seg")


def build_train_loader(cfg: CfgNode) -> Iterable[list[dict[str, Any]]]:
    """Return the loader of ``DATASETS.TRAIN``, an endless stream of batches.

    Raises:
        UserError: see :func:`build_train_mapper` and :func:`clip_records`.
    """
    clips = clip_records(cfg, cfg.DATASETS.TRAIN)
    dataset = {} if clips is None else {"dataset": clips}
    return build_detection_train_loader(cfg, mapper=build_train_mapper(cfg), **dataset)


def build_test_loader(cfg: CfgNode, name: str) -> Iterable[list[dict[str, Any]]]:
    """Return the loader that evaluates the dataset ``name``, each record once.

    Raises:
        UserError: see :func:`clip_records`.
    """
    clips = clip_records(cfg, [name])
    dataset = {} if clips is None else {"dataset": clips}
    return build_detection_test_loader(cfg, name, mapper=build_test_mapper(cfg), **dataset)


def build_train_mapper(cfg: CfgNode) -> DatasetMapper:
    """Return the training mapper: ClipMapper for a video model, otherwise the one that
    ``INPUT.MAPPER`` names. "auto" means "semantic" if every training dataset is one of semantic
    segmentation, and "detection" otherwise.

    Raises:
        UserError: ``INPUT.MAPPER`` has another value, or a key of the augmentation is out of range
            or would have no effect.
    """
    name = cfg.INPUT.MAPPER
    if name not in ("auto", "semantic", "detection"):
        raise UserError(f"INPUT.MAPPER '{name}' is not one of auto, semantic, detection")
    if takes_clips(cfg):
        return ClipMapper(cfg, is_train=True)
    if name == "semantic" or (name == "auto" and _all_semantic(cfg.DATASETS.TRAIN)):
        return SemanticMapper(cfg, is_train=True)
    keys = cfg.INPUT.SEM_SEG
    if keys.SCALE_RANGE or keys.COLOR_JITTER.ENABLED:
        raise UserError(
            f"INPUT.SEM_SEG has no effect on {', '.join(cfg.DATASETS.TRAIN)}, because training "
            "uses the augmentation of detection; set INPUT.MAPPER semantic"
        )
    return ReportingMapper(cfg, is_train=True)


def build_test_mapper(cfg: CfgNode) -> DatasetMapper:
    """Return the mapper of evaluation."""
    return (ClipMapper if takes_clips(cfg) else ReportingMapper)(cfg, is_train=False)


def load_records(cfg: CfgNode, name: str) -> list[dict[str, Any]]:
    """Return the records of a dataset in Detectron2's format, with clips for a video model.

    Raises:
        UserError: see :func:`clip_records`.
    """
    clips = clip_records(cfg, [name])
    return DatasetCatalog.get(name) if clips is None else clips


def clip_records(cfg: CfgNode, names: Sequence[str]) -> list[dict[str, Any]] | None:
    """Return the records of the datasets, each with its clip, or None if the model takes images.

    Raises:
        UserError: the datasets or the settings give no clips; see
            :func:`ccsa.data.video.clips.with_clips`.
    """
    if not takes_clips(cfg):
        return None
    return with_clips(get_detection_dataset_dicts(list(names)), Clip.of(cfg))


def _all_semantic(names: Sequence[str]) -> bool:
    kinds = [MetadataCatalog.get(name).get("evaluator_type") for name in names]
    return bool(kinds) and all(kind in SEMANTIC_EVALUATORS for kind in kinds)
