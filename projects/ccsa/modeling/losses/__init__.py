"""Losses: cross entropy with and without hard example mining, and the category consistent loss."""

from ccsa.modeling.losses.category_consistent import CategoryConsistentLoss
from ccsa.modeling.losses.cross_entropy import (
    CrossEntropy,
    OhemCrossEntropy,
    cross_entropy,
    presence_loss,
)

__all__ = [
    "CategoryConsistentLoss",
    "CrossEntropy",
    "OhemCrossEntropy",
    "cross_entropy",
    "presence_loss",
]
