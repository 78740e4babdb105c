"""Models at inference: predictor, precision, sliding window and test-time augmentation."""

from ccsa.inference.predictor import Predictor
from ccsa.inference.sliding_window import SlidingWindow
from ccsa.inference.test_time_augmentation import SemanticTTA, build_semantic_inference

__all__ = ["Predictor", "SemanticTTA", "SlidingWindow", "build_semantic_inference"]
