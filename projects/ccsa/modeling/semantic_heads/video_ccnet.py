"""Semantic segmentation of video: 3D criss-cross attention over the frames of a clip.

CCNet: Criss-Cross Attention for Semantic Segmentation, Huang et al., TPAMI 2020, arXiv 1811.11721,
section 3.5. Each frame goes through backbone and reduction alone, as an image of the batch; the
context blocks see (B, C, T, h, w); all that follows is of the labelled frame alone. The official
code has no video model, so that all but the attention is CCNet's head for images.

Dimensions: B clips, T frames of each, C channels, h x w positions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor

from ccsa.blocks.spec import BlockSpec, parse_block_spec
from ccsa.errors import UserError, at_least
from ccsa.modeling.clip import Clip, takes_clips
from ccsa.modeling.semantic_heads.ccnet import CCNetHead


@SEM_SEG_HEADS_REGISTRY.register()
class VideoCCNetHead(CCNetHead):
    """CCNetHead on features (B * T, C, h, w), the frames of each clip one after the other. Logits
    and labels are of one frame of each, (B, ...).

    Args:
        input_shape: of the backbone's features.
        frames: T.
        labelled: index of the labelled frame; the last one by default.
        context: as of CCNetHead; the blocks take ``dims: 3``, which need not be written.
        The rest: see CCNetHead.

    Raises:
        ValueError: a setting that is not one of these, a block that is for images alone, or a
            configuration whose meta-architecture gives no clips.
    """

    @configurable
    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        frames: int = 5,
        labelled: int = -1,
        context: Sequence[Mapping[str, Any]] = ({"block": "CrissCross", "recurrence": 2},),
        **rest: Any,
    ):
        at_least(1, frames=frames)
        if not -frames <= labelled < frames:
            raise ValueError(
                f"labelled must be the index of one of {frames} frames, not {labelled}"
            )
        blocks = [_three_dimensional(parse_block_spec(spec)) for spec in context]
        super().__init__(input_shape, context=blocks, **rest)
        self.frames, self.labelled = frames, labelled

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        clip = Clip.of(cfg)
        if clip.frames > 1 and not takes_clips(cfg):
            raise ValueError(
                f"VideoCCNetHead takes {clip.frames} images of a batch for the frames of one clip, "
                "which only VideoSemanticSegmentor gives it: name that meta-architecture, or set "
                "INPUT.CLIP.FRAMES 1"
            )
        arguments = super().from_config(cfg, input_shape)
        return {**arguments, "frames": clip.frames, "labelled": clip.labelled}

    def _attend(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        clip = self._clips(self.reduction(x)).transpose(1, 2)  # (B, C, T, h, w)
        reduced, attended = (y[:, :, self.labelled] for y in (clip, self.attention(clip)))
        return self._clips(x)[:, self.labelled], reduced, attended

    def auxiliary_losses(
        self, features: Mapping[str, Tensor], targets: Tensor
    ) -> dict[str, Tensor]:
        labelled = {name: self._clips(x)[:, self.labelled] for name, x in features.items()}
        return super().auxiliary_losses(labelled, targets)

    def _clips(self, x: Tensor) -> Tensor:
        """(B * T, C, h, w) -> (B, T, C, h, w)."""
        return x.unflatten(0, (-1, self.frames))


def _three_dimensional(spec: BlockSpec) -> BlockSpec:
    """Return the specification with ``dims: 3``, for feature maps (B, C, T, h, w).

    Raises:
        UserError: the specification states other dimensions.
    """
    dims = spec.keywords.get("dims", 3)
    if dims != 3:
        raise UserError(f"the blocks of a video head need dims: 3, not {dims!r} ({spec.block})")
    return spec._replace(keywords={"dims": 3, **spec.keywords})
