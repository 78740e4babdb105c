"""The data loaders of a configuration.

Only this module distinguishes the data of image models from that of video models: a model whose
meta-architecture declares ``takes_clips = True`` gets clips of frames, and an image model never
runs any of the code in :mod:`ccsa.data.video`.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import (
    DatasetCatalog,
    DatasetMapper,
    build_detection_test_loader,
    get_detection_dataset_dicts,
)
from detectron2.data.build import _train_loader_from_config
from detectron2.data.detection_utils import build_augmentation
from detectron2.utils import comm

from ccsa.data.evaluator_types import is_semantic
from ccsa.data.mapper import ReportingMapper, SemanticMapper
from ccsa.data.sample_stream import TrainLoader
from ccsa.data.tile_records import tile_records
from ccsa.data.video.clips import with_clips
from ccsa.data.video.mapper import ClipMapper
from ccsa.errors import UserError
from ccsa.modeling.clip import Clip, takes_clips
from ccsa.utils.parent_process import end_worker_with_parent

logger = logging.getLogger(__name__)


def build_train_loader(cfg: CfgNode) -> TrainLoader:
    """Return the loader of ``DATASETS.TRAIN``, an endless stream of batches.

    Its seed is ``SEED``, or a random one that all processes share if that is negative.

    Raises:
        UserError: see :func:`build_train_mapper` and :func:`clip_records`.
    """
    chosen = clip_records(cfg, cfg.DATASETS.TRAIN)
    mapper = build_train_mapper(cfg)
    if chosen is None and mapper.use_instance_mask and mapper.instance_mask_format == "polygon":
        records = [record for name in cfg.DATASETS.TRAIN for record in DatasetCatalog.get(name)]
        if has_encoded_masks(records):
            logger.info("Masks are run-length encoded, so INPUT.MASK_FORMAT bitmask is used.")
            mapper.instance_mask_format = "bitmask"
    if cfg.INPUT.TILES.ENABLED:
        chosen = _training_tiles(cfg)
    parts = _train_loader_from_config(cfg, mapper=mapper, dataset=chosen)
    return TrainLoader(
        parts["dataset"],
        parts["mapper"],
        parts["sampler"],
        parts["total_batch_size"] // comm.get_world_size(),
        cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed(),
        group_shapes=parts["aspect_ratio_grouping"],
        num_workers=parts["num_workers"],
    )


def _training_tiles(cfg: CfgNode) -> list[dict[str, Any]]:
    """Return the records of the tiles of the training images."""
    keys, filtered = cfg.INPUT.TILES, cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS
    images = get_detection_dataset_dicts(list(cfg.DATASETS.TRAIN), filter_empty=filtered)
    tiles = tile_records(images, keys.SIZE, keys.OVERLAP, keys.MIN_VISIBLE, keep_empty=not filtered)
    logger.info("training on %d tiles of %d images", len(tiles), len(images))
    return tiles


def build_test_loader(cfg: CfgNode, name: str) -> Iterable[list[dict[str, Any]]]:
    """Return the loader that evaluates the dataset ``name``, each record once.

    Raises:
        UserError: see :func:`clip_records`.
    """
    clips = clip_records(cfg, [name])
    dataset = {} if clips is None else {"dataset": clips}
    loader = build_detection_test_loader(cfg, name, mapper=build_test_mapper(cfg), **dataset)
    loader.worker_init_fn = end_worker_with_parent
    return loader


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
    names = cfg.DATASETS.TRAIN
    if name == "semantic" or (name == "auto" and names and all(map(is_semantic, names))):
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


def build_validation_mapper(cfg: CfgNode) -> DatasetMapper:
    """Return the mapper of the losses on validation sets: the annotations of training, but images
    that are only resized, as in evaluation."""
    mapper = type(build_train_mapper(cfg))
    return mapper(cfg, is_train=True, augmentations=build_augmentation(cfg, is_train=False))


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


def has_encoded_masks(records: Iterable[dict[str, Any]]) -> bool:
    """Return whether an object that is trained has a mask that is not polygons."""
    return any(
        isinstance(annotation.get("segmentation"), dict) and not annotation.get("iscrowd")
        for record in records
        for annotation in record.get("annotations", ())
    )
