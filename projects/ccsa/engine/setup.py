"""Build the configuration of a command line, in the same way for every tool.

The order is: the defaults of Detectron2 and of ccsa, the file of ``--config-file``, the overlays of
``--with``, and then the KEY VALUE pairs. Later values win.
"""

import argparse
import logging
import platform
import warnings
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg

from ccsa.config import CONVERTED_KEYS, RENAMED_KEYS, add_ccsa_config
from ccsa.engine.config_files import existing_file, read_config_file, user_keys
from ccsa.engine.config_values import convert_former_keys, merge_content, merge_options
from ccsa.engine.overlays import apply_overlays, overlay_files
from ccsa.engine.own_data import apply_own_data
from ccsa.engine.values.check import check_values
from ccsa.errors import UserError, shown
from ccsa.modeling.pixel_normalization import resolve_pixel_constants
from ccsa.utils.run_folders import is_run_config, overlay_names
from ccsa.utils.user_code import import_user_code

logger = logging.getLogger(__name__)

# Detectron2 0.6 calls torch in ways that current versions warn about; users cannot act on that.
warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release")
warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)


def add_config_arguments(
    parser: argparse.ArgumentParser, *, config_file: bool = True, **options: Any
) -> None:
    """Add ``--config-file`` and ``--with`` to a parser.

    Args:
        parser: the parser of a tool that calls :func:`setup_cfg`.
        config_file: False if the parser has its own ``--config-file``.
        options: further arguments of ``add_argument`` for ``--config-file``.
    """
    if config_file:
        parser.add_argument("--config-file", metavar="FILE", **{"default": "", **options})
    parser.add_argument(
        "--with",
        dest="overlays",
        action="append",
        default=[],
        metavar="A,B",
        help="overlays to apply on top of the configuration, in this order: names of "
        "configs/overlays, or paths of YAML files; see docs/CONFIG.md",
    )


def setup_cfg(args: argparse.Namespace) -> CfgNode:
    """Return the frozen configuration of a command line.

    The device, the precision and the pixel constants are resolved.

    Args:
        args: ``config_file``, the path of a YAML file; optionally ``overlays``, a list of overlays
            (each may be ``A,B``), ``opts``, a list ``[KEY, VALUE, ...]``, and the options of
            :func:`ccsa.engine.own_data.add_data_arguments`. The code that ``imports`` names is
            imported first; its names become absolute, for other processes. ``written`` becomes
            the list of keys that the user wrote.

    Raises:
        UserError: a file does not exist or is not YAML, a key does not exist, a value has the
            wrong type or is out of its range, an overlay does not fit, the device is not available,
            the configuration does not say how pixels are scaled, the user's data does not suit the
            model, or the user's code fails.

    Example:
        >>> args = argparse.Namespace(
        ...     config_file="configs/digits/ccnet.yaml", overlays=["r3"], opts=["SEED", "2"]
        ... )
        >>> setup_cfg(args).MODEL.SEM_SEG_HEAD.BLOCKS
        [{'block': 'CrissCross', 'recurrence': 3}]
    """
    args.imports = import_user_code(getattr(args, "imports", None) or ())
    cfg = _file_cfg(args)
    configured = cfg.SOLVER.IMS_PER_BATCH if "SOLVER.IMS_PER_BATCH" in _option_keys(args) else 0
    _merge_options(cfg, args)
    written = _written_keys(args)
    # A run's own configuration has all keys, which says nothing about what its user wrote.
    from_run = bool(args.config_file) and is_run_config(args.config_file)
    args.written = sorted(_option_keys(args) if from_run else written)
    apply_own_data(cfg, args, written, configured_batch=configured)
    cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    _unfreeze_random_weights(cfg)
    cfg = resolve_pixel_constants(cfg)
    _disable_emulated_bfloat16(cfg)
    check_values(cfg)
    cfg.freeze()
    return cfg


