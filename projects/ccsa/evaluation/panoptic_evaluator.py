"""The panoptic quality of a model, as a Detectron2 evaluator."""

import json
import logging
from collections import Counter, OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm

from ccsa.data.panoptic import Segment, segment_problems, write_segment_ids
from ccsa.errors import UserError
from ccsa.evaluation.image_counts import PanopticCounts, write_panoptic_counts
from ccsa.evaluation.panoptic_files import check_segments, check_sizes
from ccsa.evaluation.panoptic_quality import Counts, PanopticQuality, count_matches, count_overlaps
from ccsa.evaluation.panoptic_tables import class_table, in_percent, panoptic_table
from ccsa.evaluation.panoptic_truth import panoptic_truth
from ccsa.utils.files import inside, write_text

logger = logging.getLogger(__name__)

_METADATA = ("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id")
PREDICTIONS = "panoptic_predictions"  # the name of the folder of PNGs, and of the .json file


class PanopticQualityEvaluator(DatasetEvaluator):
    """Evaluate PQ, SQ and RQ in percent.

    The metrics are those of all classes (``PQ``), of things (``PQ_th``), of stuff (``PQ_st``) and
    of each class (``PQ-<name>``). A class that does not occur has the value nan.

    Every image is compared with its ground truth when it is processed, and then discarded. In
    distributed evaluation every process calls every method, and the main process returns the
    results.

    Args:
        dataset_name: a dataset whose metadata contain ``panoptic_json``, ``panoptic_root`` and, to
            convert the classes of the model to category ids, ``thing_dataset_id_to_contiguous_id``
            and ``stuff_dataset_id_to_contiguous_id``.
        output_dir: the folder of the result files.
        write_files: write the predictions in COCO's panoptic format to ``output_dir``:
            ``panoptic_predictions.json`` and a folder of PNGs.

    Raises:
        UserError: metadata are missing, or the ground truth cannot be read.
        UserError: ``write_files`` without ``output_dir``.

    Example:
        >>> evaluator = PanopticQualityEvaluator("digits_val_panoptic")  # doctest: +SKIP
    """

    def __init__(
        self, dataset_name: str, output_dir: str | Path | None = None, *, write_files: bool = False
    ):
        if write_files and output_dir is None:
            raise UserError("write_files needs an output_dir")
        self._metadata = MetadataCatalog.get(dataset_name)
        missing = [name for name in _METADATA if not hasattr(self._metadata, name)]
        if missing:
            raise UserError(
                f"the metadata of {dataset_name} have no {', '.join(missing)}, which panoptic "
                "quality needs; register the dataset as docs/DATASETS.md describes"
            )
        if self._metadata.get("built_in", False):
            DatasetCatalog.get(dataset_name)  # writes the dataset on first use
        self._truth, self._read_ids = panoptic_truth(dataset_name)
        self._folder = None if output_dir is None else Path(output_dir)
        self._files = self._folder if write_files else None
        self._things = _invert(self._metadata.thing_dataset_id_to_contiguous_id)
        self._stuff = _invert(self._metadata.stuff_dataset_id_to_contiguous_id)
        self.reset()

    def reset(self) -> None:
        """Discard the counts of all images."""
        self._counts: dict[int | str, Counts] = {}
        self._written: dict[int | str, dict[str, Any]] = {}

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """Compare predictions with the ground truth.

        Args:
            inputs: dictionaries with ``image_id``.
            outputs: dictionaries with ``panoptic_seg``, a pair of one of two forms:

                * ids of shape (H, W), 0 for pixels without prediction, and a list of segments with
                  ``id``, ``category_id`` and ``isthing``. Without ``isthing``, ``category_id`` is
                  a category id of the dataset.
                * labels of shape (H, W), class * label_divisor + instance, -1 for pixels without
                  prediction, and None.

        Raises:
            UserError: an output has no panoptic segmentation, the ground truth does not contain an
                image, sizes differ, or ids and segments do not correspond.
        """
        for item, output in zip(inputs, outputs, strict=True):
            image_id = item["image_id"]
            annotation = self._truth.annotations.get(image_id)
            if annotation is None:
                raise UserError(
                    f"image {image_id} is not in {self._truth.path}; evaluate on the dataset that "
                    "contains it"
                )
            prediction = f"the prediction for image {image_id}"
            if "panoptic_seg" not in output:
                raise UserError(
                    f"{prediction} has {', '.join(output)} and no panoptic_seg: evaluate a "
                    "panoptic model, with MODEL.PANOPTIC_FPN.COMBINE.ENABLED True and without "
                    "TEST.TILES and TEST.SEM_SEG_AUG"
                )
            predicted_ids, infos = output["panoptic_seg"]
            ids, segments = self._to_coco(predicted_ids, infos, prediction)
            truth = self._read_ids(annotation)
            check_sizes(truth, ids, prediction)
            overlaps = count_overlaps(truth, ids)
            categories, names = self._truth.categories, ("list of segments", "segmentation")
            check_segments(annotation, {pair[0] for pair in overlaps}, self._truth, categories)
            shown = {pair[1] for pair in overlaps}
            for _, problem in segment_problems(segments, shown, categories, names):
                raise UserError(
                    f"{prediction}: {problem}; the model must return ids and segments that "
                    "correspond to each other"
                )
            self._counts[image_id] = count_matches(overlaps, annotation.segments, segments)
            if self._files:
                name = Path(annotation.file_name).with_suffix(".png").as_posix()
                write_segment_ids(inside(self._files / PREDICTIONS, name), ids)
                self._written[image_id] = {
                    "image_id": image_id,
                    "file_name": name,
                    "segments_info": [{"id": s.id, "category_id": s.category_id} for s in segments],
                }

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """Return the results as ``{"panoptic_seg": {metric: value}}``, or None outside the main
        process.

        With ``output_dir``, the counts of each image are written to panoptic_counts.json.

        Images that were not processed count as images without any prediction, and a warning reports
        their number.
        """
        comm.synchronize()
        parts = comm.gather((self._counts, self._written))
        if not comm.is_main_process():
            return None
        counts: dict[int | str, Counts] = {}
        for part, _ in parts:
            counts |= part
        written = {image: entry for _, part in parts for image, entry in part.items()}
        quality = PanopticQuality(self._truth.isthing)
        # The order of the ground truth makes the sums reproducible.
        images: dict[str, Counts] = {}
        for image_id, annotation in self._truth.annotations.items():
            found = counts.get(image_id)
            found = count_matches({}, annotation.segments, []) if found is None else found
            quality.add(found)
            images[str(image_id)] = found
        if len(counts) < len(self._truth.annotations):
            logger.warning(
                "%d of %d images were not predicted: all their segments count as missed",
                *(len(self._truth.annotations) - len(counts), len(self._truth.annotations)),
            )
        if self._files:
            self._write_json(self._files / f"{PREDICTIONS}.json", written)
        results = quality.results()
        logger.info("Panoptic quality:\n%s", panoptic_table(results))
        counted = Counter(category.name for category in self._truth.categories.values())
        names = {  # unique, because they are keys of the results
            number: c.name if counted[c.name] == 1 else f"{c.name} {number}"
            for number, c in self._truth.categories.items()
        }
        logger.info("Panoptic quality of each class:\n%s", class_table(results, names))
        if self._folder:
            things = [number for number, isthing in self._truth.isthing.items() if isthing]
            write_panoptic_counts(self._folder, PanopticCounts(names, things, images))
        return OrderedDict(panoptic_seg=in_percent(results, names))

    def _to_coco(
        self, ids: Any, infos: list[dict[str, Any]] | None, prediction: str
    ) -> tuple[np.ndarray, list[Segment]]:
        """Return the ids (H, W) of a prediction, 0 for void, and its segments with the category ids
        of the dataset."""
        ids = torch.as_tensor(ids).cpu().numpy()
        if infos is None:
            divisor = self._metadata.label_divisor
            infos = [
                {
                    "id": label + 1,
                    "category_id": label // divisor,
                    "isthing": label // divisor in self._things,
                }
                for label in np.unique(ids[ids != -1]).tolist()
            ]
            ids = ids + 1
        segments = []
        for info in infos:
            number, isthing = int(info["category_id"]), info.get("isthing")
            if isthing is not None:
                classes = self._things if isthing else self._stuff
                if number not in classes:
                    raise UserError(
                        f"{prediction}: segment {info['id']} has the class {number}, which does "
                        f"not exist among the {'things' if isthing else 'stuff classes'} of "
                        f"{self._metadata.name}; set the model's number of classes to that of the "
                        "dataset"
                    )
                number = classes[number]
            segments.append(Segment(int(info["id"]), number))
        return ids, segments

    def _write_json(self, path: Path, written: Mapping[int | str, dict[str, Any]]) -> None:
        truth = self._truth
        content = {
            "images": truth.images,
            "annotations": [written[image] for image in truth.annotations if image in written],
            "categories": [
                {"id": c.id, "name": c.name, "isthing": int(c.isthing)}
                for c in truth.categories.values()
            ],
        }
        write_text(path, json.dumps(content))
        logger.info("Predictions in COCO's panoptic format: %s and %s", path, path.with_suffix(""))


def _invert(mapping: Mapping[int, int]) -> dict[int, int]:
    return {value: key for key, value in mapping.items()}
