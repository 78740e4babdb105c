"""Box, mask and boundary AP as COCO defines them, for data of any origin.

Detectron2's COCOEvaluator needs a JSON file in which every annotation has ``iscrowd``, ``area``,
a mask and an id above 0. This evaluator also takes datasets that have no JSON file, fills what is
missing, and reports AP at the model's own limit of detections next to COCO's limit of 100. Masks
are encoded one at a time, so that its memory does not grow with image size times objects.
"""

import copy
import itertools
import json
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pycocotools.mask as coco_mask
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import COCOEvaluator
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import BoxMode, Instances
from detectron2.utils import comm
from pycocotools.coco import COCO

from ccsa.errors import UserError, missing_package
from ccsa.evaluation.coco_metrics import (
    BOUNDARY,
    COCO_LIMIT,
    INSTALL,
    evaluate_coco,
    index,
    installed,
    percent,
)
from ccsa.evaluation.rle import masks_to_rle
from ccsa.evaluation.tables import class_table, metric_table
from ccsa.utils.files import atomic_write, write_text

logger = logging.getLogger(__name__)

GROUND_TRUTH = "ground_truth.json"
DETECTIONS = "coco_instances_results.json"
_METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl")  # nan if nothing is detected
_TITLES = {
    "bbox": "Box AP",
    "segm": "Mask AP",
    "boundary": "Boundary AP",
    "keypoints": "Keypoint AP",
}
_CHUNK = 1000  # detections that are written at once


