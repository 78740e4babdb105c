"""Training and evaluation: the set-up shared by all tools, checks, the trainer, and run folders."""

from ccsa.engine.checks import check_run
from ccsa.engine.run_lifecycle import finish_run, record_config, start_run
from ccsa.engine.setup import add_config_arguments, describe_device, setup_cfg
from ccsa.engine.trained_model import trained_cfg
from ccsa.engine.trainer import Trainer
from ccsa.utils.run_folders import choose_output_dir

__all__ = [
    "Trainer",
    "add_config_arguments",
    "check_run",
    "choose_output_dir",
    "describe_device",
    "finish_run",
    "record_config",
    "setup_cfg",
    "start_run",
    "trained_cfg",
]
