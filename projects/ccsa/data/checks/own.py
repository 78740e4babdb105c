"""Checks of a user's own data, which this project's readers have read."""

from collections.abc import Sequence

from ccsa.data.checks.dataset import Checked, check_records
from ccsa.data.folder import FolderDataset
from ccsa.data.problems import Problems
from ccsa.data.tasks import DETECTION, PANOPTIC, SEMANTIC, TaskData, derive

# Kinds that a reader and the check of its records both report; that of the reader is kept.
_BY_BOTH = ("box_outside_image", "polygon_outside_image")


def natural_kind(data: FolderDataset) -> str:
    """Return the richest kind of model that data suits: ``panoptic`` for panoptic annotations,
    ``semantic`` for a class per pixel without objects, otherwise ``detection``."""
    if data.has_segments:
        return PANOPTIC
    return SEMANTIC if data.has_labels and not data.has_boxes else DETECTION


def check_folder(
    data: FolderDataset,
    task: TaskData | None = None,
    *,
    masks: bool | None = None,
    intensity_range: Sequence[float] | None = None,
    seconds: float | None = None,
    cache: bool = True,
) -> Checked:
    """Check a user's data.

    Args:
        data: of :func:`ccsa.data.read_folder`.
        task: what a model is trained on; by default that of :func:`natural_kind`.
        masks: whether the model needs masks; None if it is not known.
        intensity_range: (low, high) that maps images of more than 8 bits; None if not known.
        seconds: limit for reading files, see :func:`ccsa.data.checks.dataset.check_records`.
        cache: take the result for unchanged files from an earlier check.

    Raises:
        UserError: the data does not suit the task.
    """
    task = task or derive(data, natural_kind(data))
    checked = check_records(
        task.splits,
        things=task.thing_classes,
        stuff=task.stuff_classes,
        source=data.root,
        masks=bool(masks),
        intensity_range=intensity_range,
        validated=True,
        seconds=seconds,
        cache=cache,
    )
    problems = Problems()
    problems.extend(data.problems, without=["missing_mask"] if masks is False else [])
    problems.extend(checked.problems, without=[k for k in _BY_BOTH if data.problems.counts[k]])
    return Checked(problems, checked.images, checked.decoded)
