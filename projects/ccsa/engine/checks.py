"""Checks before a run starts: mistakes that would stop it after minutes are reported within
seconds, before any file is written."""

import argparse
import logging
import os
import re
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.utils.file_io import PathManager
from fvcore.nn.precise_bn import get_bn_modules
from torch import nn

from ccsa.blocks import CONTEXT_BLOCK_REGISTRY, CrissCross
from ccsa.data.loaders import build_train_mapper, clip_records
from ccsa.data.own import task_data
from ccsa.engine.compilation import check_compilation
from ccsa.engine.dataset_checks import check_classes, check_contents, check_evaluation
from ccsa.engine.memory_limits import check_memory
from ccsa.engine.overlays import block_lists
from ccsa.engine.processes import check_processes
from ccsa.engine.solver import build_lr_scheduler, build_optimizer
from ccsa.engine.stored_classes import check_stored_classes
from ccsa.engine.trackers import check_tracker
from ccsa.engine.trainer import no_training_images
from ccsa.engine.unread_keys import recorded, without_effect
from ccsa.engine.weights import check_download_is_requested, check_weights
from ccsa.errors import UserError, shown, suggestion
from ccsa.inference import build_inference
from ccsa.ops.criss_cross.dispatch import choose, requested_backend
from ccsa.utils.run_folders import choose_output_dir

logger = logging.getLogger(__name__)

_UNKNOWN_NAME = r"No object named '(.+)' found in '(.+)' registry"  # the error of a registry
IMPORT_HINT = "if it is your own, name the file that registers it by --import FILE"
# Keys under which Detectron2 stores the files and folders of a dataset in its metadata.
_PATH_KEYS = (
    *("json_file", "image_root", "panoptic_json", "panoptic_root", "sem_seg_root"),
    *("image_dir", "gt_dir", "dirname"),
)


