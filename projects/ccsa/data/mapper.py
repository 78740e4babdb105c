"""Dataset mappers of image models: from a record to the inputs of the model.

:class:`ReportingMapper` is Detectron2's DatasetMapper with errors that name the damaged file;
:class:`SemanticMapper` adds the training augmentation of semantic segmentation. The mapper of video
models is in :mod:`ccsa.data.video.mapper`; :mod:`ccsa.data.loaders` selects among the three.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetMapper, MetadataCatalog
from detectron2.data.detection_utils import SizeMismatchError, read_image

from ccsa.data.transforms.semantic import semantic_augmentations
from ccsa.errors import UserError


class ReportingMapper(DatasetMapper):
    """A DatasetMapper whose error names the file that cannot be read, and how to fix it."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Return the model inputs of a record, as DatasetMapper does.

        Raises:
            UserError: an image or label file is missing or corrupt, or its size is not the one in
                the annotations.
        """
        with report_unreadable_files(dataset_dict):
            return super().__call__(dataset_dict)


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
def report_unreadable_files(record: dict[str, Any]) -> Iterator[None]:
    """Turn the error of a file of ``record`` that cannot be read into one that names the file.

    Raises:
        UserError: an image or label file is missing or corrupt, or has another size.
    """
    try:
        yield
    except (OSError, SyntaxError, SizeMismatchError) as error:
        raise UserError(
            f"cannot read {_unreadable_file(record)} ({error}); replace it with an intact copy "
            "or remove it from the annotations, then continue with --resume"
        ) from error


def _unreadable_file(record: dict[str, Any]) -> str:
    """Return the label file if it cannot be read, otherwise the image."""
    labels = record.get("sem_seg_file_name")
    if labels is not None:
        try:
            read_image(labels)
        except (OSError, SyntaxError):
            return labels
    return record["file_name"]
