"""From a command line to a checked configuration, in one way for every tool."""

import argparse
import logging
import platform
import warnings

import torch
from detectron2.config import CfgNode, get_cfg

from ccsa.config import add_ccsa_config
from ccsa.engine.config_files import (
    existing_file,
    merge_content,
    merge_options,
    read_config_file,
)
from ccsa.errors import UserError
from ccsa.modeling.pixel_normalization import resolve_pixel_constants

logger = logging.getLogger(__name__)

# What Detectron2 0.6 makes today's torch say on first use; no user can act on it.
warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release")
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)


def setup_cfg(args: argparse.Namespace) -> CfgNode:
    """The frozen configuration that ``args.config_file`` and ``args.opts`` (``KEY VALUE ...``)
    name, its device, precision and scale of pixels resolved.

    Raises:
        UserError: a file that is not there or is no YAML, an unknown key, a value of the wrong
        type, a device that is not there, pixels that nothing says how to scale.
    """
    cfg = get_cfg()
    add_ccsa_config(cfg)
    _merge_file(cfg, args.config_file)
    merge_options(cfg, list(getattr(args, "opts", None) or []))
    cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    _thaw_random_weights(cfg)
    cfg = resolve_pixel_constants(cfg)
    _refuse_emulated_bfloat16(cfg)
    cfg.freeze()
    return cfg


def resolve_device(name: str) -> str:
    """Return the name of a device of torch that exists on this machine.

    Args:
        name: ``auto`` for the first of cuda, xpu and cpu that exists, or the name of a device,
            which may have an index. mps is used only if it is named; it is untested.

    Raises:
        UserError: the name is not a device of torch, or the device does not exist here.
    """
    if name == "auto":
        return next((kind for kind in ("cuda", "xpu") if _device_count(kind)), "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type == "meta":
        raise UserError(
            f"MODEL.DEVICE '{name}' is not a device that torch can compute on; "
            "use auto, cpu, cuda, xpu or mps"
        )
    count = _device_count(device.type)
    if device.type != "cpu" and (device.index or 0) >= count:
        raise UserError(
            f"MODEL.DEVICE is '{name}', but there are {count} {device.type.upper()} devices; "
            "use MODEL.DEVICE cpu, or leave it at auto"
        )
    return name


def _device_count(kind: str) -> int:
    """Return how many devices of a type exist on this machine."""
    try:
        return torch.get_device_module(kind).device_count()
    except (RuntimeError, AttributeError):  # this build of torch does not support the type
        return 0


def describe_device(device: str) -> str:
    """One line that says which device is used."""
    if torch.device(device).type == "cuda":
        return f"device: {device} ({torch.cuda.get_device_name(device)})"
    return f"device: {device} ({torch.get_num_threads()} threads)"


def _thaw_random_weights(cfg: CfgNode) -> None:
    """Frozen norms and stages are for pretrained weights: random ones would stay random, and
    without a norm that acts the loss soon is no number."""
    backbone = cfg.MODEL.BACKBONE
    resnet, timm = (word in backbone.NAME for word in ("resnet", "timm"))
    keys = cfg.MODEL.TIMM if timm else cfg.MODEL.RESNETS
    frozen = keys.NORM == "FrozenBN"
    if cfg.MODEL.WEIGHTS or not ((resnet and frozen) or (timm and (frozen or backbone.FREEZE_AT))):
        return
    if frozen:
        keys.NORM = "" if timm else "BN"
    backbone.FREEZE_AT = 0
    logger.warning(
        "MODEL.WEIGHTS is empty: the backbone starts from random weights, so its norm is "
        f"{'its own' if timm else 'BN'} in place of FrozenBN and no stage is frozen"
    )


def _refuse_emulated_bfloat16(cfg: CfgNode) -> None:
    """Mixed precision on a CPU that has no bfloat16 instructions is many times slower than float32,
    and no smaller where it matters."""
    if cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE == "cpu" and not has_bfloat16():
        cfg.SOLVER.AMP.ENABLED = False
        logger.warning(
            "this CPU has no bfloat16 instructions, so mixed precision would be slower than "
            "float32: SOLVER.AMP.ENABLED is False"
        )


def has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware: AVX512-BF16 or AMX, or elsewhere what
    oneDNN says."""
    if platform.machine().lower() in ("x86_64", "amd64"):
        probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        return any(getattr(torch.cpu, name, lambda: False)() for name in probes)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _merge_file(cfg: CfgNode, file: str) -> None:
    if not file:
        raise UserError(
            "no configuration given; add --config-file, e.g. configs/digits/ccnet_mask_rcnn.yaml"
        )
    existing_file(file, "--config-file")
    merge_content(cfg, read_config_file(file), file)
