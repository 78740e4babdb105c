"""Meta-architectures: any model with context blocks, and segmentation of images and video."""

from ccsa.modeling.meta_arch.context_model import ContextModel
from ccsa.modeling.meta_arch.dense_segmentor import DenseSegmentor
from ccsa.modeling.meta_arch.video_segmentor import VideoSemanticSegmentor

__all__ = ["ContextModel", "DenseSegmentor", "VideoSemanticSegmentor"]
