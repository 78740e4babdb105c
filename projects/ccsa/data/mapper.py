"""Dataset mappers of image models: from a record to the inputs of the model.

:class:`ReportingMapper` is Detectron2's DatasetMapper with this project's readers of images and
labels, and with errors that name the image; :class:`SemanticMapper` adds the training augmentation
of semantic segmentation. The mapper of video models is in :mod:`ccsa.data.video.mapper`;
:mod:`ccsa.data.loaders` selects among the three.
"""

import contextlib
import copy
import importlib.util
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.data.detection_utils import SizeMismatchError

from ccsa.data.image_reader import intensity_range, read_image
from ccsa.data.records import rle_of_polygons
from ccsa.data.tasks import check_label, has_label, semantic_label
from ccsa.data.tile_records import cut_annotations
from ccsa.data.transforms.resize import for_any_shape
from ccsa.data.transforms.semantic import semantic_augmentations
from ccsa.errors import UserError
from ccsa.utils.user_code import import_user_code, imported_user_code

_CACHE = 2**28  # bytes of decoded images that a process keeps, if it trains on tiles
FIX = (
    "replace it with an intact copy or remove it from the annotations, then continue with --resume"
)


class ReportingMapper(DatasetMapper):
    """A DatasetMapper with this project's readers of images and labels.

    Args:
        intensity_range: (low, high) for images of more than 8 bits; None if there are none.
        label_classes: the number of classes that labels may have, checked in training; None for a
            model without a semantic head.
        ignore_label: the label that is ignored.
        draws_polygons: turn polygons into masks before the augmentation; Detectron2 crops polygons
            with the package shapely only.
        min_visible: the smallest share of an object that is inside a tile.
        arguments: those of DatasetMapper.
    """

    recompute_boxes: bool  # set by DatasetMapper

    @configurable
    def __init__(
        self,
        is_train: bool,
        *,
        intensity_range: tuple[float, float] | None = None,
        label_classes: int | None = None,
        ignore_label: int = 255,
        draws_polygons: bool = False,
        min_visible: float = 0.0,
        **arguments: Any,
    ):
        arguments["augmentations"] = for_any_shape(arguments["augmentations"])
        super().__init__(is_train, **arguments)
        self.intensity_range = intensity_range
        self.label_classes, self.ignore_label = label_classes, ignore_label
        self.draws_polygons, self.min_visible = draws_polygons, min_visible
        self._images: dict[str, np.ndarray] = {}  # large images that were read last
        self.user_code = imported_user_code()

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        head = cfg.MODEL.SEM_SEG_HEAD
        arguments = super().from_config(cfg, is_train)
        crops = is_train and cfg.INPUT.CROP.ENABLED and arguments["use_instance_mask"]
        if crops and importlib.util.find_spec("shapely") is None:
            arguments |= {"draws_polygons": True, "instance_mask_format": "bitmask"}
        return {
            **arguments,
            "intensity_range": intensity_range(cfg.INPUT.get("INTENSITY_RANGE", "auto")),
            "label_classes": head.NUM_CLASSES if _reads_labels(cfg) else None,
            "ignore_label": head.IGNORE_VALUE,
            "min_visible": cfg.INPUT.TILES.MIN_VISIBLE if "TILES" in cfg.INPUT else 0.0,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Import the user's code in a worker process that is started anew."""
        import_user_code(state["user_code"])
        self.__dict__.update(state)

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Return the model inputs of a record, as DatasetMapper does.

        Raises:
            UserError: an image or label cannot be read, its size is not the one in the record, or
                a label is not one of the classes. The message names the file.
        """
        with report_failures(dataset_dict):
            record = copy.deepcopy(dataset_dict)
            area = record.pop("tile", None)
            if area is not None:
                record["height"], record["width"] = record.pop("image_size")
            image = self.read_pixels(record, cached=area is not None)
            utils.check_image_size(record, image)
            # As in DatasetMapper, label files are also read for evaluation.
            wanted = self.is_train or "labels" not in record
            label = self.read_label(record) if wanted and has_label(record) else None
            for key in ("sem_seg_file_name", "labels", "objects"):
                record.pop(key, None)
            if area is not None:
                cut_annotations(record, area, self.min_visible)
                rows, columns = area.selector[1:]
                image = image[rows, columns]
                label = label[rows, columns] if label is not None else None
                record["height"], record["width"] = image.shape[:2]
            inputs = T.AugInput(image, sem_seg=label)
            transforms = self.augmentations(inputs)
            image, label = inputs.image, inputs.sem_seg
            record["image"] = torch.as_tensor(np.ascontiguousarray(image.transpose(2, 0, 1)))
            if label is not None:
                record["sem_seg"] = torch.as_tensor(label.astype("long"))
            if self.proposal_topk is not None:
                utils.transform_proposals(
                    record, image.shape[:2], transforms, proposal_topk=self.proposal_topk
                )
            if not self.is_train:
                record.pop("annotations", None)
            elif "annotations" in record:
                self._transform_annotations(record, transforms, image.shape[:2])
            return record

    def read_pixels(self, record: dict[str, Any], *, cached: bool) -> np.ndarray:
        """Return the image of a record; with ``cached``, one that was read before is kept, because
        a large image is read again for each of its tiles."""
        file = record["file_name"]
        if cached and file in self._images:
            self._images[file] = image = self._images.pop(file)  # the most recent one is last
            return image
        image = read_image(file, self.image_format, self.intensity_range, fix=FIX)
        if cached:
            self._images[file] = image
            while len(self._images) > 1 and sum(i.nbytes for i in self._images.values()) > _CACHE:
                del self._images[next(iter(self._images))]
        return image

    def read_label(self, record: dict[str, Any]) -> np.ndarray:
        """Return the label (H, W) of a record, checked against the number of classes."""
        label = semantic_label(record, fix=FIX)
        if self.label_classes is not None:
            source = record.get("sem_seg_file_name", f"the label of {record['file_name']}")
            check_label(label, self.label_classes, self.ignore_label, source)
        return label.astype(np.uint8) if label.max(initial=0) < 256 else label.astype(np.int32)

    def _transform_annotations(
        self, record: dict[str, Any], transforms: T.Transform, image_shape: tuple[int, int]
    ) -> None:
        """Transform boxes and masks, as DatasetMapper does.

        Objects without a mask are left out if the model needs masks. An image may have no object.
        """
        annotations = [a for a in record["annotations"] if not a.get("iscrowd", 0)]
        if self.use_instance_mask:
            annotations = [a for a in annotations if a.get("segmentation")]
        if self.draws_polygons:
            size = record["height"], record["width"]
            for annotation in annotations:
                if isinstance(annotation.get("segmentation"), list):
                    annotation["segmentation"] = rle_of_polygons(annotation["segmentation"], size)
        record["annotations"] = annotations
        recompute, self.recompute_boxes = self.recompute_boxes, False
        try:
            super()._transform_annotations(record, transforms, image_shape)
        finally:
            self.recompute_boxes = recompute
        instances = record["instances"]
        if recompute and instances.has("gt_masks"):
            instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
            record["instances"] = utils.filter_empty_instances(instances)
        elif self.use_instance_mask and not instances.has("gt_masks"):
            record["instances"] = _without_objects(image_shape, self.instance_mask_format)


class SemanticMapper(ReportingMapper):
    """A ReportingMapper with the training augmentation of semantic segmentation, see
    :func:`ccsa.data.transforms.semantic.semantic_augmentations`."""

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        arguments = super().from_config(cfg, is_train)
        if is_train:
            flips = cfg.INPUT.RANDOM_FLIP == "horizontal"
            pairs = common_flip_pairs(cfg.DATASETS.TRAIN) if flips else ()
            arguments["augmentations"] = semantic_augmentations(cfg, pairs)
        return arguments


def common_flip_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Return the pairs of labels that a horizontal flip exchanges, ``flip_pairs`` in the metadata.

    Raises:
        UserError: the datasets have different pairs.
    """
    pairs = {
        tuple((left, right) for left, right in MetadataCatalog.get(name).get("flip_pairs", ()))
        for name in names
    }
    if len(pairs) > 1:
        raise UserError(
            f"the training sets {', '.join(names)} have different flip_pairs: train on one of "
            "them, or with INPUT.RANDOM_FLIP none"
        )
    return next(iter(pairs), ())


@contextlib.contextmanager
def report_failures(record: dict[str, Any]) -> Iterator[None]:
    """Turn any error in the preparation of a record into one that names its image.

    Raises:
        UserError: with the image, the reason, and how to fix it.
    """
    try:
        yield
    except UserError:
        raise
    except (OSError, SyntaxError, SizeMismatchError) as error:
        raise UserError(f"cannot read {record['file_name']} ({error}); {FIX}") from error
    except Exception as error:  # whatever an augmentation or a damaged annotation raises
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"the record of image {record.get('file_name')} cannot be prepared "
            f"({type(error).__name__}: {reason}); correct or remove it, then continue with "
            "--resume"
        ) from error


def _reads_labels(cfg: CfgNode) -> bool:
    """Whether the model has a semantic head, so that labels are classes of it."""
    wrapped = cfg.MODEL.META_ARCHITECTURE == "ContextModel"
    name = cfg.MODEL.CONTEXT.META_ARCHITECTURE if wrapped else cfg.MODEL.META_ARCHITECTURE
    return name not in ("GeneralizedRCNN", "RetinaNet", "ProposalNetwork", "FCOS")


def _without_objects(size: tuple[int, int], mask_format: str) -> Any:
    """Return the instances of an image without objects, with empty masks."""
    instances = utils.annotations_to_instances([], size, mask_format)
    if mask_format == "polygon":
        instances.gt_masks = utils.PolygonMasks([])
    else:
        instances.gt_masks = utils.BitMasks(torch.zeros(0, *size, dtype=torch.bool))
    return instances