class InstanceEvaluator(COCOEvaluator):
    """Box and mask AP of a dataset of instances.

    Args:
        dataset_name: a registered dataset; with ``json_file`` in its metadata, or with standard
            dicts only.
        output_dir: where predictions, and the ground truth of a dataset without JSON, are written.
        max_detections: the model's limit of detections per image. Above 100, ``AP@<limit>`` and
            ``AP50@<limit>`` are reported next to COCO's AP, which counts 100.
        boundary: also report the AP of mask boundaries, as the task ``boundary``.

    Raises:
        UserError: the dataset has no class names.
        MissingPackageError: ``boundary`` without faster-coco-eval.
    """

    _coco_api: COCO

    def __init__(
        self,
        dataset_name: str,
        output_dir: str | Path,
        *,
        max_detections: int = COCO_LIMIT,
        boundary: bool = False,
    ):
        if boundary and not installed(BOUNDARY):
            raise missing_package("TEST.BOUNDARY_AP True", BOUNDARY, INSTALL)
        metadata = MetadataCatalog.get(dataset_name)
        name = dataset_name
        if not metadata.get("json_file"):
            file = Path(output_dir) / GROUND_TRUTH
            write_text(file, json.dumps(coco_dict(dataset_name)))
            name = f"{dataset_name}/ground_truth"  # metadata of its own, of this folder
            MetadataCatalog.pop(name, None)
            MetadataCatalog.get(name).set(
                json_file=str(file), thing_classes=list(metadata.thing_classes)
            )
        super().__init__(name, output_dir=str(output_dir))
        self._limit = max_detections
        self._boundary = boundary
        if not self._do_evaluation:
            return
        dataset = self._coco_api.dataset
        complete_annotations(dataset["annotations"])
        self._coco_api = index(dataset)
        self._mask_truth = ignoring_boxes(dataset)

    def process(self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Any]) -> None:
        """Encode the detections of a batch.

        Args:
            inputs: with ``image_id``.
            outputs: with ``instances``, whose ``pred_masks`` are a tensor (N, H, W) or
                :class:`ccsa.inference.detector.PastedMasks`, or with ``proposals``.
        """
        for item, output in zip(inputs, outputs, strict=True):
            prediction: dict[str, Any] = {"image_id": item["image_id"]}
            if "instances" in output:
                prediction["instances"] = _to_coco(output["instances"], item["image_id"])
            if "proposals" in output:
                prediction["proposals"] = output["proposals"].to(self._cpu_device)
            if len(prediction) > 1:
                self._predictions.append(prediction)

    def evaluate(self, img_ids: Sequence[int] | None = None) -> OrderedDict:
        """Return ``{task: {metric: value in percent}}``; empty on processes other than the main one
        and without predictions.

        Args:
            img_ids: the images to evaluate; the default is all.
        """
        comm.synchronize()
        predictions = list(itertools.chain(*comm.gather(self._predictions)))
        self._results: OrderedDict = OrderedDict()
        if not comm.is_main_process():
            return self._results
        if not predictions:
            logger.warning("No image was predicted, so there is no AP.")
            return self._results
        if "proposals" in predictions[0]:
            self._eval_box_proposals(predictions)
        if "instances" in predictions[0]:
            self._eval_predictions(predictions, img_ids)
        return copy.deepcopy(self._results)

    def _eval_predictions(self, predictions: Sequence[Mapping], img_ids: Any = None) -> None:
        """Compute the metrics of boxes, and of masks if there are any (overrides Detectron2's)."""
        results = list(itertools.chain(*(entry["instances"] for entry in predictions)))
        tasks = self._tasks or self._tasks_from_predictions(results)
        self._map_categories(results)
        if self._output_dir:
            _write_detections(Path(self._output_dir) / DETECTIONS, results)
        if not self._do_evaluation:
            logger.info("The dataset has no annotations, so nothing is evaluated.")
            return
        if self._boundary and "segm" in tasks:
            tasks = [*tasks, "boundary"]
        for task in sorted(tasks):
            self._results[task] = self._metrics(task, results, img_ids)

    def _map_categories(self, results: list[dict[str, Any]]) -> None:
        """Replace the class indices of a model by the category ids of the JSON, in place."""
        ids = self._metadata.get("thing_dataset_id_to_contiguous_id")
        if ids is None:
            ids = {c["id"]: i for i, c in enumerate(self._coco_api.dataset["categories"])}
        categories = {contiguous: number for number, contiguous in ids.items()}
        for result in results:
            if result["category_id"] not in categories:
                raise UserError(
                    f"the model predicts class {result['category_id']}, but {self._metadata.name} "
                    f"has {len(categories)} classes; make the numbers of classes equal"
                )
            result["category_id"] = categories[result["category_id"]]

    def _metrics(self, task: str, results: list[dict[str, Any]], img_ids: Any) -> dict[str, float]:
        if not results:
            logger.warning("Nothing was detected, so there is no AP.")
            empty = [name for name in _METRICS if task != "keypoints" or name != "APs"]
            return dict.fromkeys(empty, float("nan"))
        truth = self._mask_truth if task in ("segm", "boundary") else self._coco_api.dataset
        found = evaluate_coco(truth, results, task, limit=self._limit, image_ids=img_ids)
        metrics = found.metrics()
        title = _TITLES[task]
        # The beginning is Detectron2's, for which programs search the log.
        logger.info(
            "Evaluation results for %s: %s (%s):\n%s",
            *(task, title, found.evaluator, metric_table(metrics)),
        )
        classes = self._metadata.get("thing_classes") or ()
        if len(classes) > 1:
            by_class = dict(zip(classes, found.category_ap().values(), strict=True))
            logger.info("%s of each class:\n%s", title, class_table({"AP": by_class}))
            metrics |= {f"AP-{name}": value for name, value in by_class.items()}
        if self._limit > COCO_LIMIT and task != "keypoints":
            for key, iou in (("AP", None), ("AP50", 0.5)):
                value = found.ap(iou=iou, limit=self._limit)
                metrics[f"{key}@{self._limit}"] = percent(value)
            logger.info(
                "%s AP counts %d detections per image, as COCO does; with the model's limit of %d "
                "it is %.1f.",
                *(task, COCO_LIMIT, self._limit, metrics[f"AP@{self._limit}"]),
            )
        return metrics


def _to_coco(instances: Instances, image_id: int) -> list[dict[str, Any]]:
    """Return the detections of one image in COCO's result format, with class indices."""
    fields = dict(instances.get_fields())
    masks = fields.pop("pred_masks", None)
    found = Instances(instances.image_size, **fields).to("cpu")
    results = instances_to_coco_json(found, image_id)
    if masks is not None:
        for result, rle in zip(results, masks_to_rle(masks), strict=True):
            result["segmentation"] = rle
    return results


