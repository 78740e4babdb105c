"""Dataset mappers: Detectron2's, with a clear word about a file that cannot be read, and one with
the augmentation of semantic segmentation."""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data.detection_utils import SizeMismatchError, read_image

from ccsa.data.semantic.augmentation import semantic_augmentations
from ccsa.errors import UserError

SEMANTIC_EVALUATORS = ("sem_seg", "cityscapes_sem_seg")


class ReportingMapper(DatasetMapper):
    """DatasetMapper that names the file it cannot read, and the cure."""

    def __call__(self, dataset_dict: dict) -> dict:
        """As DatasetMapper.

        Raises:
            UserError: an image or label file that is missing, corrupt or of another size than its
                annotation says.
        """
        try:
            return super().__call__(dataset_dict)
        except (OSError, SyntaxError, SizeMismatchError) as error:
            raise UserError(
                f"cannot read {_culprit(dataset_dict)} ({error}); put a good copy in its place "
                "or take it out of the annotations, then --resume"
            ) from error


class SemanticMapper(ReportingMapper):
    """ReportingMapper whose training augmentation is that of
    :func:`ccsa.data.semantic.augmentation.semantic_augmentations`."""

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict[str, Any]:
        arguments = super().from_config(cfg, is_train)
        if is_train:
            mirrors = cfg.INPUT.RANDOM_FLIP == "horizontal"
            pairs = common_flip_pairs(cfg.DATASETS.TRAIN) if mirrors else ()
            arguments["augmentations"] = semantic_augmentations(cfg, pairs)
        return arguments


def build_train_mapper(cfg: CfgNode) -> DatasetMapper:
    """The mapper that ``INPUT.MAPPER`` names; "auto" is "semantic" where every training dataset is
    one of semantic segmentation, else "detection".

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
    if name == "semantic":
        try:
            return SemanticMapper(cfg, is_train=True)
        except ValueError as error:
            raise UserError(str(error)) from error
    keys = cfg.INPUT.SEM_SEG
    if keys.SCALE_RANGE or keys.COLOR_JITTER.ENABLED:
        raise UserError(
            f"INPUT.SEM_SEG has no effect on {', '.join(cfg.DATASETS.TRAIN)}, trained as for "
            "detection; set INPUT.MAPPER semantic"
        )
    return ReportingMapper(cfg, is_train=True)


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


def _culprit(dataset_dict: dict) -> str:
    """The label file if it is what cannot be read, else the image."""
    labels = dataset_dict.get("sem_seg_file_name")
    if labels is not None:
        try:
            read_image(labels)
        except (OSError, SyntaxError):
            return labels
    return dataset_dict["file_name"]
