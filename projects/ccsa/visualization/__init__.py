"""Drawing of predictions and annotations."""

from ccsa.visualization.grid import draw_predictions
from ccsa.visualization.painter import ClassColorVisualizer, class_metadata, draw_outputs

__all__ = [
    "ClassColorVisualizer",
    "class_metadata",
    "draw_outputs",
    "draw_predictions",
]
