"""The evaluations during training, and what they left."""

import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping

import torch
import torch.distributed
from detectron2.config import CfgNode
from detectron2.utils import comm
from torch import nn

from ccsa.engine.validation_loss import TASK, validation_losses
from ccsa.evaluation import metric_of_run
from ccsa.utils.random_states import preserved_random_states

logger = logging.getLogger(__name__)

AVERAGE = "_ema"  # end of the name of a task that the averaged weights were evaluated on


def share_buffers(model: nn.Module) -> None:
    """Give all processes of the job the buffers of rank 0, such as the statistics of batch norm.

    Each process computes its own during training, and a checkpoint contains those of rank 0.
    Otherwise an evaluation would use statistics that the checkpoint does not have.
    """
    if comm.get_world_size() > 1:
        for buffer in model.buffers():
            torch.distributed.broadcast(buffer, src=0)


class Evaluations:
    """Evaluates a model, and remembers the last results.

    An evaluation does not change the random states, so that training continues as it would have
    without it.

    Args:
        cfg: the configuration of the run.
        test: ``Trainer.test``.

    Attributes:
        results: of the last evaluation, on the main process; None before.
        count: the number of evaluations so far.
    """

    def __init__(self, cfg: CfgNode, test: Callable[[CfgNode, nn.Module], OrderedDict]):
        self.cfg, self._test = cfg, test
        self.results: OrderedDict | None = None
        self.count = 0

    def run(self, model: nn.Module, average: nn.Module | None = None) -> OrderedDict:
        """Evaluate on all test datasets.

        Args:
            model: with the current weights.
            average: with the averaged weights; their tasks end in ``_ema``.

        Returns:
            The results as of ``Trainer.test``, with the task ``validation_loss`` if
            ``TEST.VALIDATION_LOSS`` is set; empty on processes other than the main one.
        """
        share_buffers(model)
        if average is not None:
            share_buffers(average)
        with preserved_random_states():
            results = self._test(self.cfg, model)
            if average is not None:
                logger.info("evaluation of the averaged weights (MODEL.EMA):")
                self._add(results, self._test(self.cfg, average), AVERAGE)
            if self.cfg.TEST.VALIDATION_LOSS:
                names = self.cfg.DATASETS.TEST
                losses = {name: validation_losses(self.cfg, model, name) for name in names}
                for name, values in losses.items():
                    shown = ", ".join(f"{key} {value:.4f}" for key, value in values.items())
                    logger.info("validation loss on %s: %s", name, shown)
                if comm.is_main_process():
                    for name, values in losses.items():
                        self._tasks_of(results, name)[TASK] = values
        self.results = results
        self.count += 1
        return results

    def last(self) -> tuple[int, tuple[str, float] | None]:
        """Return the number of evaluations, and name and value of the main metric of the last."""
        return self.count, metric_of_run(self.cfg, self.results) if self.results else None

    def _tasks_of(self, results: OrderedDict, name: str) -> dict:
        return results if len(self.cfg.DATASETS.TEST) == 1 else results[name]

    def _add(self, results: OrderedDict, others: Mapping, ending: str) -> None:
        """Add results to those of the same datasets, under task names with an ending."""
        if len(self.cfg.DATASETS.TEST) == 1:
            results.update({f"{task}{ending}": metrics for task, metrics in others.items()})
            return
        for name, tasks in others.items():
            results[name].update({f"{task}{ending}": values for task, values in tasks.items()})
