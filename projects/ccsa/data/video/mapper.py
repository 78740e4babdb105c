"""The dataset mapper of video models: the frames of a clip, augmented together."""

import copy
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import transforms as T
from detectron2.data.detection_utils import check_image_size
from fvcore.transforms.transform import Transform

from ccsa.data.image_reader import read_image
from ccsa.data.mapper import FIX, SemanticMapper, report_failures
from ccsa.data.tasks import has_label


class ClipMapper(SemanticMapper):
    """A SemanticMapper for records with ``clip_file_names``, see
    :func:`ccsa.data.video.clips.with_clips`."""

    def __call__(self, dataset_dict: dict[str, Any]) -> dict[str, Any]:
        """Return the model inputs of a record: ``image`` (T, C, H, W), in order of time, and
        ``sem_seg`` (H, W) of the labeled frame.

        Raises:
            UserError: a frame or label file is missing or corrupt, or has another size.
        """
        record = copy.deepcopy(dataset_dict)
        labeled, names = record["file_name"], record["clip_file_names"]
        # Each file is read once, and the labeled one first: its size is that of all.
        frames = {file: self._frame(record, file) for file in dict.fromkeys([labeled, *names])}
        with report_failures(dataset_dict):
            labels = self.read_label(record) if has_label(record) else None
            record.pop("sem_seg_file_name", None)
            clip = ClipInput([frames[name] for name in names], names.index(labeled), labels)
            self.augmentations(clip)
        pixels = np.stack(clip.frames).transpose(0, 3, 1, 2)
        record["image"] = torch.as_tensor(np.ascontiguousarray(pixels))
        if clip.sem_seg is not None:
            record["sem_seg"] = torch.as_tensor(clip.sem_seg.astype("long"))
        return record

    def _frame(self, record: dict[str, Any], file: str) -> np.ndarray:
        """Return a frame (H, W, 3). Its size must be that of ``record``, or is added to it."""
        with report_failures({"file_name": file}):
            frame = read_image(file, self.image_format, self.intensity_range, fix=FIX)
            check_image_size(record, frame)
        return frame


class ClipInput(T.AugInput):
    """The input of augmentations: they see the labeled frame and its labels, and whatever transform
    they choose is applied to every frame.

    Args:
        frames: frames (H, W, 3) of the same size.
        labeled: index of the labeled frame.
        sem_seg: labels (H, W), or None.
    """

    def __init__(self, frames: Sequence[np.ndarray], labeled: int, sem_seg: np.ndarray | None):
        super().__init__(frames[labeled], sem_seg=sem_seg)
        self.sem_seg: np.ndarray | None = sem_seg
        self.frames, self.labeled = list(frames), labeled

    def transform(self, tfm: Transform) -> None:
        """Apply ``tfm`` to every frame and to the labels, in place."""
        # Color jitter draws from this generator when it is applied: each frame sees the same state.
        state = random.getstate()
        for index, frame in enumerate(self.frames):
            random.setstate(state)
            self.frames[index] = tfm.apply_image(frame)
        self.image = self.frames[self.labeled]
        if self.sem_seg is not None:
            self.sem_seg = tfm.apply_segmentation(self.sem_seg)
