"""What is exported of a model: tensors in, tensors out.

A semantic model is exported whole, from the image to its logits. Of a detector it is the backbone
with its context blocks: what comes after it (proposals, boxes) is lists of varying length.
"""

import copy
from typing import Any

from detectron2.modeling import Backbone
from torch import Tensor, nn

from ccsa.errors import UserError
from ccsa.modeling.layers import at_least_float32, resize


class Part(nn.Module):
    """A part of a model that takes images as Detectron2 gives them: 0 to 255, in the order of
    ``INPUT.FORMAT``.

    Attributes:
        outputs: names of what :meth:`forward` returns.
        multiple: what height and width must be multiples of.
        frames: how many images are one input: those of a clip, or 1.
    """

    outputs: list[str]
    multiple: int
    frames: int = 1

    def __init__(self, model: nn.Module):
        super().__init__()
        self.backbone: Backbone = with_constant_padding(copy.deepcopy(model.backbone))
        self.pixel_mean: Tensor
        self.register_buffer("pixel_mean", model.pixel_mean)
        self.register_buffer("pixel_std", model.pixel_std)

    def features(self, image: Tensor) -> dict[str, Tensor]:
        """Maps of the backbone, of an image (N, C, H, W) as it comes."""
        return self.backbone((image - self.pixel_mean) / self.pixel_std)


class SemanticPart(Part):
    """A semantic model: image (N, C, H, W) -> float32 logits (N, classes, H, W); of video, a clip
    (T, C, H, W) -> those of its labelled frame, (1, classes, H, W)."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.head = model.sem_seg_head
        self.outputs = ["logits"]
        self.frames = getattr(self.head, "frames", 1)
        # Strides up to 32: where no stage has a rest, one program has the sizes of all.
        self.multiple = max(32, self.backbone.size_divisibility)

    def forward(self, image: Tensor) -> tuple[Tensor]:
        logits = at_least_float32(self.head.layers(self.features(image)))
        align_corners = getattr(self.head, "align_corners", False)
        return (resize(logits, image.shape[-2:], align_corners),)


class BackbonePart(Part):
    """A backbone with its blocks: image (N, C, H, W) -> its maps, in the order of ``outputs``."""

    def __init__(self, model: nn.Module):
        super().__init__(model)
        shapes = self.backbone.output_shape()
        self.outputs = list(shapes)
        self.multiple = max(32, *(shape.stride for shape in shapes.values()))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = self.features(image)
        return tuple(maps[name] for name in self.outputs)


def with_constant_padding(module: nn.Module) -> nn.Module:
    """Replace, in place, convolutions of timm that pad as TensorFlow does, by the size of the map.
    Their stride divides the maps of a part, so that the padding is always the same; as a formula of
    the size it takes torch.export minutes.

    By ``__class__`` the layer becomes a plain convolution and keeps everything else. Layers of
    timm's that pad so and do more stay as they are, with their formula: MaxPool2dSame,
    AvgPool2dSame, StdConv2dSame.
    """
    for name, child in module.named_children():
        if type(child).__name__ != "Conv2dSame" or list(child.children()):  # a block is in there
            with_constant_padding(child)
            continue
        sizes = zip(child.kernel_size, child.stride, child.dilation, strict=True)
        rows, columns = (max((kernel - 1) * dilation + 1 - s, 0) for kernel, s, dilation in sizes)
        ends = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
        plain = copy.copy(child)  # shares the weights
        plain.__class__ = nn.Conv2d
        module.add_module(name, nn.Sequential(nn.ZeroPad2d(ends), plain))
    return module


def exported_part(model: Any) -> Part:
    """The part of a model that can be exported, in evaluation mode.

    Raises:
        UserError: a model without a backbone of Detectron2's kind.
    """
    names = ("backbone", "pixel_mean", "pixel_std")
    if not all(hasattr(model, name) for name in names):
        raise UserError(
            f"a {type(model).__name__} cannot be exported: it has no {', '.join(names)}; "
            "semantic models and those of GeneralizedRCNN's kind can"
        )
    head = getattr(model, "sem_seg_head", None)
    semantic = hasattr(head, "layers") and not hasattr(model, "roi_heads")
    return (SemanticPart if semantic else BackbonePart)(model).eval()
