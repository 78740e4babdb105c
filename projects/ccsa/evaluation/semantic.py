"""Semantic segmentation metrics (mIoU and others), with labels that are checked.

Detectron2's SemSegEvaluator adds ``(classes + 1) * prediction + label`` to a histogram. A label
outside the classes then lands in the cell of another (label, prediction) pair, so wrong pixels can
count as hits. This evaluator rejects such labels, and takes them from the reader that training
uses.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator

from ccsa.data.tasks import check_label, semantic_label
from ccsa.errors import UserError

logger = logging.getLogger(__name__)


class SemanticEvaluator(SemSegEvaluator):
    """mIoU, frequency weighted IoU, mean and overall pixel accuracy, and boundary IoU.

    Args:
        dataset_name: a registered dataset with ``stuff_classes`` and ``ignore_label``.
        output_dir: where predictions are written; None for nowhere.

    Raises:
        UserError: the metadata has no classes.
    """

    def __init__(self, dataset_name: str, output_dir: str | Path | None = None):
        # Detectron2's own constructor needs a label file in every record.
        metadata = MetadataCatalog.get(dataset_name)
        classes = metadata.get("stuff_classes")
        if not classes:
            raise UserError(
                f"dataset '{dataset_name}' has no stuff_classes in its metadata; set them: "
                f"MetadataCatalog.get('{dataset_name}').set(stuff_classes=[...], ignore_label=255)"
            )
        self._logger = logger
        self._dataset_name = dataset_name
        self._distributed = True
        self._output_dir = None if output_dir is None else str(output_dir)
        self._cpu_device = torch.device("cpu")
        self._class_names = list(classes)
        self._num_classes = len(classes)
        self._ignore_label = metadata.get("ignore_label", 255)
        ids = metadata.get("stuff_dataset_id_to_contiguous_id")
        self._contiguous_id_to_dataset_id = ids and {v: k for k, v in ids.items()}
        self._compute_boundary_iou = self._num_classes < np.iinfo(np.uint8).max
        self._records = {r["file_name"]: r for r in DatasetCatalog.get(dataset_name)}
        self.input_file_to_gt_file = {
            name: record.get("sem_seg_file_name", name) for name, record in self._records.items()
        }

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Any]) -> None:
        """Count the pixels of a batch.

        Args:
            inputs: with ``file_name``, as the data loader gives them.
            outputs: with ``sem_seg``, scores (classes, height, width).

        Raises:
            UserError: a label outside the classes, or of another size than the prediction.
        """
        for item, output in zip(inputs, outputs, strict=True):
            scores = output["sem_seg"]
            if scores.shape[0] != self._num_classes:
                raise UserError(
                    f"the model predicts {scores.shape[0]} classes, but {self._dataset_name} has "
                    f"{self._num_classes}; set MODEL.SEM_SEG_HEAD.NUM_CLASSES {self._num_classes}"
                )
            predicted = scores.argmax(dim=0).to(self._cpu_device).numpy().astype(int)
            label = self._label(item["file_name"], predicted.shape)
            self._conf_matrix += self._counted(predicted, label)
            if self._compute_boundary_iou:
                edges = (self._mask_to_boundary(x.astype(np.uint8)) for x in (predicted, label))
                self._b_conf_matrix += self._counted(*edges)
            self._predictions.extend(self.encode_json_sem_seg(predicted, item["file_name"]))

    def _label(self, file_name: str, size: tuple[int, ...]) -> np.ndarray:
        """Return the label (H, W) of an image, with the number of classes where it is ignored."""
        record = self._records[file_name]
        label = semantic_label(record).astype(int)
        source = record.get("sem_seg_file_name", f"the label of {file_name}")
        check_label(label, self._num_classes, self._ignore_label, source)
        if label.shape != size:
            raise UserError(
                f"{source} has {label.shape[1]} x {label.shape[0]} pixels, but its image "
                f"{size[1]} x {size[0]}; export the labels at the size of the images"
            )
        label[label == self._ignore_label] = self._num_classes
        return label

    def _counted(self, predicted: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Return the confusion matrix (classes + 1, classes + 1), predictions in rows."""
        pairs = (self._num_classes + 1) * predicted.reshape(-1).astype(int) + label.reshape(-1)
        counts = np.bincount(pairs, minlength=self._conf_matrix.size)
        return counts.reshape(self._conf_matrix.shape)
