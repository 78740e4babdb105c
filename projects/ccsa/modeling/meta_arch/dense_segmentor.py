"""A semantic segmentor that upsamples to the exact size of its input.

Detectron2's SemanticSegmentor multiplies the size of the logits by the stride, then cuts. With
``align_corners`` that is wrong where the stride does not divide the input: 97 positions become 776
pixels rather than 769, and what is cut off was stretched. Training needs no change: there the
labels give the size, padded with the head's ``ignore_value``.
"""

from typing import Any

from detectron2.modeling import META_ARCH_REGISTRY, SemanticSegmentor
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import ImageList
from torch import Tensor

from ccsa.modeling.layers import at_least_float32, resize


@META_ARCH_REGISTRY.register()
class DenseSegmentor(SemanticSegmentor):
    """Detectron2's SemanticSegmentor for heads with ``layers(features)`` that gives logits (and, of
    choice, ``align_corners``); keys and training are the same."""

    def forward(self, batched_inputs: list[dict[str, Any]]) -> Any:
        """As SemanticSegmentor: losses in training; else one ``{"sem_seg": (C, height, width)}``
        for each image, float32 logits."""
        if self.training:
            return super().forward(batched_inputs)
        images = self._batch([x["image"] for x in batched_inputs])
        logits = self.sem_seg_head.layers(self.backbone(images.tensor))
        return self._results(logits, images, batched_inputs)

    def _batch(self, images: list[Tensor]) -> ImageList:
        """Images (C, H, W), normalized and padded to one size."""
        return ImageList.from_tensors(
            [(image.to(self.device) - self.pixel_mean) / self.pixel_std for image in images],
            self.backbone.size_divisibility,
            padding_constraints=self.backbone.padding_constraints,
        )

    def _results(
        self, logits: Tensor, images: ImageList, batched_inputs: list[dict[str, Any]]
    ) -> list[dict[str, Tensor]]:
        """Logits (N, C, h, w) in the size that each input asks for."""
        align_corners = getattr(self.sem_seg_head, "align_corners", False)
        results = []
        for each, x in zip(at_least_float32(logits), batched_inputs, strict=True):
            size = tuple(x["image"].shape[-2:])
            whole = resize(each[None], images.tensor.shape[-2:], align_corners)[0]
            output = x.get("height", size[0]), x.get("width", size[1])
            results.append({"sem_seg": sem_seg_postprocess(whole, size, *output)})
        return results
