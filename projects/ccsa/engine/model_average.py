"""The exponential moving average of the weights (EMA), as torch's AveragedModel computes it."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ccsa.checkpoint import Checkpointer

FILE = "model_ema"


class MovingAverage(HookBase):
    """Averages the weights over the iterations, and writes them to ``model_ema.pth`` at the end.

    After update n, the average is ``d * average + (1 - d) * weights`` with
    ``d = min(decay, (1 + n) / (10 + n))``. The smaller factor of the first updates lets the average
    forget the initial weights, as in TensorFlow's ExponentialMovingAverage. Floating-point buffers,
    such as the statistics of batch norm, are averaged as well.

    The average is part of the checkpoints, so that a resumed run continues it.

    Args:
        decay: the largest factor of the previous average.
    """

    def __init__(self, decay: float):
        self.decay = decay
        self._averaged: AveragedModel | None = None
        self._loaded: dict[str, Any] | None = None

    @property
    def model(self) -> nn.Module:
        """The model with averaged weights."""
        return self._average().module

    def _average(self) -> AveragedModel:
        if self._averaged is None:
            model = self.trainer.checkpointer.model
            self._averaged = AveragedModel(model, multi_avg_fn=self._update, use_buffers=True)
            if self._loaded is not None:
                self._averaged.load_state_dict(self._loaded)
        return self._averaged

    def _update(
        self, average: Sequence[Tensor], current: Sequence[Tensor], updates: int | Tensor
    ) -> None:
        count = int(updates)
        decay = min(self.decay, (1 + count) / (10 + count))
        if torch.is_floating_point(average[0]):
            torch._foreach_lerp_(list(average), list(current), 1 - decay)
        else:  # counters
            torch._foreach_copy_(list(average), list(current))

    def before_train(self) -> None:
        self._average()

    def after_step(self) -> None:
        self._average().update_parameters(self.trainer.checkpointer.model)

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter and comm.is_main_process():
            self.save()

    def save(self) -> None:
        """Write the averaged weights, which any tool loads, beside the checkpoints."""
        checkpointer = Checkpointer(self.model, self.trainer.checkpointer.save_dir)
        checkpointer.entries = self.trainer.checkpointer.entries
        checkpointer.save(FILE, is_last=False, iteration=self.trainer.iter)

    def state_dict(self) -> dict[str, Any]:
        return copy.copy(self._average().state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict
        if self._averaged is not None:
            self._averaged.load_state_dict(state_dict)