def check_run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Check the processes, datasets, weights, model, solver and augmentation of a run.

    Args:
        cfg: the configuration of the run.
        args: the arguments of ``tools/train_net.py``: ``num_gpus``, ``num_machines``,
            ``eval_only``, ``resume`` and ``opts``.

    Raises:
        UserError: the first problem that would keep the run from working, and how to fix it.
    """
    check_processes(cfg, args)
    check_tracker(cfg.TRACKER)
    if not args.eval_only and not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN is empty; name a dataset, e.g. \"('digits_train',)\"")
    names = (() if args.eval_only else tuple(cfg.DATASETS.TRAIN)) + tuple(cfg.DATASETS.TEST)
    for name in names:
        check_dataset(name)
        clip_records(cfg, [name])  # raises an error if raw frames are missing
    if not args.resume:
        check_download_is_requested(cfg, args)
        check_weights(cfg.MODEL.WEIGHTS)
        if args.eval_only and not cfg.MODEL.WEIGHTS:
            raise UserError(
                "--eval-only has nothing to evaluate: add MODEL.WEIGHTS file.pth, "
                "or --resume to evaluate the last checkpoint of a run"
            )
    if cfg.MODEL.CONTEXT.BLOCKS and cfg.MODEL.META_ARCHITECTURE != "ContextModel":
        raise UserError(
            f"MODEL.CONTEXT.BLOCKS lists blocks, but MODEL.META_ARCHITECTURE "
            f"{cfg.MODEL.META_ARCHITECTURE} does not attach any: set MODEL.META_ARCHITECTURE to "
            f"ContextModel and MODEL.CONTEXT.META_ARCHITECTURE to {cfg.MODEL.META_ARCHITECTURE}"
        )
    # What is built from this copy records the keys that it reads.
    recording, reads = recorded(cfg)
    model = check_model(recording)
    check_memory(cfg, model, args)
    processes = max(1, args.num_gpus) * max(1, args.num_machines)
    check_compilation(cfg, model, processes)
    if not args.eval_only:
        build_optimizer(recording, model)
        check_precise_bn(cfg, model)
    if args.resume and hasattr(args, "config_file"):
        choose_output_dir(cfg, args)  # raises an error if there is nothing to resume
    training = not args.eval_only
    check_contents(cfg, training=training, report=not getattr(args, "machine_rank", 0))
    check_classes(cfg, model, training=training)
    if training:
        build_train_mapper(recording)  # may follow from the records, which are checked by now
        check_objects(cfg)
    elif not args.resume:
        check_stored_classes(cfg)
    check_evaluation(cfg)
    written = getattr(args, "written", ())
    if written:
        if training:
            build_lr_scheduler(recording, build_optimizer(recording, model))
        for sentence in without_effect(cfg, written, reads, training=training):
            logger.warning(sentence)


def check_precise_bn(cfg: CfgNode, model: nn.Module) -> None:
    """Check that ``TEST.PRECISE_BN`` finds a norm whose statistics it can compute.

    Raises:
        UserError: it is enabled, but the model has no batch norm that is trained.
    """
    if cfg.TEST.PRECISE_BN.ENABLED and not get_bn_modules(model):
        raise UserError(
            "TEST.PRECISE_BN.ENABLED True has no effect, because the model has no batch norm that "
            "is trained; set it to False, or a NORM to BN"
        )


def check_objects(cfg: CfgNode) -> None:
    """Check that the user's training data has an object, if images without objects are left out.

    Raises:
        UserError: no image would remain.
    """
    if not (cfg.DATASETS.OWN.ROOT and cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS):
        return
    splits = task_data(cfg).splits
    own = {f"{cfg.DATASETS.OWN.NAME}_{split}": records for split, records in splits.items()}
    records = [r for name in cfg.DATASETS.TRAIN for r in own.get(name, ())]
    is_used = (
        "annotations" not in r or any(not a.get("iscrowd") for a in r["annotations"])
        for r in records
    )
    if records and not any(is_used):
        raise UserError(no_training_images(cfg))


def check_dataset(name: str) -> None:
    """Check that a dataset is registered and that its files exist. Built-in datasets are written
    on first use, so that their files are not required.

    Raises:
        UserError: the dataset is unknown (the message names similar ones), or a file is missing
            (the message says where to get it).
    """
    registered = DatasetCatalog.list()
    if name not in registered:
        hint = suggestion(name, registered, listed=0, limit=4)
        hint = hint or "; did you mean one of the built-in datasets, digits_train and digits_val?"
        raise UserError(f"there is no dataset '{name}'{hint}; {IMPORT_HINT}")
    metadata = MetadataCatalog.get(name)
    if metadata.get("built_in", False):
        return
    for key in _PATH_KEYS:
        path = metadata.get(key)
        if path and not PathManager.exists(path):
            raise UserError(
                f"dataset '{name}' is missing: {Path(path).absolute()} does not exist. "
                f"{_download_instructions(name)} "
                "Or set the folder that contains it: export DETECTRON2_DATASETS=FOLDER "
                f"(now {os.getenv('DETECTRON2_DATASETS', './datasets')}). "
                "To try without a download: --config-file configs/digits/ccnet_mask_rcnn.yaml"
            )


def _download_instructions(name: str) -> str:
    command = MetadataCatalog.get(name).get("prepare_command")
    if command:
        return f"docs/DATASETS.md shows its layout; then run '{command}'."
    if name.startswith("coco_2017"):
        return (
            "Download train2017.zip, val2017.zip and annotations_trainval2017.zip from "
            "cocodataset.org and unpack them into the folder coco/ of the datasets "
            "(coco/train2017, coco/val2017, coco/annotations)."
        )
    return "Detectron2's datasets/README.md shows its layout."


def check_blocks(cfg: CfgNode) -> None:
    """Check that the context blocks of a configuration are registered.

    Raises:
        UserError: a block is unknown, either because its name is misspelled or because the code
            that registers it was not imported.
    """
    for key in block_lists(cfg):
        section, name = cfg, key
        while "." in name:
            part, _, name = name.partition(".")
            section = section[part]
        for spec in section[name]:
            block = spec.get("block") if isinstance(spec, dict) else None
            if isinstance(block, str) and block not in CONTEXT_BLOCK_REGISTRY:
                known = list(CONTEXT_BLOCK_REGISTRY)
                raise UserError(
                    f"unknown context block '{block}' in {key}{suggestion(block, known)}; "
                    f"{IMPORT_HINT}"
                )


def check_model(cfg: CfgNode) -> nn.Module:
    """Build the model on the meta device, that is without memory for its weights.

    Returns:
        The model, on the meta device. ``cfg`` stays as it is.

    Raises:
        UserError: a setting of the model is wrong (a block, a location, a head, a test-time
            option), or the requested backend of criss-cross attention cannot run.
    """
    device = cfg.MODEL.DEVICE
    check_blocks(cfg)
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    try:
        with torch.device("meta"):
            model = build_model(cfg)
            build_inference(cfg, model)
    except UserError:
        raise
    except (ValueError, KeyError, AssertionError) as error:  # raised by Detectron2
        text = error.args[0] if error.args else type(error).__name__
        unknown = re.match(_UNKNOWN_NAME, text) if isinstance(text, str) else None
        if unknown:
            raise UserError(
                f"the model cannot be built, because {unknown[2]} has no {shown(unknown[1])}; "
                f"{IMPORT_HINT}"
            ) from error
        if isinstance(error, KeyError) and not isinstance(text, str):
            text = f"a setting has the value {text}, which is not among the supported ones"
        reason = " ".join(str(text).split())[:300]
        raise UserError(f"the model cannot be built: {reason}") from error
    if requested_backend(None)[1] and any(isinstance(m, CrissCross) for m in model.modules()):
        x = torch.empty(1, 1, 1, 1, device=device)
        choose(None, x, x, x)
    return model
