"""The segmentation head of CCNet for video: 3D criss-cross attention over the frames of a clip.

CCNet: Criss-Cross Attention for Semantic Segmentation, Huang et al., TPAMI 2020, arXiv 1811.11721,
section 3.5. Backbone and reduction process each frame separately, as an image of the batch. The
context blocks process (B, C, T, h, w). Everything after them processes only the labeled frame. The
official code has no video model; except for the attention, this is CCNet's head for images.

Dimensions: B clips, T frames per clip, C channels, h x w positions.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import Tensor

from ccsa.blocks.spec import BlockSpec, parse_block_spec
from ccsa.errors import UserError, at_least, shown
from ccsa.modeling.clip import Clip, takes_clips
from ccsa.modeling.semantic_heads.ccnet import CCNetHead
from ccsa.modeling.semantic_heads.fcn import FCN


@SEM_SEG_HEADS_REGISTRY.register()
class VideoCCNetHead(CCNetHead):
    """CCNetHead on the features of clips, (B * T, C, h, w), the frames of a clip in order.

    Logits and labels belong to one frame of each clip, (B, ...).

    Args:
        input_shape: the shapes of the backbone's features, by name.
        frames: the number of frames T.
        labelled: the index of the labeled frame; by default the last one.
        blocks: as in :class:`CCNetHead`; ``dims: 3`` is added to the keywords of each block.
        rest: the other arguments of :class:`CCNetHead`.

    Raises:
        UserError: an invalid setting, a block that only takes images, or a configuration whose
            meta-architecture does not take clips.
    """

    @configurable
    def __init__(
        self,
        input_shape: Mapping[str, ShapeSpec],
        *,
        frames: int = 5,
        labelled: int = -1,
        blocks: Sequence[Mapping[str, Any] | BlockSpec] = (
            {"block": "CrissCross", "recurrence": 2},
        ),
        **rest: Any,
    ):
        at_least(1, frames=frames)
        if not -frames <= labelled < frames:
            raise UserError(f"labelled must be the index of one of {frames} frames, not {labelled}")
        specs = [_three_dimensional(parse_block_spec(spec)) for spec in blocks]
        super().__init__(input_shape, blocks=specs, **rest)
        self.frames, self.labelled = frames, labelled

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: Mapping[str, ShapeSpec]) -> dict[str, Any]:
        clip = Clip.of(cfg)
        if clip.frames > 1 and not takes_clips(cfg):
            raise UserError(
                f"VideoCCNetHead takes {clip.frames} images of a batch for the frames of one clip, "
                "and only VideoSemanticSegmentor batches them so: set MODEL.META_ARCHITECTURE (or "
                "MODEL.CONTEXT.META_ARCHITECTURE) to it, or set INPUT.CLIP.FRAMES 1"
            )
        arguments = super().from_config(cfg, input_shape)
        return {**arguments, "frames": clip.frames, "labelled": clip.labelled}

    def _auxiliary_logits(self, auxiliary: FCN, features: Mapping[str, Tensor]) -> Tensor:
        """Return the auxiliary logits of the labeled frames."""
        return auxiliary(self._split_clips(features[self.aux_feature])[:, self.labelled])

    def _attend(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (x, a, b) of the labeled frames, each (B, C, h, w)."""
        clips = self._split_clips(self.reduction(x)).transpose(1, 2)  # (B, C, T, h, w)
        reduced, attended = (y[:, :, self.labelled] for y in (clips, self.attention(clips)))
        return self._split_clips(x)[:, self.labelled], reduced, attended

    def _split_clips(self, x: Tensor) -> Tensor:
        """Return (B * T, C, h, w) as (B, T, C, h, w)."""
        # A trace takes the sizes of unflatten to be constants.
        return x.reshape(x.shape[0] // self.frames, self.frames, *x.shape[1:])


def _three_dimensional(spec: BlockSpec) -> BlockSpec:
    """Return the specification with ``dims: 3``, for feature maps (B, C, T, h, w).

    Raises:
        UserError: the specification states other dimensions.
    """
    dims = spec.keywords.get("dims", 3)
    if dims != 3:
        raise UserError(
            f"the blocks of a video head need dims: 3, not {shown(dims)} ({spec.block})"
        )
    return spec._replace(keywords={"dims": 3, **spec.keywords})
