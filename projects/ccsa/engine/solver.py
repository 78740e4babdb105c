"""Optimizers and learning rate schedules.

They are Detectron2's, with three additions: AdamW, a learning rate factor for everything outside
the pretrained backbone (``SOLVER.HEAD_LR_FACTOR``), and the poly schedule of Detectron2's DeepLab
project, learning rate = base * (1 - iteration / max_iter) ** power.
"""

import logging
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.projects.deeplab.lr_scheduler import WarmupPolyLR
from detectron2.solver import LRScheduler, get_default_optimizer_params
from detectron2.solver import build_lr_scheduler as build_detectron2_scheduler
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

from ccsa.engine.model_parts import all_values
from ccsa.engine.values import problem
from ccsa.errors import UserError

logger = logging.getLogger(__name__)

_LOGGED = ("initial_lr", "weight_decay", "momentum", "nesterov", "betas", "eps")


class PolyLR(WarmupPolyLR):
    """The poly schedule of Detectron2's DeepLab project, which can be resumed with another length.

    The original stores its length in the checkpoint, so that a resumed run would ignore a new
    ``SOLVER.MAX_ITER``.
    """

    def state_dict(self) -> dict[str, Any]:
        """Return the state that Detectron2's other schedules store as well."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer that ``SOLVER.OPTIMIZER`` names.

    Parameters outside ``model.backbone`` get ``SOLVER.HEAD_LR_FACTOR`` times ``SOLVER.BASE_LR``.
    It checks all settings of the solver, including those of the schedule, because a schedule always
    belongs to an optimizer.

    Raises:
        UserError: a setting of the solver is wrong; see :func:`check_solver`.
    """
    check_solver(cfg)
    solver = cfg.SOLVER
    if solver.HEAD_LR_FACTOR == 1 and solver.OPTIMIZER == "SGD":
        return build_detectron2_optimizer(cfg, model)

    def lr_factor(name: str) -> float:
        head = 1.0 if name.startswith("backbone.") else solver.HEAD_LR_FACTOR
        bias = solver.BIAS_LR_FACTOR if name.endswith(".bias") else 1.0
        return head * bias

    groups = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        lr_factor_func=lr_factor,
    )
    common = {"lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY, "foreach": True}
    if solver.OPTIMIZER == "AdamW":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, **common)
    else:
        optimizer = torch.optim.SGD(
            groups, momentum=solver.MOMENTUM, nesterov=solver.NESTEROV, **common
        )
    return maybe_add_gradient_clipping(cfg, optimizer)


def build_lr_scheduler(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """Build the learning rate schedule that ``SOLVER.LR_SCHEDULER_NAME`` names, for an optimizer
    of :func:`build_optimizer`, which has checked the settings."""
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME != "WarmupPolyLR":
        # Detectron2 leaves out the steps after the end.
        steps = sum(step <= solver.MAX_ITER for step in solver.STEPS)
        if solver.LR_SCHEDULER_NAME == "WarmupMultiStepLR" and steps >= solver.MAX_ITER:
            raise UserError(
                f"SOLVER.STEPS has {steps} steps, too many for SOLVER.MAX_ITER "
                f"{solver.MAX_ITER}; remove some, or train longer"
            )
        return build_detectron2_scheduler(cfg, optimizer)
    return PolyLR(
        optimizer,
        solver.MAX_ITER,
        warmup_factor=solver.WARMUP_FACTOR,
        warmup_iters=solver.WARMUP_ITERS,
        warmup_method=solver.WARMUP_METHOD,
        power=solver.POLY_LR_POWER,
        constant_ending=solver.POLY_LR_CONSTANT_ENDING,
    )


def check_solver(cfg: CfgNode) -> None:
    """Check all values of ``SOLVER``, which :func:`ccsa.engine.setup_cfg` has done already for the
    configuration of a tool.

    Raises:
        UserError: a value is not valid for its key; the message says which ones are.
    """
    for key, value in all_values(cfg.SOLVER, "SOLVER.").items():
        wrong = problem(key, value, value)
        if wrong:
            raise UserError(f"{key} {wrong}")


def solver_settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return the settings of every group of parameters that do not change during training."""
    return [
        {key: value for key, value in group.items() if key not in ("params", "lr")}
        for group in optimizer.param_groups
    ]


def restore_solver_settings(
    optimizer: torch.optim.Optimizer,
    scheduler: LRScheduler,
    settings: list[dict[str, Any]],
    iteration: int,
) -> None:
    """Undo that loading a checkpoint has replaced the settings of the solver, and log differences.

    Args:
        optimizer: with the state of the checkpoint; changed in place.
        scheduler: of this optimizer; changed in place.
        settings: of :func:`solver_settings`, before the checkpoint was loaded.
        iteration: the one that training continues with; the learning rate is that of the schedule.
    """
    changes: dict[str, str] = {}
    for group, wanted in zip(optimizer.param_groups, settings, strict=True):
        for key, value in wanted.items():
            if key in _LOGGED and group.get(key) != value:
                changes.setdefault(key, f"{key} {group.get(key)} -> {value}")
        group.update(wanted)
    scheduler.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
    scheduler.last_epoch = iteration
    for group, rate in zip(optimizer.param_groups, scheduler.get_lr(), strict=True):
        group["lr"] = rate
    if changes:
        logger.warning(
            "The checkpoint was written with other settings of the solver; those of the "
            f"configuration take effect: {', '.join(changes.values())}"
        )
