"""Hooks that watch the main metric: the best checkpoint, and early stopping."""

import logging
import math
from collections.abc import Callable
from typing import Any

from detectron2.engine import HookBase
from detectron2.utils import comm

logger = logging.getLogger(__name__)

BEST = "model_best"
# Returns (number of evaluations so far, name and value of the main metric of the last one or None).
Evaluations = Callable[[], tuple[int, tuple[str, float] | None]]


class TrainingStopped(Exception):
    """Raised by a hook to end the training loop before the last iteration; not an error."""


class _MetricHook(HookBase):
    """Calls :meth:`evaluated` once after each evaluation, on every process.

    Args:
        evaluations: see :data:`Evaluations`.
    """

    def __init__(self, evaluations: Evaluations):
        self._evaluations = evaluations
        self._seen = 0
        self.best: float | None = None
        self.best_iteration = -1
        self.waited = 0  # evaluations since the best one

    def after_step(self) -> None:
        self._look()

    def after_train(self) -> None:
        self._look()

    def _look(self) -> None:
        count, metric = self._evaluations()
        if count > self._seen:
            self._seen = count
            # Only the main process has results.
            self.evaluated(comm.all_gather(metric)[0])

    def evaluated(self, metric: tuple[str, float] | None) -> None:
        raise NotImplementedError

    def improves(self, metric: tuple[str, float] | None, minimum: float = 0.0) -> bool:
        """Return whether a metric is better than all before by more than ``minimum``, and remember
        it. A metric that is missing or NaN is not better."""
        value = float(metric[1]) if metric else math.nan
        if not math.isnan(value) and (self.best is None or value > self.best + minimum):
            # In after_train, the loop has already counted the iteration that does not exist.
            last = self.trainer.max_iter - 1
            self.best, self.best_iteration = value, min(self.trainer.iter, last)
            self.waited = 0
            return True
        self.waited += 1
        return False

    def state_dict(self) -> dict[str, Any]:
        best, iteration, waited = self.best, self.best_iteration, self.waited
        return {"best": best, "best_iteration": iteration, "waited": waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = state_dict["best"]
        self.best_iteration = state_dict["best_iteration"]
        self.waited = state_dict["waited"]


class BestCheckpoint(_MetricHook):
    """Saves the checkpoint ``model_best.pth`` whenever the main metric is better than before.

    Of equal values, the first one is kept. ``last_checkpoint`` does not change.
    """

    def evaluated(self, metric: tuple[str, float] | None) -> None:
        if metric and self.improves(metric):
            logger.info(
                "best %s so far: %.2f after %d iterations", *metric, self.best_iteration + 1
            )
            if comm.is_main_process():
                self.trainer.checkpointer.save(BEST, is_last=False, iteration=self.best_iteration)


class EarlyStopping(_MetricHook):
    """Ends the training if the main metric has not improved for several evaluations.

    Args:
        evaluations: see :data:`Evaluations`.
        patience: the number of evaluations without improvement after which training ends.
        minimum: a metric improves if it is better by more than this, in the unit of the metric.

    Raises:
        TrainingStopped: by :meth:`before_train` and :meth:`after_step`.
    """

    def __init__(self, evaluations: Evaluations, patience: int, minimum: float = 0.0):
        super().__init__(evaluations)
        self.patience, self.minimum = patience, minimum
        self.name = "the main metric"

    def before_train(self) -> None:
        self._stop()  # a resumed run that had ended already

    def after_train(self) -> None:
        pass  # the run has ended anyway

    def evaluated(self, metric: tuple[str, float] | None) -> None:
        self.name = metric[0] if metric else self.name
        self.improves(metric, self.minimum)
        self._stop()

    def _stop(self) -> None:
        if self.waited >= self.patience:
            self.trainer.stopped_early = True
            best = "" if self.best is None else f" ({self.best:.2f})"
            raise TrainingStopped(
                f"early stopping: {self.name} has not improved in {self.waited} evaluations; the "
                f"best one{best} was after {self.best_iteration + 1} iterations"
            )
