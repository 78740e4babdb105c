"""DenseSegmentor: semantic segmentation with logits upsampled to the exact size of the input.

Detectron2's SemanticSegmentor multiplies the size of the logits by the stride and crops the result.
With ``align_corners`` this is wrong if the stride does not divide the input size: 97 positions
become 776 pixels instead of 769, so the cropped logits are stretched. Training needs no change,
because logits are resized to the labels, which are padded with the head's ``ignore_value``.
"""

from typing import Any

from detectron2.modeling import META_ARCH_REGISTRY, SemanticSegmentor
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import ImageList
from torch import Tensor

from ccsa.modeling.layers import at_least_float32, resize


@META_ARCH_REGISTRY.register()
class DenseSegmentor(SemanticSegmentor):
    """Detectron2's SemanticSegmentor with exact upsampling; keys and training are the same.

    The head needs a method ``layers(features)`` that returns logits at the stride of its features.
    Its attribute ``align_corners`` is used if it has one.
    """

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """Run the model as SemanticSegmentor does.

        Args:
            batched_inputs: one Detectron2 input per image, with ``image`` of shape (C, H, W).

        Returns:
            In training, the losses by name; otherwise one ``{"sem_seg": logits}`` per image, with
            float32 logits of shape (num_classes, height, width).
        """
        if self.training:
            return super().forward(batched_inputs)
        images = self._batch([x["image"] for x in batched_inputs])
        logits = self.sem_seg_head.layers(self.backbone(images.tensor))
        return self._results(logits, images, batched_inputs)

    def _batch(self, images: list[Tensor]) -> ImageList:
        """Return images, each (C, H, W), normalized and padded to one size."""
        return ImageList.from_tensors(
            [(image.to(self.device) - self.pixel_mean) / self.pixel_std for image in images],
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

    def _results(
        self, logits: Tensor, images: ImageList, batched_inputs: list[dict[str, Any]]
    ) -> list[dict[str, Tensor]]:
        """Return logits (N, C, h, w) resized to the output size of each input."""
        align_corners = getattr(self.sem_seg_head, "align_corners", False)
        results = []
        for each, x in zip(at_least_float32(logits), batched_inputs, strict=True):
            size = tuple(x["image"].shape[-2:])
            padded = resize(each[None], images.tensor.shape[-2:], align_corners)[0]
            output = x.get("height", size[0]), x.get("width", size[1])
            results.append({"sem_seg": sem_seg_postprocess(padded, size, *output)})
        return results
