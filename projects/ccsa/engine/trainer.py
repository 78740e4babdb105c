"""The trainer: Detectron2's DefaultTrainer, extended to train on the CPU as well.

Mixed precision on CUDA is float16 with loss scaling, as in Detectron2. On other devices it is
bfloat16, whose range needs no loss scaling (Detectron2's AMPTrainer requires CUDA).
"""

import logging
import sys
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.engine import DefaultTrainer, HookBase, TrainerBase, hooks
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.solver import LRScheduler
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, JSONWriter, TensorboardXWriter
from torch import nn

from ccsa.checkpoint import Checkpointer, classes_entry
from ccsa.data.loaders import build_test_loader, build_train_loader
from ccsa.data.sample_stream import TrainLoader
from ccsa.engine.compilation import compile_parts
from ccsa.engine.evaluations import Evaluations
from ccsa.engine.hooks import LogGamma, PreciseBN, TerminalWriter, Writers
from ccsa.engine.model_average import MovingAverage
from ccsa.engine.model_selection import BestCheckpoint, EarlyStopping, TrainingStopped
from ccsa.engine.process_group import connection_lost
from ccsa.engine.resume_changes import changes, first_iteration, with_schedule_for_batch
from ccsa.engine.resume_state import ResumeState, shorten_logs
from ccsa.engine.solver import (
    build_lr_scheduler,
    build_optimizer,
    restore_solver_settings,
    solver_settings,
)
from ccsa.engine.stop_signals import RunStopped, StopSignals
from ccsa.engine.stored_classes import class_layers_to_restart, dataset_classes
from ccsa.engine.trackers import build_tracker
from ccsa.engine.train_step import TrainStep
from ccsa.errors import UserError, out_of_memory
from ccsa.evaluation import build_evaluator
from ccsa.inference import build_inference
from ccsa.inference.detector import with_pasted_masks
from ccsa.inference.precision import autocast

logger = logging.getLogger(__name__)


