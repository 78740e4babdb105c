"""Training hooks and the terminal writer."""

import datetime
import logging

from detectron2.engine import HookBase
from detectron2.utils.events import EventWriter, get_event_storage

from ccsa.insertion import context_blocks
from ccsa.utils.memory import peak_memory

logger = logging.getLogger(__name__)


class LogGamma(HookBase):
    """Logs the gamma of every context block as ``gamma/<path>``: at 0 the block is an identity, so
    this is what it has learnt."""

    def __init__(self, period: int = 20):
        self.period = period

    def before_train(self) -> None:
        self.gammas = {
            path: block.gamma
            for path, block in context_blocks(self.trainer.checkpointer.model)
            if getattr(block, "gamma", None) is not None
        }

    def after_step(self) -> None:
        last = self.trainer.iter + 1 == self.trainer.max_iter
        if last or (self.trainer.iter + 1) % self.period == 0:
            for path, gamma in self.gammas.items():
                self.trainer.storage.put_scalar(f"gamma/{path}", gamma.item(), smoothing_hint=False)


class TerminalWriter(EventWriter):
    """One line of progress: iteration, time left, losses, learning rate, seconds per iteration,
    peak memory (CPU too)."""

    def __init__(self, max_iter: int, window: int = 20):
        self.max_iter = max_iter
        self.window = window

    def write(self) -> None:
        storage = get_event_storage()
        iteration = storage.iter + 1
        if storage.iter >= self.max_iter:
            return
        histories = storage.histories()

        def smooth(name: str) -> float:
            return histories[name].median(storage.count_samples(name, self.window))

        losses = [name for name in histories if "loss" in name and name != "total_loss"]
        parts = [f"{iteration:{len(str(self.max_iter))}}/{self.max_iter}"]
        if "time" in histories:
            left = histories["time"].median(self.window) * (self.max_iter - iteration)
            storage.put_scalar("eta_seconds", left, smoothing_hint=False)
            parts.append(f"left {datetime.timedelta(seconds=int(left))}")
        if "total_loss" in histories:
            detail = "  ".join(
                f"{name.removeprefix('loss_')} {smooth(name):.3f}" for name in losses
            )
            parts.append(f"loss {smooth('total_loss'):.3f}" + (f" ({detail})" if detail else ""))
        if "lr" in histories:
            parts.append(f"lr {histories['lr'].latest():.5g}")
        if "time" in histories:
            parts.append(f"{histories['time'].median(self.window):.2f} s/it")
        if peak := peak_memory():
            parts.append(f"memory {peak / 2**30:.1f} GiB")
        logger.info("  ".join(parts))
