"""Training and evaluation engine: set-up shared by every tool, trainer, run folders."""

from ccsa.engine.checks import check_run
from ccsa.engine.report import finish_run, start_run
from ccsa.engine.runs import choose_output_dir
from ccsa.engine.setup import describe_device, setup_cfg
from ccsa.engine.trained import trained_cfg
from ccsa.engine.trainer import Trainer

__all__ = [
    "Trainer",
    "check_run",
    "choose_output_dir",
    "describe_device",
    "finish_run",
    "setup_cfg",
    "start_run",
    "trained_cfg",
]
