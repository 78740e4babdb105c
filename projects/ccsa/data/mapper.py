"""Dataset mappers: Detectron2's, with a clear word about a file that cannot be read, one with the
augmentation of semantic segmentation, and one for clips of video."""

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data.detection_utils import SizeMismatchError, check_image_size, read_image

from ccsa.data.transforms.semantic import semantic_augmentations
from ccsa.data.video.clips import ClipInput
from ccsa.errors import UserError
from ccsa.modeling.clip import takes_clips

SEMANTIC_EVALUATORS = ("sem_seg", "cityscapes_sem_seg")


class ReportingMapper(DatasetMapper):
    """DatasetMapper that names the file it cannot read, and the cure."""

    def __call__(self, dataset_dict: dict) -> dict:
        """As DatasetMapper.

        Raises:
            UserError: an image or label file that is missing, corrupt or of another size than its
                annotation says.
        """
        with _reporting(dataset_dict):
            return super().__call__(dataset_dict)


class SemanticMapper(ReportingMapper):
    """ReportingMapper whose training augmentation is that of
    :func:`ccsa.data.transforms.semantic.semantic_augmentations`."""

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        arguments = super().from_config(cfg, is_train)
        if is_train:
            mirrors = cfg.INPUT.RANDOM_FLIP == "horizontal"
            pairs = common_flip_pairs(cfg.DATASETS.TRAIN) if mirrors else ()
            arguments["augmentations"] = semantic_augmentations(cfg, pairs)
        return arguments


class ClipMapper(SemanticMapper):
    """SemanticMapper for records with ``clip_file_names``, see
    :func:`ccsa.data.video.clips.with_clips`."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """As DatasetMapper, but ``image`` is (T, C, H, W), in order of time.

        Raises:
            UserError: a frame or label file that is missing, corrupt or of another size.
        """
        record = copy.deepcopy(dataset_dict)
        labelled, names = record["file_name"], record["clip_file_names"]
        # Each file once, and first the labelled one, whose size is that of all.
        frames = {file: self._frame(record, file) for file in dict.fromkeys([labelled, *names])}
        with _reporting(dataset_dict):
            labels = record.pop("sem_seg_file_name", None)
            labels = None if labels is None else read_image(labels, "L").squeeze(2)
            clip = ClipInput([frames[name] for name in names], names.index(labelled), labels)
            self.augmentations(clip)
        pixels = np.stack(clip.frames).transpose(0, 3, 1, 2)
        record["image"] = torch.as_tensor(np.ascontiguousarray(pixels))
        if clip.sem_seg is not None:
            record["sem_seg"] = torch.as_tensor(clip.sem_seg.astype("long"))
        return record

    def _frame(self, record: dict[str, Any], file: str) -> np.ndarray:
        """(H, W, 3), of the size that is in ``record`` or comes into it now."""
        with _reporting({"file_name": file}):
            frame = read_image(file, format=self.image_format)
            check_image_size(record, frame)
        return frame


def build_train_mapper(cfg: CfgNode) -> DatasetMapper:
    """The mapper that ``INPUT.MAPPER`` names; "auto" is "semantic" where every training dataset is
    one of semantic segmentation, else "detection". A video model has its own.

    Raises:
        UserError: another name, or a key of its augmentation that is out of range or has no effect.
    """
    kinds = [MetadataCatalog.get(name).get("evaluator_type") for name in cfg.DATASETS.TRAIN]
    automatic = kinds and all(kind in SEMANTIC_EVALUATORS for kind in kinds)
    name = cfg.INPUT.MAPPER
    if name == "auto":
        name = "semantic" if automatic else "detection"
    if name not in ("semantic", "detection"):
        raise UserError(f"INPUT.MAPPER '{name}' is not one of auto, semantic, detection")
    video = takes_clips(cfg)
    if video or name == "semantic":
        try:
            return (ClipMapper if video else SemanticMapper)(cfg, is_train=True)
        except ValueError as error:
            raise UserError(str(error)) from error
    keys = cfg.INPUT.SEM_SEG
    if keys.SCALE_RANGE or keys.COLOR_JITTER.ENABLED:
        raise UserError(
            f"INPUT.SEM_SEG has no effect on {', '.join(cfg.DATASETS.TRAIN)}, trained as for "
            "detection; set INPUT.MAPPER semantic"
        )
    return ReportingMapper(cfg, is_train=True)


def build_test_mapper(cfg: CfgNode) -> DatasetMapper:
    """The mapper of evaluation."""
    return (ClipMapper if takes_clips(cfg) else ReportingMapper)(cfg, is_train=False)


def common_flip_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The labels that a mirror exchanges, which must be the same in all datasets.

    Raises:
        ValueError: they are not.
    """
    pairs = {
        tuple(tuple(pair) for pair in MetadataCatalog.get(name).get("flip_pairs", ()))
        for name in names
    }
    if len(pairs) > 1:
        raise ValueError(
            f"the training sets {', '.join(names)} have different flip_pairs: train on one of "
            "them, or with INPUT.RANDOM_FLIP none"
        )
    return next(iter(pairs), ())


@contextlib.contextmanager
def _reporting(record: dict) -> Iterator[None]:
    """What keeps a file of ``record`` from being read becomes a UserError with the cure."""
    try:
        yield
    except (OSError, SyntaxError, SizeMismatchError) as error:
        raise UserError(
            f"cannot read {_culprit(record)} ({error}); put a good copy in its place "
            "or take it out of the annotations, then --resume"
        ) from error


def _culprit(dataset_dict: dict) -> str:
    """The label file if it is what cannot be read, else the image."""
    labels = dataset_dict.get("sem_seg_file_name")
    if labels is not None:
        try:
            read_image(labels)
        except (OSError, SyntaxError):
            return labels
    return dataset_dict["file_name"]
