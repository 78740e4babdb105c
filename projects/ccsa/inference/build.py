"""Wrap a model for sliding windows and test-time augmentation, as configured."""

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import GeneralizedRCNN, GeneralizedRCNNWithTTA, PanopticFPN
from detectron2.modeling.meta_arch.dense_detector import DenseDetector
from torch import nn

from ccsa.errors import UserError
from ccsa.inference.averaging import AVERAGES
from ccsa.inference.sliding_window import SlidingWindow
from ccsa.inference.test_time_augmentation import SemanticTTA
from ccsa.inference.tiles import TiledInference


def build_inference(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Return the model, wrapped as the keys of ``TEST`` request: ``AUG`` for a detector,
    ``TILES`` for any model, and ``SEM_SEG_AUG`` for a semantic model.

    Args:
        cfg: a configuration.
        model: its model: list[dict] -> list[dict], as Detectron2's models.

    Raises:
        UserError: the model has no such inference, or a setting is out of its range.
    """
    if cfg.TEST.AUG.ENABLED:
        return _build_detector_inference(cfg, model)
    if cfg.TEST.TILES.ENABLED and isinstance(model, GeneralizedRCNN | DenseDetector):
        return _build_tiled_inference(cfg, model)
    return build_semantic_inference(cfg, model)


def _build_tiled_inference(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Return the inference of a detector or of a panoptic model on tiles.

    Raises:
        UserError: the model predicts what is not merged, or ``TEST.SEM_SEG_AUG`` is enabled.
    """
    for key, on in (
        ("MODEL.KEYPOINT_ON", cfg.MODEL.KEYPOINT_ON),
        ("MODEL.LOAD_PROPOSALS", cfg.MODEL.LOAD_PROPOSALS),
        ("TEST.SEM_SEG_AUG.ENABLED", cfg.TEST.SEM_SEG_AUG.ENABLED),
    ):
        if on:
            raise UserError(
                f"TEST.TILES.ENABLED True is not possible with {key} True for a "
                f"{type(model).__name__}; set one of them to False"
            )
    average = AVERAGES[cfg.TEST.SEM_SEG_AVERAGE]
    keys, limit = cfg.TEST.TILES, cfg.TEST.DETECTIONS_PER_IMAGE
    return TiledInference(model, keys.SIZE, keys.OVERLAP, limit, average)


def _build_detector_inference(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Return Detectron2's average over scales and flips of a detector: boxes of all views together
    pass non-maximum suppression, and the masks of the boxes that remain are averaged."""
    semantic = cfg.TEST.TILES.ENABLED or cfg.TEST.SEM_SEG_AUG.ENABLED
    if not isinstance(model, GeneralizedRCNN) or isinstance(model, PanopticFPN) or semantic:
        raise UserError(
            "TEST.AUG.ENABLED True is for detectors with the meta-architecture GeneralizedRCNN, "
            f"without TEST.TILES and TEST.SEM_SEG_AUG, and the model is a {type(model).__name__}; "
            "set it to False, or for a semantic model use TEST.SEM_SEG_AUG.ENABLED True"
        )
    for key in ("KEYPOINT_ON", "LOAD_PROPOSALS"):
        if cfg.MODEL[key]:
            raise UserError(
                f"TEST.AUG.ENABLED True is not possible with MODEL.{key} True, which Detectron2 "
                "does not augment; set one of them to False"
            )
    return GeneralizedRCNNWithTTA(cfg, model)


def build_semantic_inference(cfg: CfgNode, model: nn.Module) -> nn.Module:
    """Return the model wrapped as ``TEST.TILES`` and ``TEST.SEM_SEG_AUG`` request.

    If both are enabled, the windows are taken from each scaled and flipped image. If neither is
    enabled, the model itself is returned.

    Args:
        cfg: a configuration with the keys of ``TEST`` and ``DATASETS.TEST``, whose metadata provide
            the ``flip_pairs``.
        model: list[dict] -> list[dict] with "sem_seg", as Detectron2's models.

    Raises:
        UserError: a setting is out of its range, or the test sets have different ``flip_pairs``.
    """
    average = cfg.TEST.SEM_SEG_AVERAGE
    if cfg.TEST.TILES.ENABLED:
        keys = cfg.TEST.TILES
        model = SlidingWindow(model, keys.SIZE, keys.OVERLAP, average)
        # The windows return probabilities already if the average is that of softmax.
        average = "logits"
    if cfg.TEST.SEM_SEG_AUG.ENABLED:
        keys = cfg.TEST.SEM_SEG_AUG
        pairs = {
            tuple(tuple(pair) for pair in MetadataCatalog.get(name).get("flip_pairs", ()))
            for name in cfg.DATASETS.TEST
        }
        if keys.FLIP and len(pairs) > 1:
            raise UserError(
                f"the test sets {', '.join(cfg.DATASETS.TEST)} have different flip_pairs: evaluate "
                "them one at a time, or with TEST.SEM_SEG_AUG.FLIP False"
            )
        model = SemanticTTA(model, keys.SCALES, keys.FLIP, next(iter(pairs), ()), average)
    return model
