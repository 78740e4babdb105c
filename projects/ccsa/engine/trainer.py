"""The trainer: Detectron2's DefaultTrainer, at home on the CPU as well."""

import logging
import time
import weakref
from collections import OrderedDict
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import AMPTrainer, DefaultTrainer, SimpleTrainer, TrainerBase
from detectron2.engine.defaults import create_ddp_model
from detectron2.evaluation import DatasetEvaluator
from detectron2.modeling import build_model
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, JSONWriter, TensorboardXWriter
from torch import nn

from ccsa.checkpoint import Checkpointer
from ccsa.data.loaders import build_test_loader, build_train_loader
from ccsa.engine.hooks import LogGamma, TerminalWriter
from ccsa.engine.solver import build_lr_scheduler, build_optimizer
from ccsa.errors import UserError
from ccsa.evaluation import build_evaluator
from ccsa.inference import build_semantic_inference
from ccsa.inference.precision import autocast

logger = logging.getLogger(__name__)


class _NoTraceback(logging.Filter):
    """Keeps the training loop from logging a traceback of what is reported in one line anyway."""

    def filter(self, record: logging.LogRecord) -> bool:
        kind = record.exc_info[0] if record.exc_info else None
        return kind is None or not issubclass(kind, UserError | FloatingPointError)


logging.getLogger("detectron2.engine.train_loop").addFilter(_NoTraceback())


class CpuAMPTrainer(SimpleTrainer):
    """Mixed precision on the CPU: bfloat16, whose range needs no loss scaling."""

    def run_step(self) -> None:
        start = time.perf_counter()
        data = next(self._data_loader_iter)
        data_time = time.perf_counter() - start
        with torch.autocast("cpu", torch.bfloat16):
            loss_dict = self.model(data)
        self.optimizer.zero_grad()
        sum(loss_dict.values()).backward()
        self.after_backward()
        self._write_metrics(loss_dict, data_time)
        self.optimizer.step()


class Trainer(DefaultTrainer):
    """DefaultTrainer with: evaluators by dataset metadata, gloo processes and mixed precision on
    the CPU, checkpoints that are never half written, gamma of every context block logged, and
    memory shown without a GPU."""

    def __init__(self, cfg: CfgNode):
        TrainerBase.__init__(self)
        cfg = self.auto_scale_workers(cfg, comm.get_world_size())
        on_cpu = torch.device(cfg.MODEL.DEVICE).type == "cpu"

        model = self.build_model(cfg)
        optimizer = self.build_optimizer(cfg, model)
        data_loader = self.build_train_loader(cfg)
        # DDP refuses device_ids for a model on the CPU.
        ids = {"device_ids": None} if on_cpu else {}
        model = create_ddp_model(model, broadcast_buffers=False, **ids)
        step = SimpleTrainer
        if cfg.SOLVER.AMP.ENABLED:
            step = CpuAMPTrainer if on_cpu else AMPTrainer
        self._trainer = step(model, data_loader, optimizer)

        self.scheduler = self.build_lr_scheduler(cfg, optimizer)
        self.checkpointer = Checkpointer(
            model, cfg.OUTPUT_DIR, training=True, trainer=weakref.proxy(self)
        )
        self.start_iter = 0
        self.stepped: int | None = None  # the last iteration whose update was made
        self.max_iter = cfg.SOLVER.MAX_ITER
        self.cfg = cfg
        self.register_hooks([LogGamma(), *self.build_hooks()])

    @classmethod
    def build_model(cls, cfg: CfgNode) -> nn.Module:
        """The model on its device and in its memory format."""
        model = build_model(cfg)
        if cfg.MODEL.CHANNELS_LAST:  # by hand: model.to() has one format for 2D and 3D weights
            formats = {4: torch.channels_last, 5: torch.channels_last_3d}
            for weights in model.parameters():
                if weights.ndim in formats:
                    weights.data = weights.data.contiguous(memory_format=formats[weights.ndim])
        return model

    @classmethod
    def build_optimizer(cls, cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg: CfgNode, optimizer: torch.optim.Optimizer):
        return build_lr_scheduler(cfg, optimizer)

    @classmethod
    def build_train_loader(cls, cfg: CfgNode):
        return build_train_loader(cfg)

    @classmethod
    def build_test_loader(cls, cfg: CfgNode, dataset_name: str):
        return build_test_loader(cfg, dataset_name)

    @classmethod
    def build_evaluator(cls, cfg: CfgNode, dataset_name: str) -> DatasetEvaluator:
        folder = Path(cfg.OUTPUT_DIR) / "inference" / dataset_name
        return build_evaluator(dataset_name, folder, panoptic_files=cfg.TEST.PANOPTIC_FILES)

    @classmethod
    def test(cls, cfg: CfgNode, model: nn.Module, evaluators=None) -> OrderedDict:
        """Evaluate on every test dataset, in the precision that training uses."""
        with autocast(cfg):
            return super().test(cfg, build_semantic_inference(cfg, model), evaluators)

    def run_step(self) -> None:
        super().run_step()
        self.stepped = self.iter

    def build_writers(self) -> list[EventWriter]:
        # Left to the writer it comes in the midst of training, and an interrupt then breaks it.
        import torch.utils.tensorboard  # noqa: F401

        folder = Path(self.cfg.OUTPUT_DIR)
        return [
            TerminalWriter(self.max_iter),
            JSONWriter(str(folder / "metrics.json")),
            TensorboardXWriter(str(folder)),
        ]

    @property
    def results(self) -> dict | None:
        """What the last evaluation of this run gave, on the main process."""
        return getattr(self, "_last_eval_results", None)

    def train(self) -> dict | None:
        """Train to the end. A stop from outside, or a datum that cannot be read, first leaves a
        checkpoint to resume from.

        Raises:
            UserError: a datum that cannot be read, or a loss that is no longer finite.
        """
        try:
            return super().train()
        except (KeyboardInterrupt, UserError):
            if self.stepped is not None and comm.is_main_process():
                self.iter = self.stepped  # one under way is not counted
                self.checkpointer.save(f"model_{self.iter:07d}", iteration=self.iter)
                logger.info("stopped after %d iterations; --resume continues", self.iter + 1)
            raise
        except FloatingPointError as error:
            raise UserError(
                f"{str(error).splitlines()[0]} Lower SOLVER.BASE_LR or raise SOLVER.WARMUP_ITERS"
            ) from error
