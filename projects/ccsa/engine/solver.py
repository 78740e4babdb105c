"""Optimizer and learning-rate schedule: Detectron2's, with the poly schedule of its DeepLab project
and a learning rate of its own for what is not pretrained."""

from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.projects.deeplab.lr_scheduler import WarmupPolyLR
from detectron2.solver import LRScheduler, get_default_optimizer_params
from detectron2.solver import build_lr_scheduler as build_detectron2_scheduler
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

from ccsa.errors import UserError

OPTIMIZERS = ("SGD", "AdamW")
SCHEDULERS = ("WarmupPolyLR", "WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR")


class PolyLR(WarmupPolyLR):
    """The poly schedule of Detectron2's DeepLab, of the length that the configuration says, also
    where a run is resumed with another one: that project keeps the old length in the checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """What Detectron2's other schedules keep."""
        return {"base_lrs": self.base_lrs, "last_epoch": self.last_epoch}


def build_optimizer(cfg: CfgNode, model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer that ``SOLVER.OPTIMIZER`` names; parameters outside the backbone learn at
    ``SOLVER.HEAD_LR_FACTOR`` times ``SOLVER.BASE_LR``.

    Raises:
        UserError: there is none of that name.
    """
    check_solver(cfg)
    solver = cfg.SOLVER
    if solver.HEAD_LR_FACTOR == 1 and solver.OPTIMIZER == "SGD":
        return build_detectron2_optimizer(cfg, model)

    def factor(name: str) -> float:
        head = 1.0 if name.startswith("backbone.") else solver.HEAD_LR_FACTOR
        bias = solver.BIAS_LR_FACTOR if name.endswith(".bias") else 1.0
        return head * bias

    groups = get_default_optimizer_params(
        model,
        base_lr=solver.BASE_LR,
        weight_decay_norm=solver.WEIGHT_DECAY_NORM,
        weight_decay_bias=solver.WEIGHT_DECAY_BIAS,
        lr_factor_func=factor,
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
    """The schedule that ``SOLVER.LR_SCHEDULER_NAME`` names.

    Raises:
        UserError: there is none of that name.
    """
    check_solver(cfg)
    solver = cfg.SOLVER
    if solver.LR_SCHEDULER_NAME != "WarmupPolyLR":
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
    """Refuse an optimizer or schedule that does not exist, and a factor that would stop or turn
    learning.

    Raises:
        UserError: with what is allowed.
    """
    solver = cfg.SOLVER
    for key, known in (("OPTIMIZER", OPTIMIZERS), ("LR_SCHEDULER_NAME", SCHEDULERS)):
        if solver[key] not in known:
            raise UserError(f"SOLVER.{key} '{solver[key]}' is not one of {', '.join(known)}")
    for key in ("HEAD_LR_FACTOR", "POLY_LR_POWER"):
        if solver[key] <= 0:
            raise UserError(f"SOLVER.{key} must be above 0, not {solver[key]}")
