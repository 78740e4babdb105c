"""Hooks of the training loop, and the writer of its progress lines."""

import datetime
import logging

from detectron2.engine import HookBase, hooks
from detectron2.utils.events import EventWriter, get_event_storage
from torch import Tensor

from ccsa.insertion import context_blocks
from ccsa.utils.memory import peak_memory

logger = logging.getLogger(__name__)


class LogGamma(HookBase):
    """Logs the gamma of every context block as the scalar ``gamma/<module path>``.

    A block with gamma = 0 is an identity, so the scalar shows how much the block contributes.

    Args:
        period: number of iterations between two records; the last iteration is always recorded.
    """

    def __init__(self, period: int = 20):
        self.period = period

    def before_train(self) -> None:
        self.gammas: dict[str, Tensor] = {}
        for path, block in context_blocks(self.trainer.checkpointer.model):
            gamma = getattr(block, "gamma", None)
            if isinstance(gamma, Tensor):  # a non-residual block has none
                self.gammas[path] = gamma

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done == self.trainer.max_iter or done % self.period == 0:
            for path, gamma in self.gammas.items():
                self.trainer.storage.put_scalar(f"gamma/{path}", gamma.item(), smoothing_hint=False)


class Writers(hooks.PeriodicWriter):
    """Detectron2's PeriodicWriter, which writes at the end only if the training has ended.

    An interrupted run has no row for the interrupted iteration; the resumed run writes it in time.
    """

    def after_train(self) -> None:
        if self.trainer.iter >= self.trainer.max_iter or self.trainer.stopped_early:
            super().after_train()
            return
        for writer in self._writers:
            writer.close()


class PreciseBN(hooks.PreciseBN):
    """Detectron2's PreciseBN, which uses the same images each time, as a resumed run does."""

    def update_stats(self) -> None:
        super().update_stats()
        self._data_iter = None


class TerminalWriter(EventWriter):
    """Logs one line of progress: iteration, time left, losses, learning rate, seconds per
    iteration, and peak memory (of the GPU, or of the process on the CPU).

    Args:
        max_iter: number of iterations of the run.
        window: number of iterations over which the median of losses and times is taken.
    """

    def __init__(self, max_iter: int, window: int = 20):
        self.max_iter = max_iter
        self.window = window

    def write(self) -> None:
        storage = get_event_storage()
        iteration = storage.iter + 1
        if storage.iter >= self.max_iter:
            return
        histories = storage.histories()

        def median(name: str) -> float:
            return histories[name].median(storage.count_samples(name, self.window))

        losses = [
            name
            for name in histories
            if "loss" in name and name != "total_loss" and "/" not in name  # not of an evaluation
        ]
        parts = [f"{iteration:{len(str(self.max_iter))}}/{self.max_iter}"]
        if "time" in histories:
            seconds_left = histories["time"].median(self.window) * (self.max_iter - iteration)
            storage.put_scalar("eta_seconds", seconds_left, smoothing_hint=False)
            parts.append(f"left {datetime.timedelta(seconds=int(seconds_left))}")
        if "total_loss" in histories:
            detail = "  ".join(
                f"{name.removeprefix('loss_')} {median(name):.3f}" for name in losses
            )
            parts.append(f"loss {median('total_loss'):.3f}" + (f" ({detail})" if detail else ""))
        if "lr" in histories:
            parts.append(f"lr {histories['lr'].latest():.5g}")
        if "grad_norm" in histories:
            parts.append(f"gradient norm {median('grad_norm'):.3g}")
        if "time" in histories:
            parts.append(f"{histories['time'].median(self.window):.2f} s/it")
        if (peak := peak_memory()) is not None:
            parts.append(f"memory {peak / 2**30:.1f} GiB")
        logger.info("  ".join(parts))
