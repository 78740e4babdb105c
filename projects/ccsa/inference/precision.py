"""Mixed precision as ``SOLVER.AMP`` has it, in training, evaluation and drawing."""

import torch
from detectron2.config import CfgNode


def autocast(cfg: CfgNode) -> torch.autocast:
    """bfloat16 on CPUs, whose range needs no loss scaling; float16 elsewhere; or nothing."""
    device = torch.device(cfg.MODEL.DEVICE).type
    dtype = torch.bfloat16 if device == "cpu" else torch.float16
    return torch.autocast(device, dtype, enabled=cfg.SOLVER.AMP.ENABLED)
