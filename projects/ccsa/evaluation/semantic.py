"""Semantic segmentation metrics (mIoU and others), with labels that are checked.

Detectron2's SemSegEvaluator adds ``(classes + 1) * prediction + label`` to a histogram. A label
outside the classes then lands in the cell of another (label, prediction) pair, so wrong pixels can
count as hits. This evaluator rejects such labels, and takes them from the reader that training
uses.

Deviation: Detectron2's boundary of a label image is the label minus the smallest label nearby, a
difference of class numbers that is counted as a class. Here the boundary of a class is what
"Boundary IoU" (Cheng et al., CVPR 2021) defines: its pixels within 2 % of the image diagonal from
another label or from the edge of the image.
"""

import json
import logging
import shutil
import tempfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import SemSegEvaluator
from detectron2.utils import comm

from ccsa.data.tasks import check_label, semantic_label
from ccsa.errors import UserError
from ccsa.evaluation.image_counts import SemanticCounts, write_semantic_counts
from ccsa.evaluation.semantic_metrics import BOUNDARY_WIDTH, semantic_metrics
from ccsa.evaluation.tables import class_table, metric_table
from ccsa.utils.files import atomic_write

logger = logging.getLogger(__name__)

PREDICTIONS = "sem_seg_predictions.json"


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
        self._records = {r["file_name"]: r for r in DatasetCatalog.get(dataset_name)}
        self.input_file_to_gt_file = {
            name: record.get("sem_seg_file_name", name) for name, record in self._records.items()
        }

    def reset(self) -> None:
        """Discard the counts of all images."""
        size = self._num_classes + 1
        self._conf_matrix = np.zeros((size, size), np.int64)
        # {name of the image: (pixels, boundary)}, see SemanticCounts
        self._counts: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        # The metrics do not need the predictions, so they wait on the disk.
        self._written = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115

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
            confusion = self._counted(predicted, label)
            self._conf_matrix += confusion
            counts = confusion[:-1, :-1]
            pixels = np.stack([counts.diagonal(), counts.sum(0), counts.sum(1)])
            boundary = boundary_counts(predicted, label, self._num_classes)
            self._counts[item["file_name"]] = pixels, boundary
            if self._output_dir:
                for entry in self.encode_json_sem_seg(predicted, item["file_name"]):
                    self._written.write(
                        f"{', ' if self._written.tell() else ''}{json.dumps(entry)}"
                    )

    def evaluate(self) -> OrderedDict | None:
        """Return ``{"sem_seg": {metric: value in percent}}``, or None outside the main process.

        With ``output_dir``, the predictions are written to sem_seg_predictions.json in COCO's
        format, and the counts of each image to sem_seg_counts.npz.
        """
        comm.synchronize()
        gathered = comm.gather((self._conf_matrix, self._counts))
        if comm.get_world_size() > 1 and self._output_dir:
            self._gather_predictions()
        if not comm.is_main_process():
            return None
        confusion = sum(part for part, _ in gathered)
        found = {name: counts for _, part in gathered for name, counts in part.items()}
        images = [name for name in self._records if name in found]  # in the order of the dataset
        shape = (0, 3, self._num_classes)
        pixels, boundaries = (
            np.stack([found[name][i] for name in images]) if images else np.zeros(shape, np.int64)
            for i in range(2)
        )
        boundary = boundaries.sum(0)
        if self._output_dir:
            self._write_predictions(Path(self._output_dir) / PREDICTIONS)
            stored = (images, self._class_names, pixels, boundaries, confusion[:-1, :-1])
            write_semantic_counts(Path(self._output_dir), SemanticCounts(*stored))
        overall, by_class = semantic_metrics(confusion, boundary, self._class_names)
        logger.info("Semantic segmentation:\n%s", metric_table(overall))
        logger.info("Semantic segmentation of each class:\n%s", class_table(by_class))
        classes = {f"{k}-{name}": v for k, named in by_class.items() for name, v in named.items()}
        return OrderedDict(sem_seg=overall | classes)

    def _gather_predictions(self) -> None:
        self._written.seek(0)
        parts = [text for text in comm.gather(self._written.read()) if text]
        self._written.seek(0)
        self._written.truncate()
        self._written.write(", ".join(parts))

    def _write_predictions(self, file: Path) -> None:
        end = self._written.tell()
        self._written.seek(0)
        with atomic_write(file) as partial, partial.open("w", encoding="utf-8") as stream:
            stream.write("[")
            shutil.copyfileobj(self._written, stream, 2**20)
            stream.write("]")
        self._written.seek(end)

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


def boundary_counts(predicted: np.ndarray, label: np.ndarray, classes: int) -> np.ndarray:
    """Return the pixels of each class on the boundary of both, of the prediction and of the label.

    Args:
        predicted: (H, W) of class indices.
        label: the same, with the value ``classes`` where it is ignored; there, neither counts.
        classes: the number of classes.

    Returns:
        (3, classes), int64.
    """
    ignored = label == classes
    edges = []
    for image in (np.where(ignored, classes, predicted), label):
        image = image.astype(np.uint16)
        depth = max(1, round(BOUNDARY_WIDTH * float(np.hypot(*image.shape))))
        kernel = np.ones((2 * depth + 1, 2 * depth + 1), np.uint8)
        # A value that no label has lies outside the image.
        padded = cv2.copyMakeBorder(image, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=classes + 1)
        lowest, highest = cv2.erode(padded, kernel), cv2.dilate(padded, kernel)
        edges.append((lowest != highest)[1:-1, 1:-1] & ~ignored)
    common = edges[0] & edges[1] & (predicted == label)
    masks = (label[common], predicted[edges[0]], label[edges[1]])
    return np.stack([np.bincount(values, minlength=classes)[:classes] for values in masks])
