"""Prediction: apply a trained model to images, draw the results, and write them as COCO JSON."""

from ccsa.prediction.coco_file import CocoFile
from ccsa.prediction.predictor import Predictor
from ccsa.prediction.result import Panoptic, Prediction

__all__ = ["CocoFile", "Panoptic", "Prediction", "Predictor"]
