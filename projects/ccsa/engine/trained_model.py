"""The configuration of a trained model, for tools that draw or export one."""

import argparse

from detectron2.config import CfgNode

from ccsa.engine.checks import check_model
from ccsa.engine.config_values import check_pairs
from ccsa.engine.own_data import data_options
from ccsa.engine.setup import add_config_arguments, setup_cfg
from ccsa.engine.weights import check_download_is_requested, check_weights
from ccsa.errors import UserError
from ccsa.utils.run_folders import overlay_names, run_files


def add_trained_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--weights`` and the options of a configuration, as :func:`trained_cfg` reads them."""
    parser.add_argument(
        "--weights",
        metavar="RUN_OR_FILE",
        help="the folder of a run, or a .pth, .safetensors or .pkl file",
    )
    add_config_arguments(parser, help="default: the configuration of the run")


def trained_cfg(args: argparse.Namespace, device: str = "") -> CfgNode:
    """Return the frozen configuration of a trained model, with its weights in ``MODEL.WEIGHTS``.

    The weights are those of ``args.weights`` or else of the configuration. They exist, and the
    model can be built.

    Args:
        args: ``weights``, a run folder or a file, or None; ``config_file``, or an empty string for
            the configuration of the run; optionally ``overlays``, for ``config_file``; ``opts``, a
            list ``[KEY, VALUE, ...]``, and the options of
            :func:`ccsa.engine.own_data.add_data_arguments`.
        device: replaces the device of the configuration; ``opts`` takes precedence over it.

    Raises:
        UserError: the configuration or the weights are not given or do not exist, or the model
            cannot be built. Random weights must be requested by ``MODEL.WEIGHTS ""`` in ``opts``.
    """
    if not (args.weights or args.config_file):
        raise UserError(
            "no weights given; add --weights with the folder of a run or a weights file"
        )
    check_pairs(list(args.opts))
    overlays = overlay_names(args)
    if overlays and not args.config_file:
        raise UserError(
            f"--with {','.join(overlays)} needs --config-file: the configuration of a run already "
            "includes its overlays"
        )
    recorded, weights = run_files(args.weights) if args.weights else ("", "")
    # The run may have been trained on a device that this machine does not have.
    device = device or ("" if args.config_file else "auto")
    options = ["MODEL.DEVICE", device] * bool(device) + list(args.opts)
    options += ["MODEL.WEIGHTS", weights] * bool(weights)
    file = args.config_file or recorded
    data = data_options(args)
    words = argparse.Namespace(config_file=file, overlays=overlays, opts=options, **data)
    cfg = setup_cfg(words)
    if not cfg.MODEL.WEIGHTS and "MODEL.WEIGHTS" not in options[::2]:
        raise UserError(
            f"{file} does not name any weights; add --weights FILE, "
            'or MODEL.WEIGHTS "" for random weights'
        )
    check_download_is_requested(cfg, words)
    check_weights(cfg.MODEL.WEIGHTS)
    check_model(cfg)
    return cfg