def merged_cfg(args: argparse.Namespace) -> CfgNode:
    """Return what the files and the KEY VALUE pairs of a command line say, before anything is
    derived from it; not frozen.

    Args:
        args: see :func:`setup_cfg`.

    Raises:
        UserError: see :func:`setup_cfg`.
    """
    cfg = _file_cfg(args)
    _merge_options(cfg, args)
    return cfg


def _file_cfg(args: argparse.Namespace) -> CfgNode:
    """Return what the files of a command line say."""
    cfg = get_cfg()
    add_ccsa_config(cfg)
    _merge_file(cfg, args.config_file)
    convert_former_keys(cfg)
    return apply_overlays(cfg, overlay_names(args), args.config_file)


def _merge_options(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Put the KEY VALUE pairs of a command line into a configuration."""
    merge_options(cfg, _options(args))
    convert_former_keys(cfg)


def _options(args: argparse.Namespace) -> list[str]:
    return list(getattr(args, "opts", None) or [])


def _option_keys(args: argparse.Namespace) -> set[str]:
    return set(map(_current_name, _options(args)[::2]))


def _current_name(key: str) -> str:
    """Return the name of a key of today, from a name of today or a former one."""
    return CONVERTED_KEYS.get(key) or RENAMED_KEYS.get(key, key)


def _written_keys(args: argparse.Namespace) -> set[str]:
    """Return the keys that the user wrote: KEY VALUE pairs, and those in files outside this
    project's ``configs`` folder."""
    keys = _option_keys(args)
    files = [args.config_file, *overlay_files(overlay_names(args), args.config_file)]
    return keys.union(*(map(_current_name, user_keys(file)) for file in files))


def resolve_device(name: str) -> str:
    """Return the name of a device of torch that exists on this machine.

    The CPU is always called ``cpu``, without an index.

    Args:
        name: ``auto`` for the first of cuda, xpu and cpu that exists, or the name of a device,
            which may have an index. mps is used only if it is named; it is untested.

    Raises:
        UserError: the name is not a device of torch, or the device does not exist here.
    """
    if name == "auto":
        return next((kind for kind in ("cuda", "xpu") if _device_count(kind)), "cpu")
    try:
        device = torch.device(name) if isinstance(name, str) else None
    except RuntimeError:
        device = None
    if device is None or device.type == "meta":
        raise UserError(
            f"MODEL.DEVICE {shown(name)} is not a device that torch can compute on; "
            "use auto, cpu, cuda, xpu or mps"
        )
    if device.type == "cpu":
        return "cpu"  # torch ignores the index
    count = _device_count(device.type)
    if (device.index or 0) >= count:
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
    """Return one line that names the device."""
    kind = torch.device(device).type
    if kind == "cpu":
        return f"device: {device} ({torch.get_num_threads()} threads)"
    if kind in ("cuda", "xpu"):
        return f"device: {device} ({torch.get_device_module(kind).get_device_name(device)})"
    return f"device: {device}"


def _unfreeze_random_weights(cfg: CfgNode) -> None:
    """Train all norms and stages of a backbone that has no pretrained weights.

    Frozen norms and stages are for pretrained weights. Random ones would stay random, and without
    an active norm the loss soon becomes NaN.
    """
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
        "MODEL.WEIGHTS is empty: the backbone starts from random weights, so it uses "
        f"{'its own norm' if timm else 'BN'} instead of FrozenBN and no stage is frozen"
    )


def _disable_emulated_bfloat16(cfg: CfgNode) -> None:
    """Disable mixed precision on a CPU without bfloat16 instructions.

    Emulated, it is many times slower than float32 and does not save a relevant amount of memory.
    """
    if cfg.SOLVER.AMP.ENABLED and cfg.MODEL.DEVICE == "cpu" and not has_bfloat16():
        cfg.SOLVER.AMP.ENABLED = False
        logger.warning(
            "this CPU has no bfloat16 instructions, so mixed precision would be slower than "
            "float32: SOLVER.AMP.ENABLED is False"
        )


def has_bfloat16() -> bool:
    """Return whether this CPU multiplies bfloat16 in hardware.

    On x86 these are AVX512-BF16 and AMX. On other processors, oneDNN is asked.
    """
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
