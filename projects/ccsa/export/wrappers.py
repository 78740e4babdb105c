"""The parts of models that can be exported: modules from tensors to tensors.

A semantic model is exported completely, from the image to its logits, and a detector as
:mod:`ccsa.export.rcnn` describes. Of a panoptic model, the backbone with its context blocks is
exported.
"""

import copy
from typing import Any

from detectron2.config import CfgNode
from detectron2.modeling import Backbone
from torch import Tensor, nn

from ccsa.errors import UserError
from ccsa.export.rcnn import instance_part
from ccsa.export.semantic import SemanticProgram
from ccsa.export.whole import WholePart
from ccsa.modeling.layers import at_least_float32, resize


class Part(nn.Module):
    """Base class of the parts: the input is an image as Detectron2 loads it, with values from 0 to
    255 in the channel order of ``INPUT.FORMAT``.

    Attributes:
        outputs: the names of the tensors that :meth:`forward` returns.
        multiple: the number that height and width must be multiples of.
        frames: the number of images in one input: the frames of a clip, or 1.
    """

    outputs: list[str]
    multiple: int
    frames: int = 1

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: Any):
        super().__init__()
        self.backbone: Backbone = with_constant_padding(copy.deepcopy(model.backbone))
        self.register_buffer("pixel_mean", model.pixel_mean)
        self.register_buffer("pixel_std", model.pixel_std)

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """Return the backbone's feature maps, by name, of an image (N, C, H, W)."""
        return self.backbone((image - self.pixel_mean) / self.pixel_std)


class SemanticPart(Part):
    """A complete semantic model, from an image to float32 logits at the size of the image.

    Images (N, C, H, W) give (N, num_classes, H, W). For a video model, a clip (T, C, H, W) gives
    the logits of its labeled frame, (1, num_classes, H, W).
    """

    def __init__(self, model: Any):
        super().__init__(model)
        self.head = model.sem_seg_head
        self.outputs = ["logits"]
        self.frames = getattr(self.head, "frames", 1)
        # With strides up to 32, every stage then divides evenly, so one program fits all sizes.
        self.multiple = max(32, self.backbone.size_divisibility)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        """Return the logits, as a tuple of one tensor."""
        logits = at_least_float32(self.head.layers(self.features(image)))
        align_corners = getattr(self.head, "align_corners", False)
        return (resize(logits, image.shape[-2:], align_corners),)


class BackbonePart(Part):
    """A backbone with its context blocks, from an image (N, C, H, W) to its feature maps."""

    def __init__(self, model: Any):
        super().__init__(model)
        shapes = self.backbone.output_shape()
        self.outputs = list(shapes)
        self.multiple = max(32, *(shape.stride for shape in shapes.values()))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Return the feature maps in the order of ``outputs``, the finest first."""
        features = self.features(image)
        return tuple(features[name] for name in self.outputs)


def with_constant_padding(module: nn.Module) -> nn.Module:
    """Replace timm's convolutions with TensorFlow padding by convolutions with constant padding.

    TensorFlow padding depends on the size of the feature map. In a :class:`Part`, the stride
    divides that size, so the padding is constant; as a formula of the size, it takes torch.export
    minutes. Assigning ``__class__`` turns the layer into a plain convolution and keeps everything
    else. timm's other layers with this padding (MaxPool2dSame, AvgPool2dSame, StdConv2dSame) do
    more than a convolution, so they keep their formula.

    Args:
        module: modified in place.

    Returns:
        ``module``.
    """
    for name, child in module.named_children():
        # A convolution with a child contains a context block.
        if type(child).__name__ != "Conv2dSame" or list(child.children()):
            with_constant_padding(child)
            continue
        conv: Any = child
        sizes = zip(conv.kernel_size, conv.stride, conv.dilation, strict=True)
        rows, columns = (max((kernel - 1) * dilation + 1 - s, 0) for kernel, s, dilation in sizes)
        ends = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        plain = copy.copy(conv)  # shares the weights
        plain.__class__ = nn.Conv2d
        module.add_module(name, nn.Sequential(nn.ZeroPad2d(ends), plain))
    return module


def exported_part(model: Any, cfg: CfgNode | None = None) -> Part | WholePart:
    """Return the part of a model that can be exported, in evaluation mode.

    Args:
        model: a semantic model, or a model with the structure of GeneralizedRCNN.
        cfg: its configuration. A detector or a semantic model is then exported completely, from an
            image of any size to its results. Without it, the part takes float32 images whose size
            is a multiple: of a detector, its backbone is exported. With ``TEST.TILES``, the image
            is a tile and is not resized, because tiles are cut from the resized image.

    Raises:
        UserError: the model has no ``backbone``, ``pixel_mean`` or ``pixel_std``, or its heads are
            of a kind that cannot be exported.
    """
    if cfg is not None and cfg.TEST.TILES.ENABLED:
        cfg = cfg.clone()
        cfg.defrost()
        cfg.INPUT.MIN_SIZE_TEST = 0
    whole = instance_part(cfg, model) if cfg is not None else None
    if whole is not None:
        return whole
    names = ("backbone", "pixel_mean", "pixel_std")
    if not all(hasattr(model, name) for name in names):
        raise UserError(
            f"a {type(model).__name__} cannot be exported: it has no {', '.join(names)}; "
            "semantic models and models like GeneralizedRCNN can"
        )
    head = getattr(model, "sem_seg_head", None)
    semantic = hasattr(head, "layers") and not hasattr(model, "roi_heads")
    if semantic and cfg is not None:
        return SemanticProgram(cfg, model).eval()
    return (SemanticPart if semantic else BackbonePart)(model).eval()
