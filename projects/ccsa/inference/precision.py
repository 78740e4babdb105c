"""Mixed precision for training and inference, as ``SOLVER.AMP.ENABLED`` requests it."""

import torch
from detectron2.config import CfgNode


def autocast(cfg: CfgNode) -> torch.autocast:
    """Return the autocast context of a configuration.

    It uses bfloat16 on CPUs, whose range makes loss scaling unnecessary, and float16 on other
    devices. It has no effect if ``SOLVER.AMP.ENABLED`` is false.
    """
    device = torch.device(cfg.MODEL.DEVICE).type
    dtype = torch.bfloat16 if device == "cpu" else torch.float16
    return torch.autocast(device, dtype, enabled=cfg.SOLVER.AMP.ENABLED)
