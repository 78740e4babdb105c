"""The configuration of a trained model, for prediction and export."""

import argparse

from detectron2.config import CfgNode

from ccsa.engine.checks import check_model
from ccsa.engine.config_values import check_pairs
from ccsa.engine.own_data import data_options
from ccsa.engine.setup import add_config_arguments, resolve_device, setup_cfg
from ccsa.engine.values.check import check_values
from ccsa.engine.weights import check_download_is_requested, check_weights
from ccsa.errors import UserError, shown
from ccsa.modeling.pixel_normalization import resolve_pixel_constants
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
            ``MODEL.COMPILE`` is False unless ``opts`` contains it.

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
    options = ["MODEL.DEVICE", device] * bool(device)
    # To compile takes longer than to predict a few images, and needs a compiler.
    options += ["MODEL.COMPILE", "False", *args.opts]
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


def with_weights(cfg: CfgNode, weights: str = "", device: str = "") -> CfgNode:
    """Return a frozen copy of a configuration that exists in memory, for prediction.

    The weights exist, and the model can be built.

    Args:
        cfg: a configuration with the keys of :func:`ccsa.add_ccsa_config`.
        weights: replaces ``MODEL.WEIGHTS``.
        device: replaces ``MODEL.DEVICE``.

    Raises:
        UserError: the keys of ccsa or the weights are missing, a value is not valid, or the model
            cannot be built.
    """
    if "CONTEXT" not in cfg.MODEL:
        raise UserError(
            "the configuration does not have the keys of ccsa; call ccsa.add_ccsa_config(cfg) "
            "after get_cfg(), before a file is merged"
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.WEIGHTS = weights or cfg.MODEL.WEIGHTS
    if not cfg.MODEL.WEIGHTS:
        raise UserError("the configuration does not name any weights; pass a weights file")
    cfg.MODEL.DEVICE = resolve_device(device or cfg.MODEL.DEVICE)
    cfg = resolve_pixel_constants(cfg)
    check_values(cfg)
    cfg.freeze()
    check_weights(cfg.MODEL.WEIGHTS)
    check_model(cfg)
    return cfg


def with_confidence(cfg: CfgNode, confidence: float) -> CfgNode:
    """Return a frozen copy of a configuration whose model finds objects with at least this score.

    Args:
        cfg: the configuration of any kind of model.
        confidence: from 0 to 1.

    Raises:
        UserError: the confidence is not a number from 0 to 1.
    """
    is_number = isinstance(confidence, int | float) and not isinstance(confidence, bool)
    if not (is_number and 0 <= confidence <= 1):  # NaN fails too
        raise UserError(f"confidence must be a number from 0 to 1, not {shown(confidence)}")
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = float(confidence)
    cfg.MODEL.RETINANET.SCORE_THRESH_TEST = float(confidence)
    cfg.MODEL.PANOPTIC_FPN.COMBINE.INSTANCES_CONFIDENCE_THRESH = float(confidence)
    cfg.freeze()
    return cfg
