"""The base of sliding windows and test-time augmentation: an average of several predictions."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ccsa.errors import UserError, one_of

# What is averaged, by the value of TEST.SEM_SEG_AVERAGE.
AVERAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda scores: scores,
    "softmax": lambda scores: scores.softmax(0),
}


class AveragedInference(nn.Module):
    """Run a model on several views of each input and average what it predicts.

    It is called as the model is, and returns "sem_seg" only. Subclasses define :meth:`predict`,
    which calls :meth:`scores` for each view.

    Args:
        model: list[dict] -> list[dict] with "sem_seg" (K, height, width), as Detectron2's models.
        average: ``logits`` averages what the model returns, ``softmax`` its softmax over classes.

    Raises:
        UserError: the average is unknown.
    """

    def __init__(self, model: nn.Module, average: str = "logits"):
        super().__init__()
        self.model = model
        self.transform = one_of(AVERAGES, average, "average")

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Tensor]]:
        """Return ``{"sem_seg": (K, height, width)}`` for each input.

        Args:
            batched_inputs: "image" (C, H, W), or (T, C, H, W) for a model that takes clips;
                optionally "height" and "width" of the output, by default those of the image.
        """
        return [{"sem_seg": self.predict(x)} for x in batched_inputs]

    def predict(self, x: dict[str, Any]) -> Tensor:
        """Return the averaged scores (K, height, width) of one input."""
        raise NotImplementedError(f"{type(self).__name__} does not define predict()")

    def scores(self, view: dict[str, Any]) -> Tensor:
        """Return what is averaged: the scores (K, height, width) of one view, as float32.

        Raises:
            UserError: the model does not return "sem_seg".
        """
        output = self.model([view])[0]
        if "sem_seg" not in output:
            raise UserError(
                "sliding windows, scales and flips need a model with a 'sem_seg' output, but this "
                f"one gives {', '.join(output)}: leave TEST.TILES and TEST.SEM_SEG_AUG "
                "disabled"
            )
        return self.transform(output["sem_seg"].float())
