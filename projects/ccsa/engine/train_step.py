"""One training step: forward and backward pass, checks of what they gave, and the update.

It replaces Detectron2's SimpleTrainer and AMPTrainer by one class, which also accumulates the
gradients of the parts of a batch, logs the norm of the gradient, and never updates the weights with
a loss or a gradient that is not finite.
"""

import contextlib
import functools
import itertools
import math
import operator
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from detectron2.engine import SimpleTrainer
from detectron2.layers import FrozenBatchNorm2d
from detectron2.utils import comm
from detectron2.utils.events import get_event_storage
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ccsa.errors import UserError

MAX_SKIPPED = 20  # updates in a row that loss scaling may skip
_NAMED = 8  # images that a message names
_FIX = (
    "lower SOLVER.BASE_LR, raise SOLVER.WARMUP_ITERS, or set SOLVER.CLIP_GRADIENTS.ENABLED True, "
    "then continue with --resume"
)


class TrainStep(SimpleTrainer):
    """Detectron2's SimpleTrainer, with mixed precision on every device and these safeguards:

    * A loss or gradient that is not finite raises before the weights are updated, in every process
      of the job, and the buffers of the model (such as the statistics of batch norm) are restored.
    * The norm of the gradient of every update, before clipping, is logged as ``grad_norm``.

    Args:
        model, data_loader, optimizer: as in SimpleTrainer.
        precision: the type of autocast; None for the type of the weights.
        scaler: the loss scaling of float16. A skipped update is not an error, because the scale is
            reduced until gradients are finite; twenty in a row are.
        parts: the number of parts into which the images of this process are divided. Each part has
            its own forward and backward pass, which needs less memory. The gradient is the average
            over images of the gradients of the parts.

    Raises:
        UserError: by :meth:`run_step`, for a loss or gradient that is not finite.

    Example::

        step = TrainStep(model, loader, optimizer, precision=torch.bfloat16, parts=4)
        step.train(start_iter=0, max_iter=1000)
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable,
        optimizer: torch.optim.Optimizer,
        *,
        precision: torch.dtype | None = None,
        scaler: torch.amp.GradScaler | None = None,
        parts: int = 1,
    ):
        super().__init__(model, data_loader, optimizer)
        self.precision, self.grad_scaler, self.parts = precision, scaler, parts
        self.skipped = 0  # updates that loss scaling has skipped since the last one
        self._device = next(model.parameters()).device
        self._buffers = [
            buffer
            for module in model.modules()
            if not isinstance(module, FrozenBatchNorm2d)
            for buffer in module.buffers(recurse=False)
        ]
        self._saved = [torch.empty_like(buffer) for buffer in self._buffers]

    def run_step(self) -> None:
        """Read a batch and update the weights once."""
        start = time.perf_counter()
        batch = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        self.optimizer.zero_grad()
        copy_tensors(self._buffers, self._saved)
        losses = self._losses_and_gradients(batch)
        self.after_backward()
        norm = self._gradient_norm()
        self._check_finite(batch, losses, norm)
        self._write_metrics(losses, data_time)
        get_event_storage().put_scalar("grad_norm", norm, smoothing_hint=False)
        self._update()

    def _losses_and_gradients(self, batch: Sequence) -> Mapping[str, Tensor]:
        """Return the losses of a batch, averaged over its images, and add their gradients."""
        if self.parts == 1:
            losses = self._forward(batch)
            self._backward(total_loss(losses))
            return losses
        total: dict[str, Tensor] = {}
        parts = divide(batch, self.parts)
        for index, part in enumerate(parts):
            with self._without_reduction(index < len(parts) - 1):
                losses = self._forward(part)
                share = len(part) / len(batch)
                self._backward(total_loss(losses) * share)
            for name, loss in losses.items():
                term = loss.detach() * share
                total[name] = total[name] + term if name in total else term
        return total

    def _forward(self, batch: Sequence) -> Mapping[str, Tensor]:
        precision = self.precision
        try:
            with torch.autocast(self._device.type, precision, enabled=precision is not None):
                losses = self.model(batch)
        except FloatingPointError as error:  # Detectron2's RPN
            copy_tensors(self._saved, self._buffers)
            raise UserError(
                f"training has diverged: a predicted box or score is not finite in iteration "
                f"{self.iter}{_images(image_names(batch))}. Check the annotations, or {_FIX}"
            ) from error
        return {"total_loss": losses} if isinstance(losses, Tensor) else losses

    def _backward(self, loss: Tensor) -> None:
        (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()

    @contextlib.contextmanager
    def _without_reduction(self, enabled: bool) -> Iterator[None]:
        """Keep DDP from averaging gradients over processes, except after the last part."""
        model = self.model
        with contextlib.ExitStack() as stack:
            if enabled and isinstance(model, DistributedDataParallel):
                stack.enter_context(model.no_sync())
            yield

    def _gradient_norm(self) -> float:
        """Return the Euclidean norm of the gradient, after loss scaling is undone."""
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        groups = self.optimizer.param_groups
        gradients = [p.grad for group in groups for p in group["params"] if p.grad is not None]
        return torch.nn.utils.get_total_norm(gradients).item() if gradients else 0.0

    def _check_finite(self, batch: Sequence, losses: Mapping[str, Tensor], norm: float) -> None:
        """Raise in every process if a loss of any process, or the gradient, is not finite."""
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        # Loss scaling skips the update itself if the gradient is not finite.
        checked = [*values.values(), *([norm] if self.grad_scaler is None else [])]
        finite = all(map(math.isfinite, checked))
        if comm.get_world_size() > 1:
            flag = torch.tensor(float(finite), device=self._device)
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MIN)
            finite = bool(flag)
        if finite:
            return
        copy_tensors(self._saved, self._buffers)
        self.optimizer.zero_grad()
        reports = comm.all_gather((values, image_names(batch)))
        raise UserError(not_finite_message(self.iter, reports, norm))

    def _update(self) -> None:
        """Update the weights, or let loss scaling skip the update.

        Raises:
            UserError: loss scaling has skipped too many updates in a row.
        """
        if self.grad_scaler is None:
            self.optimizer.step()
            return
        before = self.grad_scaler.get_scale()
        self.grad_scaler.step(self.optimizer)
        self.grad_scaler.update()
        self.skipped = self.skipped + 1 if self.grad_scaler.get_scale() < before else 0
        if self.skipped >= MAX_SKIPPED:
            raise UserError(
                f"the gradient was not finite in {self.skipped} iterations in a row, up to "
                f"iteration {self.iter}, although loss scaling has reduced the scale to "
                f"{self.grad_scaler.get_scale():g}; {_FIX}, or train with SOLVER.AMP.ENABLED False"
            )

    def state_dict(self) -> dict[str, Any]:
        """Return the state of Detectron2's trainers, and the number of skipped updates."""
        state = super().state_dict()
        if self.grad_scaler is not None:
            state |= {"grad_scaler": self.grad_scaler.state_dict(), "skipped": self.skipped}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self.grad_scaler is not None and "grad_scaler" in state_dict:
            self.grad_scaler.load_state_dict(state_dict["grad_scaler"])
            self.skipped = state_dict.get("skipped", 0)


