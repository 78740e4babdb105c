"""The ground truth of images that belong to a dataset of a run."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.data import transforms as T
from PIL import Image

from ccsa.errors import UserError
from ccsa.prediction.result import Prediction
from ccsa.utils.files import real_path
from ccsa.visualization.annotations import draw_annotations
from ccsa.visualization.painter import class_metadata, output_kind


class Truth(NamedTuple):
    """The record of an image.

    Attributes:
        dataset: the name of the dataset.
        record: in Detectron2's standard format, or one of a user's own data.
    """

    dataset: str
    record: Mapping[str, Any]


def find_truth(cfg: CfgNode, files: Sequence[str | Path]) -> dict[Path, Truth]:
    """Return the records of the images that a dataset of the configuration contains.

    Datasets that are not available on this machine are left out.

    Args:
        cfg: of a run; its test datasets are searched before those of training.
        files: images.
    """
    wanted = {real_path(file): Path(file) for file in files}
    found: dict[Path, Truth] = {}
    for name in dict.fromkeys((*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)):
        if len(found) == len(wanted):
            break
        try:
            records = DatasetCatalog.get(name) if name in DatasetCatalog.list() else []
        except UserError:
            continue
        for record in records:
            file = wanted.get(real_path(record["file_name"]))
            if file is not None:
                found.setdefault(file, Truth(name, record))
    return found


def draw_truth(prediction: Prediction, truth: Truth) -> np.ndarray:
    """Return the image (H, W, 3) with the annotations that correspond to the prediction.

    Raises:
        UserError: an annotation file cannot be read.
    """
    image = prediction.image
    height, width = image.shape[:2]
    resize = T.ResizeTransform(height, width, height, width, Image.Resampling.BICUBIC)
    kind = output_kind(prediction.outputs)
    return draw_annotations(image, truth.record, class_metadata(truth.dataset), resize, kind)
