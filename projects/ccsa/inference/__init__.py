"""Inference: predictor, mixed precision, tiles and test-time augmentation."""

from ccsa.inference.build import build_inference, build_semantic_inference
from ccsa.inference.predictor import ModelPredictor, evaluation_mode
from ccsa.inference.sliding_window import SlidingWindow
from ccsa.inference.test_time_augmentation import SemanticTTA
from ccsa.inference.tile_masks import TileMasks
from ccsa.inference.tiles import TiledInference

__all__ = [
    "ModelPredictor",
    "SemanticTTA",
    "SlidingWindow",
    "TileMasks",
    "TiledInference",
    "build_inference",
    "build_semantic_inference",
    "evaluation_mode",
]