class _OmitReportedTracebacks(logging.Filter):
    """Drops the traceback that Detectron2's training loop logs for an error that the command line
    reports in one message, for the end by early stopping, and for other processes that are gone."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        reported = isinstance(error, UserError | TrainingStopped)
        return error is None or not (reported or out_of_memory(error) or connection_lost(error))


logging.getLogger("detectron2.engine.train_loop").addFilter(_OmitReportedTracebacks())


def no_training_images(cfg: CfgNode) -> str:
    """Return the message for training sets of which every image is left out."""
    return (
        f"no image of {', '.join(cfg.DATASETS.TRAIN)} has an object that can be trained, and "
        "images without objects are left out; annotate objects that are not crowd regions, or set "
        "DATALOADER.FILTER_EMPTY_ANNOTATIONS False"
    )


class Trainer(DefaultTrainer):
    """Detectron2's DefaultTrainer with these additions:

    * evaluators are chosen by the metadata of the dataset;
    * several processes (gloo) and mixed precision also work on the CPU;
    * a checkpoint is complete or absent, and an interrupted run leaves one to resume from;
    * the gamma of every context block is logged, and so is the memory without a GPU.

    Args:
        cfg: the configuration of the run.
        progress: of a run that will be resumed, see
            :func:`ccsa.engine.resume_changes.read_progress`.

    Example::

        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=False)
        results = trainer.train()
    """

    iter: int
    stopped_early = False  # by EarlyStopping
    stopped = False  # by a signal
    _handled: BaseException | None = None

    def __init__(self, cfg: CfgNode, progress: Mapping[str, Any] | None = None):
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        if progress:
            cfg = with_schedule_for_batch(cfg, progress)
        self._resumed = progress
        on_cuda = torch.device(cfg.MODEL.DEVICE).type == "cuda"

        model = compile_parts(cfg, self.build_model(cfg))
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        # DDP rejects device_ids for a model on the CPU.
        device_ids = {} if on_cuda else {"device_ids": None}
        model = create_ddp_model(model, broadcast_buffers=False, **device_ids)
        mixed: dict[str, Any] = {"precision": torch.bfloat16}
        if on_cuda:
            mixed = {"precision": torch.float16, "scaler": torch.amp.GradScaler("cuda")}
        precision = mixed if cfg.SOLVER.AMP.ENABLED else {}
        self._trainer = TrainStep(
            model, data_loader, optimizer, parts=cfg.SOLVER.ACCUMULATE, **precision
        )

        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(
            model, cfg.OUTPUT_DIR, training=True, trainer=weakref.proxy(self)
        )
        self.checkpointer.keep = cfg.SOLVER.CHECKPOINT_KEEP
        self.checkpointer.entries = classes_entry(dataset_classes(cfg.DATASETS.TRAIN))
        self.start_iter = 0
        self.last_updated_iter: int | None = None  # the last iteration that updated the weights
        self.hooks_left = 0  # of that iteration
        self.signals = StopSignals()
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.average = MovingAverage(cfg.MODEL.EMA.DECAY) if cfg.MODEL.EMA.ENABLED else None
        self.evaluations = Evaluations(cfg, self.test)
        self.progress = ResumeState(cfg, data_loader)
        self.register_hooks([self.progress, LogGamma(), *self.build_hooks()])

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """Return the model on the device and in the memory format of the configuration."""
        model = build_model(cfg)
        if cfg.MODEL.CHANNELS_LAST:  # model.to() would apply one format to 2D and 3D weights
            formats = {4: torch.channels_last, 5: torch.channels_last_3d}
            for weights in model.parameters():
                if weights.ndim in formats:
                    weights.data = weights.data.contiguous(memory_format=formats[weights.ndim])
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        """Return the loader of the training sets.

        Raises:
            UserError: no image has an object that can be trained.
        """
        try:
            return build_train_loader(cfg)
        except AssertionError as error:
            if "No valid data found" not in str(error):
                raise
            raise UserError(no_training_images(cfg)) from error

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        folder = Path(cfg.OUTPUT_DIR) / "inference" / dataset_name
        return build_evaluator(
            dataset_name,
            folder,
            panoptic_files=cfg.TEST.PANOPTIC_FILES,
            max_detections=cfg.TEST.DETECTIONS_PER_IMAGE,
            boundary=cfg.TEST.BOUNDARY_AP,
        )

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators=None) -> OrderedDict:
        """Evaluate on every test dataset, in the precision of training.

        Returns:
            ``{task: {metric: value}}``; with several test datasets ``{dataset: {task: ...}}``.
        """
        with autocast(cfg):
            return super().test(cfg, with_pasted_masks(build_inference(cfg, model)), evaluators)

    def resume_or_load(self, resume: bool = True) -> None:
        """Continue from the last checkpoint, or load ``MODEL.WEIGHTS``.

        The settings of the solver are those of the configuration, also if a checkpoint was written
        with other ones. Layers for classes that the weights were not trained on are not loaded.

        Args:
            resume: whether to continue from the last checkpoint, if there is one.
        """
        settings = solver_settings(self.optimizer)
        if resume and self.checkpointer.has_checkpoint():
            super().resume_or_load(resume=True)
            self._report_changes()
            if self._resumed:
                batch = self.cfg.SOLVER.IMS_PER_BATCH
                self.start_iter = first_iteration(self.iter, self._resumed, batch)
            restore_solver_settings(self.optimizer, self.scheduler, settings, self.start_iter)
            loader = self._trainer.data_loader
            if isinstance(loader, TrainLoader):
                loader.resume(self.start_iter)
        else:
            if resume and comm.is_main_process():  # the run was killed before its first checkpoint
                shorten_logs(Path(self.cfg.OUTPUT_DIR), {})
            self.checkpointer.left_out = class_layers_to_restart(self.cfg)
            super().resume_or_load(resume=False)

    def _report_changes(self) -> None:
        """Log what differs from the part of the run that wrote the checkpoint."""
        if not self._resumed:
            logger.warning(
                "The checkpoint does not say how its batches were chosen (it is of an earlier "
                "version, or of another program): training continues with other images than an "
                "uninterrupted run would have used"
            )
            return
        found = changes(self._resumed, self.cfg)
        if found:
            listed = "".join(f"\n  {entry}" for entry in found)
            logger.warning(f"The run continues with differences, which take effect now:{listed}")
        if torch.device(self.cfg.MODEL.DEVICE).type != "cpu":
            logger.info(
                "The images and random states are those of an uninterrupted run; kernels of the "
                "GPU that sum in any order may still give other roundings"
            )

    def before_train(self) -> None:
        super().before_train()
        left, self.progress.hooks_left = self.progress.hooks_left, 0
        if left:  # the run was stopped in the evaluation of its last iteration
            self.iter = self.storage.iter = self.start_iter - 1
            # The main process, which has written the checkpoint, has further hooks at the end.
            done = comm.all_gather(len(self._hooks))[0] - left
            self._run_hooks(len(self._hooks) - done)

    def after_train(self) -> None:
        # If a run was killed in its last evaluation, the loop of the resumed run has no iteration
        # left, and Detectron2 counts one that does not exist.
        self.iter = min(self.iter, max(self.start_iter, self.max_iter))
        error = sys.exc_info()[1]  # Detectron2 calls this method also if the loop fails
        failed = error is not self._handled and not isinstance(error, TrainingStopped)
        if not (self.stopped or failed):
            super().after_train()
            return
        for hook in self._hooks:  # the others may evaluate, and wait for other processes
            if isinstance(hook, Writers):
                hook.after_train()

    def run_step(self) -> None:
        super().run_step()
        self.last_updated_iter, self.hooks_left = self.iter, len(self._hooks)

    def after_step(self) -> None:
        self._run_hooks(len(self._hooks))
        number = self.signals.agreed()
        if number:
            self.stopped = True
            raise RunStopped(number, everywhere=True)

    def _run_hooks(self, count: int) -> None:
        """Call the last ``count`` hooks after an iteration. A checkpoint that is saved meanwhile
        states how many are left, unless it is the last hook that saves it."""
        for left, hook in zip(range(count, 0, -1), self._hooks[-count:], strict=True):
            self.hooks_left = 0 if isinstance(hook, hooks.PeriodicCheckpointer) else left
            hook.after_step()
        self.hooks_left = 0

    def evaluate(self) -> OrderedDict:
        """Evaluate the weights, and their moving average if there is one."""
        average = None if self.average is None else self.average.model
        try:
            with self.signals.interrupting():
                results = self.evaluations.run(self.checkpointer.model, average)
        except RunStopped:
            self.stopped = True
            raise
        self._last_eval_results = results  # Detectron2 compares it with TEST.EXPECTED_RESULTS
        return results

    def build_hooks(self) -> list[HookBase | None]:
        """Return Detectron2's hooks, with the evaluation of this trainer and the hooks that depend
        on its results.

        The checkpoint of an iteration is written last, so that it contains what the evaluation and
        the writers of this iteration have done.
        """
        cfg = self.cfg
        watching: list[HookBase] = []
        if cfg.TEST.BEST_CHECKPOINT and 0 < cfg.TEST.EVAL_PERIOD < cfg.SOLVER.MAX_ITER:
            watching.append(BestCheckpoint(self.evaluations.last))
        if cfg.SOLVER.EARLY_STOPPING.ENABLED:
            keys = cfg.SOLVER.EARLY_STOPPING
            watching.append(EarlyStopping(self.evaluations.last, keys.PATIENCE, keys.MIN_DELTA))
        built: list[HookBase | None] = [self.average]
        last: list[HookBase] = []
        for hook in super().build_hooks():
            if isinstance(hook, hooks.EvalHook):
                built += [hooks.EvalHook(cfg.TEST.EVAL_PERIOD, self.evaluate), *watching]
            elif isinstance(hook, hooks.PreciseBN):
                batches = cfg.TEST.PRECISE_BN.NUM_ITER
                period, loader = cfg.TEST.EVAL_PERIOD, hook._data_loader
                built.append(PreciseBN(period, self.model, loader, batches))
            elif isinstance(hook, hooks.PeriodicCheckpointer):
                last.append(hook)
            elif isinstance(hook, hooks.PeriodicWriter):
                self.progress.writers = hook._writers
                built.append(Writers(hook._writers, hook._period))
            else:
                built.append(hook)
        return built + last

    def _save_final(self) -> None:
        """Write the final checkpoint, and the averaged weights, of a run that has ended."""
        if comm.is_main_process():
            self.checkpointer.save("model_final", iteration=self.iter)
            if self.average is not None:
                self.average.save()

    def build_writers(self) -> list[EventWriter]:
        # The writer would import TensorBoard in the middle of training, and an interrupt during
        # that import would make every later import of it fail.
        import torch.utils.tensorboard  # noqa: F401

        folder = Path(self.cfg.OUTPUT_DIR)
        return [
            TerminalWriter(self.max_iter),
            JSONWriter(str(folder / "metrics.json")),
            TensorboardXWriter(str(folder)),
            *build_tracker(self.cfg),
        ]

    @property
    def results(self) -> dict | None:
        """Return the results of the last evaluation (on the main process), or None."""
        return self.evaluations.results

    def train(self) -> dict | None:
        """Train to the end. A signal, a sample that cannot be read, or too little memory first
        saves a checkpoint to resume from.

        Returns:
            The results of the last evaluation (on the main process), or None.

        Raises:
            UserError: a sample cannot be read, or the loss is not finite.
            RunStopped: a signal has asked the run to stop; see :mod:`ccsa.engine.stop_signals`.
        """
        self._handled = sys.exc_info()[1]  # by the caller
        try:
            with self.signals:
                super().train()
        except TrainingStopped as stop:
            logger.info("%s", stop)
            self._save_final()
        except RunStopped as stop:
            self._save_stopped(str(stop))
            raise
        except (KeyboardInterrupt, UserError, MemoryError, RuntimeError) as error:
            if self.signals.number:  # the signal has also reached what this process depends on
                self._save_stopped(str(error))
                raise RunStopped(self.signals.number, everywhere=False) from None
            if isinstance(error, KeyboardInterrupt | UserError) or out_of_memory(error):
                self._save_stopped("stopped")
            raise
        return self.results

    def _save_stopped(self, reason: str) -> None:
        """Save a checkpoint of the last iteration that is complete, in the main process."""
        if self.last_updated_iter is None or not comm.is_main_process():
            return
        done = self.last_updated_iter + 1
        due = done % self.cfg.SOLVER.CHECKPOINT_PERIOD == 0 or done == self.max_iter
        if self.hooks_left or not due:  # otherwise a hook has saved it
            self.iter = self.last_updated_iter  # an interrupted iteration does not count
            self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)
        logger.info("%s after %d iterations; --resume continues", reason, done)
