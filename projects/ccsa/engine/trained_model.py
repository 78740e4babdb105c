"""The configuration of a trained model, for tools that show or export one."""

import argparse

from detectron2.config import CfgNode

from ccsa.engine.checks import check_model, check_weights
from ccsa.engine.setup import setup_cfg
from ccsa.errors import UserError
from ccsa.utils.run_folders import run_files


def trained_cfg(args: argparse.Namespace, device: str = "") -> CfgNode:
    """The frozen configuration that a command line names, with its weights in ``MODEL.WEIGHTS``:
    those of ``args.weights``, else of the configuration. The model is known to build, the weights
    to be there.

    Args:
        args: ``weights``, a run's folder or a file, or None; ``config_file``, empty for that of the
            run; ``opts``, ``KEY VALUE ...``.
        device: in place of the configuration's; ``opts`` may name another.

    Raises:
        UserError: configuration or weights are not named or not there, or do not build a model.
            Random weights must be asked for, by ``MODEL.WEIGHTS ""`` in ``opts``.
    """
    if not (args.weights or args.config_file):
        raise UserError(
            "no weights given; add --weights with the folder of a run or a weights file"
        )
    recorded, weights = run_files(args.weights) if args.weights else ("", "")
    # A run may have been trained on a device that is not here.
    device = device or ("" if args.config_file else "auto")
    options = ["MODEL.DEVICE", device] * bool(device) + list(args.opts)
    options += ["MODEL.WEIGHTS", weights] * bool(weights)
    file = args.config_file or recorded
    cfg = setup_cfg(argparse.Namespace(config_file=file, opts=options))
    if not cfg.MODEL.WEIGHTS and "MODEL.WEIGHTS" not in options[::2]:
        raise UserError(
            f'{file} names no weights; add --weights FILE, or MODEL.WEIGHTS "" for random ones'
        )
    check_weights(cfg.MODEL.WEIGHTS)
    check_model(cfg)
    return cfg