def divide(batch: Sequence, parts: int) -> list[Sequence]:
    """Divide a batch into parts whose sizes differ by at most one image; none of them is empty.

    Example:
        >>> divide([1, 2, 3, 4, 5], 2)
        [[1, 2], [3, 4, 5]]
    """
    parts = min(parts, len(batch))
    bounds = [len(batch) * index // parts for index in range(parts + 1)]
    return [batch[low:high] for low, high in itertools.pairwise(bounds)]


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """Return the sum of the losses of a model."""
    return functools.reduce(operator.add, losses.values())


@torch.no_grad()
def copy_tensors(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    """Copy the values of tensors into others of the same shapes and types."""
    if sources:
        torch._foreach_copy_(list(targets), list(sources))


def image_names(batch: Sequence) -> list[str]:
    """Return the files of the images of a batch, as far as they are known."""
    items = [item for item in batch if isinstance(item, dict)]
    return [str(item["file_name"]) for item in items if "file_name" in item]


def not_finite_message(
    iteration: int, reports: Sequence[tuple[Mapping[str, float], Sequence[str]]], norm: float
) -> str:
    """Return the message about a step whose losses or gradient are not finite.

    Args:
        iteration: of the step.
        reports: the losses and the image files of each process.
        norm: the norm of the gradient.
    """
    losses = [(name, value) for values, _ in reports for name, value in values.items()]
    wrong = {name: value for name, value in losses if not math.isfinite(value)}
    shown = ", ".join(f"{name} {value:.4g}" for name, value in {**dict(losses), **wrong}.items())
    what = "a loss is not finite" if wrong else f"the norm of the gradient is {norm}"
    files = [file for _, names in reports for file in names]
    return (
        f"{what} in iteration {iteration} ({shown}){_images(files)}; the weights were not updated "
        f"with it. Check the annotations of these images, or {_FIX}"
    )


def _images(files: Sequence[str]) -> str:
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    return f" for the images {', '.join(files[:_NAMED])}{more}" if files else ""
