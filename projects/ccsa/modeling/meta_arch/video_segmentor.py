"""VideoSemanticSegmentor: semantic segmentation of one labeled frame per clip."""

from typing import Any

from detectron2.config import configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.structures import ImageList
from torch import Tensor

from ccsa.errors import UserError
from ccsa.modeling.meta_arch.dense_segmentor import DenseSegmentor
from ccsa.modeling.semantic_heads.video_ccnet import VideoCCNetHead


@META_ARCH_REGISTRY.register()
class VideoSemanticSegmentor(DenseSegmentor):
    """DenseSegmentor on clips of T frames, for VideoCCNetHead.

    The ``image`` of each input has shape (T, C, H, W), or (C, H, W) for T = 1. ``sem_seg`` and the
    outputs belong to the labeled frame.

    Raises:
        UserError: another semantic head, which does not take clips.
    """

    takes_clips = True  # read by ccsa.modeling.clip.takes_clips when data loaders are built

    @configurable
    def __init__(self, **arguments: Any):
        super().__init__(**arguments)
        if not isinstance(self.sem_seg_head, VideoCCNetHead):
            raise UserError(
                "VideoSemanticSegmentor needs MODEL.SEM_SEG_HEAD.NAME VideoCCNetHead, not "
                f"{type(self.sem_seg_head).__name__}, which does not take clips"
            )

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Run the model as DenseSegmentor does.

        Raises:
            UserError: the number of frames of a clip is not that of the model.
        """
        frames = [frame for x in batched_inputs for frame in self._frames(x["image"])]
        images = self._batch(frames)
        features = self.backbone(images.tensor)
        if not self.training:
            return self._results(self.sem_seg_head.layers(features), images, batched_inputs)
        targets = None
        if "sem_seg" in batched_inputs[0]:
            targets = ImageList.from_tensors(
                [x["sem_seg"].to(self.device) for x in batched_inputs],
                self.backbone.size_divisibility,
                self.sem_seg_head.ignore_value,
                self.backbone.padding_constraints,
            ).tensor
        return self.sem_seg_head(features, targets)[1]

    def _frames(self, clip: Tensor) -> Tensor:
        """Return a clip as (T, C, H, W), after checking T."""
        frames, wanted = len(clip) if clip.ndim == 4 else 1, self.sem_seg_head.frames
        if frames != wanted:
            raise UserError(
                f"the model takes clips of {wanted} frames (INPUT.CLIP.FRAMES) but was given "
                f"{frames}; give it a video"
            )
        return clip if clip.ndim == 4 else clip[None]
