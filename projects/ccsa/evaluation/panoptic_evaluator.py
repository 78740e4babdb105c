"""Panoptic quality of a model, as a Detectron2 evaluator."""

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

from ccsa.data.panoptic import Segment, read_panoptic_json, segment_problems, write_segment_ids
from ccsa.errors import UserError
from ccsa.evaluation.panoptic_files import read_png, refuse_sizes, refuse_troubles
from ccsa.evaluation.panoptic_quality import Counts, PanopticQuality, count_overlaps, count_shared
from ccsa.evaluation.panoptic_tables import class_table, in_percent, panoptic_table
from ccsa.utils.files import write_text

logger = logging.getLogger(__name__)

_METADATA = (
    *("panoptic_json", "panoptic_root"),
    *("thing_dataset_id_to_contiguous_id", "stuff_dataset_id_to_contiguous_id"),
)
PREDICTIONS = "panoptic_predictions"  # folder of PNGs, and .json


class PanopticQualityEvaluator(DatasetEvaluator):
    """PQ, SQ and RQ in percent: of all classes (``PQ``), of things (``PQ_th``), of stuff
    (``PQ_st``) and of each class (``PQ-<name>``), nan for what does not occur.

    Every image is compared with its ground truth when it comes and then forgotten; no files are
    written unless asked for. Where several processes evaluate, each calls every method, and the
    main one returns the results.

    Args:
        dataset_name: metadata hold ``panoptic_json``, ``panoptic_root`` and, to turn a model's
            classes into category ids, ``thing_dataset_id_to_contiguous_id`` and
            ``stuff_dataset_id_to_contiguous_id``.
        output_dir: of the result files.
        write_files: write predictions in COCO's format, ``panoptic_predictions.json`` and a folder
            of PNGs, to ``output_dir``.

    Raises:
        UserError: metadata are missing, or the ground truth cannot be read.
        ValueError: ``write_files`` without ``output_dir``.
    """

    def __init__(
        self, dataset_name: str, output_dir: str | Path | None = None, *, write_files: bool = False
    ):
        if write_files and output_dir is None:
            raise ValueError("write_files needs an output_dir")
        self._metadata = MetadataCatalog.get(dataset_name)
        lacking = [name for name in _METADATA if not hasattr(self._metadata, name)]
        if lacking:
            raise UserError(
                f"the metadata of {dataset_name} have no {', '.join(lacking)}, which panoptic "
                "quality needs; register it as docs/DATASETS.md says"
            )
        if self._metadata.get("built_in", False):
            DatasetCatalog.get(dataset_name)  # has it written
        self._truth = read_panoptic_json(Path(self._metadata.panoptic_json))
        self._folder = Path(self._metadata.panoptic_root)
        self._files = Path(output_dir) if write_files and output_dir is not None else None
        self._things = _inverse(self._metadata.thing_dataset_id_to_contiguous_id)
        self._stuff = _inverse(self._metadata.stuff_dataset_id_to_contiguous_id)
        self.reset()

    def reset(self) -> None:
        self._counts: dict[int | str, Counts] = {}
        self._written: dict[int | str, dict[str, Any]] = {}

    def process(self, inputs: list[dict[str, Any]], outputs: list[dict[str, Any]]) -> None:
        """
        Args:
            inputs: with ``image_id``.
            outputs: with ``panoptic_seg``: (H, W) integers, 0 where nothing is said, and a list of
                segments with ``id``, ``category_id`` and ``isthing``; or None in place of the list,
                for a map of class * label_divisor + instance, -1 where nothing is said. Without
                ``isthing`` a ``category_id`` is one of the dataset.

        Raises:
            UserError: no panoptic segmentation, an image that the ground truth does not have, a map
                of another size, or a map and segments that do not fit together.
        """
        for item, output in zip(inputs, outputs, strict=True):
            image_id = item["image_id"]
            annotation = self._truth.annotations.get(image_id)
            if annotation is None:
                raise UserError(
                    f"image {image_id} is not in {self._truth.path}; evaluate on the dataset that "
                    "it belongs to"
                )
            where = f"the prediction for image {image_id}"
            if "panoptic_seg" not in output:
                raise UserError(
                    f"{where} has {', '.join(output)} and no panoptic_seg: evaluate a panoptic "
                    "model, with MODEL.PANOPTIC_FPN.COMBINE.ENABLED True and without "
                    "TEST.SLIDING_WINDOW and TEST.SEM_SEG_AUG"
                )
            ids, segments = self._as_in_coco(*output["panoptic_seg"], where)
            truth = read_png(annotation, self._folder, self._truth.path)
            refuse_sizes(truth, ids, where)
            shared = count_overlaps(truth, ids)
            categories, names = self._truth.categories, ("list of segments", "map")
            refuse_troubles(annotation, {pair[0] for pair in shared}, self._truth, categories)
            shown = {pair[1] for pair in shared}
            for _, trouble in segment_problems(segments, shown, categories, names):
                raise UserError(f"{where}: {trouble}; the model is to return what fits together")
            self._counts[image_id] = count_shared(shared, annotation.segments, segments)
            if self._files:
                name = Path(annotation.file_name).with_suffix(".png").as_posix()
                write_segment_ids(self._files / PREDICTIONS / name, ids)
                self._written[image_id] = {
                    "image_id": image_id,
                    "file_name": name,
                    "segments_info": [{"id": s.id, "category_id": s.category_id} for s in segments],
                }

    def evaluate(self) -> OrderedDict[str, dict[str, float]] | None:
        """The results, under ``panoptic_seg``, in the main process, and None in others. An image
        that did not come counts as one in which nothing was found, and a warning says so."""
        comm.synchronize()
        parts = comm.gather((self._counts, self._written))
        if not comm.is_main_process():
            return None
        counts = {image: found for part, _ in parts for image, found in part.items()}
        written = {image: entry for _, part in parts for image, entry in part.items()}
        quality = PanopticQuality(self._truth.isthing)
        for image_id, annotation in self._truth.annotations.items():  # an order of no chance
            missed = counts.get(image_id)
            if missed is None:
                missed = count_shared({}, annotation.segments, [])
            quality.add(missed)
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
        names = {  # each but once, as a key of results
            number: c.name if counted[c.name] == 1 else f"{c.name} {number}"
            for number, c in self._truth.categories.items()
        }
        logger.info("Panoptic quality of each class:\n%s", class_table(results, names))
        return OrderedDict(panoptic_seg=in_percent(results, names))

    def _as_in_coco(
        self, ids: Any, infos: list[dict[str, Any]] | None, where: str
    ) -> tuple[np.ndarray, list[Segment]]:
        """A model's map (H, W) and segments with the dataset's category ids, 0 where void."""
        ids = torch.as_tensor(ids).cpu().numpy()
        if infos is None:
            divisor = self._metadata.label_divisor
            infos = []
            for label in np.unique(ids[ids != -1]).tolist():
                number = label // divisor
                isthing = number in self._things
                infos.append({"id": label + 1, "category_id": number, "isthing": isthing})
            ids = ids + 1
        segments = []
        for info in infos:
            number, isthing = int(info["category_id"]), info.get("isthing")
            if isthing is not None:
                classes = self._things if isthing else self._stuff
                if number not in classes:
                    raise UserError(
                        f"{where}: segment {info['id']} has the class {number}, which the "
                        f"{'things' if isthing else 'stuff'} of {self._metadata.name} do not have; "
                        "make the model's number of classes that of the dataset"
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
        logger.info("predictions in COCO's panoptic format: %s and %s", path, path.with_suffix(""))


def _inverse(mapping: Mapping[int, int]) -> dict[int, int]:
    return {value: key for key, value in mapping.items()}