def _write_detections(file: Path, results: Sequence[Mapping[str, Any]]) -> None:
    """Write a JSON list in parts, of which one at a time is in memory as text."""
    with atomic_write(file) as partial, partial.open("w", encoding="utf-8") as stream:
        stream.write("[")
        for start in range(0, len(results), _CHUNK):
            text = json.dumps(results[start : start + _CHUNK])
            stream.write((", " if start else "") + text[1:-1])
        stream.write("]")


def coco_dict(dataset_name: str) -> dict[str, Any]:
    """Return a dataset of Detectron2's standard dicts as the content of a COCO JSON file.

    Category ids are class indices + 1, and annotation ids start at 1.

    Raises:
        UserError: the dataset has no class names.
    """
    metadata = MetadataCatalog.get(dataset_name)
    classes = metadata.get("thing_classes")
    if not classes:
        raise UserError(
            f"dataset '{dataset_name}' has no thing_classes in its metadata; set them: "
            f"MetadataCatalog.get('{dataset_name}').set(thing_classes=[...])"
        )
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for record in DatasetCatalog.get(dataset_name):
        image_id = record["image_id"]
        images.append(
            {
                "id": image_id,
                "file_name": str(record["file_name"]),
                "width": record["width"],
                "height": record["height"],
            }
        )
        for annotation in record.get("annotations", ()):
            box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYWH_ABS)
            entry = {
                "id": len(annotations) + 1,
                "image_id": image_id,
                "category_id": annotation["category_id"] + 1,
                "bbox": [float(value) for value in box],
                "iscrowd": annotation.get("iscrowd", 0),
            }
            if annotation.get("segmentation"):
                entry["segmentation"] = _json_mask(annotation["segmentation"])
            if annotation.get("area") is not None:
                entry["area"] = annotation["area"]
            annotations.append(entry)
    sizes = {image["id"]: (image["height"], image["width"]) for image in images}
    for entry in annotations:
        entry.setdefault("area", _area(entry, sizes[entry["image_id"]]))
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(classes)]
    return {
        "info": {},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }


def complete_annotations(annotations: list[dict[str, Any]]) -> None:
    """Fill in place what COCO's evaluation needs and a JSON file may lack: ``iscrowd``, ``area``,
    and ids above 0 of which none occurs twice."""
    numbers = [annotation.get("id") for annotation in annotations]
    renumber = None in numbers or 0 in numbers or len(set(numbers)) < len(numbers)
    for number, annotation in enumerate(annotations, 1):
        if renumber:
            annotation["id"] = number
        annotation["iscrowd"] = int(annotation.get("iscrowd") or 0)
        if annotation.get("area") is None:
            annotation["area"] = _area(annotation, None)


def _area(annotation: Mapping[str, Any], size: tuple[int, int] | None) -> float:
    """Return the area of the mask, or of the box if there is no mask or no size to draw it in."""
    mask = annotation.get("segmentation")
    if isinstance(mask, dict) and isinstance(mask["counts"], str | bytes):
        return float(coco_mask.area(mask))
    if isinstance(mask, dict):
        return float(sum(mask["counts"][1::2]))
    if mask and size is None:
        xs = [x for polygon in mask for x in polygon[0::2]]
        ys = [y for polygon in mask for y in polygon[1::2]]
        size = int(max(ys)) + 2, int(max(xs)) + 2
    if mask and size is not None:
        return float(coco_mask.area(coco_mask.merge(coco_mask.frPyObjects(mask, *size))))
    return float(annotation["bbox"][2] * annotation["bbox"][3])


def _json_mask(mask: Any) -> Any:
    if isinstance(mask, dict) and isinstance(mask["counts"], bytes):
        return {**mask, "counts": mask["counts"].decode("ascii")}
    return mask


def ignoring_boxes(dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ground truth of masks: an object that only has a box becomes a region in which
    detections are neither right nor wrong."""
    annotations = copy.copy(dataset["annotations"])
    lacking = [i for i, annotation in enumerate(annotations) if not annotation.get("segmentation")]
    for i in lacking:
        x, y, width, height = annotations[i]["bbox"]
        corners = [x, y, x + width, y, x + width, y + height, x, y + height]
        annotations[i] = {**annotations[i], "segmentation": [corners], "iscrowd": 1}
    if lacking:
        logger.warning(
            "%d of %d objects have no mask: mask AP counts the others only, box AP counts all",
            *(len(lacking), len(annotations)),
        )
    return {**dataset, "annotations": annotations}
