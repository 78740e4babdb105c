"""Mixed precision for training and inference, as ``SOLVER.AMP.ENABLED`` requests it."""

import torch
from detectron2.config import CfgNode


def autocast(cfg: CfgNode) -> torch.autocast:
    """Return the autocast context of a configuration.

    It uses float16 on CUDA, and bfloat16, whose range makes loss scaling unnecessary, on other
    devices, as the trainer does. It has no effect if ``SOLVER.AMP.ENABLED`` is false.
    """
    device = torch.device(cfg.MODEL.DEVICE).type
    dtype = torch.float16 if device == "cuda" else torch.bfloat16
    return torch.autocast(device, dtype, enabled=cfg.SOLVER.AMP.ENABLED)
