"""Checks before a run starts: what would fail later, in minutes or in the middle, fails here in
seconds."""

import argparse
import os
import urllib.parse
import urllib.request
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model
from detectron2.utils.file_io import Detectron2Handler, PathManager
from iopath.common.file_io import get_cache_dir

from ccsa.blocks import CrissCross
from ccsa.data.loaders import build_train_mapper, clip_records
from ccsa.engine.solver import check_solver
from ccsa.errors import UserError, suggestion
from ccsa.inference import build_semantic_inference
from ccsa.modeling.backbones.timm_models import HUB, SCHEME
from ccsa.ops.criss_cross.dispatch import choose, requested_backend

# Metadata in which Detectron2 keeps where a dataset lies.
_PLACES = (
    *("json_file", "image_root", "panoptic_json", "panoptic_root", "sem_seg_root"),
    *("image_dir", "gt_dir", "dirname"),
)


def check_run(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Check processes, datasets, weights, schedule, augmentation and the model that ``cfg`` names.

    Raises:
        UserError: the first thing found that would keep the run from working, with its cure.
    """
    check_processes(cfg, args)
    if not args.eval_only and not cfg.DATASETS.TRAIN:
        raise UserError("DATASETS.TRAIN is empty; name a dataset, e.g. \"('digits_train',)\"")
    for name in (() if args.eval_only else cfg.DATASETS.TRAIN) + tuple(cfg.DATASETS.TEST):
        check_dataset(name)
        clip_records(cfg, [name])  # the raw frames of a video dataset may be missing
    if not args.resume:
        check_weights(cfg.MODEL.WEIGHTS)
        if args.eval_only and not cfg.MODEL.WEIGHTS:
            raise UserError(
                "--eval-only has nothing to evaluate: add MODEL.WEIGHTS file.pth, "
                "or --resume to take the last checkpoint of a run"
            )
    if not args.eval_only:
        check_solver(cfg)
        build_train_mapper(cfg)
    if cfg.MODEL.CONTEXT.BLOCKS and cfg.MODEL.META_ARCHITECTURE != "ContextModel":
        raise UserError(
            f"MODEL.CONTEXT.BLOCKS has blocks, but MODEL.META_ARCHITECTURE "
            f"{cfg.MODEL.META_ARCHITECTURE} takes none: make that ContextModel and name it by "
            "MODEL.CONTEXT.META_ARCHITECTURE"
        )
    check_model(cfg)


def check_processes(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Refuse more GPUs than there are, SyncBN without them, and a batch that the processes cannot
    share."""
    there = torch.cuda.device_count()
    if args.num_gpus < 1 or args.num_machines < 1:
        raise UserError("--num-gpus and --num-machines must be at least 1")
    on_gpu = torch.device(cfg.MODEL.DEVICE).type == "cuda"
    # One process is Detectron2's default and asks for no GPU; several on the CPU are asked for by
    # MODEL.DEVICE cpu.
    explicit_cpu = "cpu" in (getattr(args, "opts", None) or [])
    if args.num_gpus > 1 and args.num_gpus > there and not (explicit_cpu and not on_gpu):
        raise UserError(
            f"--num-gpus {args.num_gpus}, but {there} CUDA devices are there; "
            "use fewer, or MODEL.DEVICE cpu for that many CPU processes"
        )
    if args.num_gpus * args.num_machines > 1 and not on_gpu and "SyncBN" in cfg.dump():
        raise UserError(
            "SyncBN needs a GPU for each process; for several CPU processes use BN wherever it is "
            "set, e.g. MODEL.RESNETS.NORM BN MODEL.SEM_SEG_HEAD.NORM BN"
        )
    if args.eval_only:
        return
    batch, reference = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference and batch % reference:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {batch} does not divide by REFERENCE_WORLD_SIZE {reference}; "
            "add SOLVER.REFERENCE_WORLD_SIZE 0 to use batch size and learning rate as written"
        )
    world = args.num_gpus * args.num_machines
    if not reference and batch % world:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {batch} cannot be shared by {world} processes; "
            f"make it a multiple of {world}"
        )


def check_dataset(name: str) -> None:
    """Refuse a dataset that is not registered, or whose files are not there. Built-in ones are
    written on first use."""
    known = DatasetCatalog.list()
    if name not in known:
        hint = suggestion(name, known, listed=0, limit=4)
        hint = hint or "; did you mean one of the built-in datasets, digits_train and digits_val?"
        raise UserError(f"there is no dataset '{name}'{hint}")
    metadata = MetadataCatalog.get(name)
    if metadata.get("built_in", False):
        return
    for key in _PLACES:
        place = metadata.get(key)
        if place and not PathManager.exists(place):
            raise UserError(
                f"dataset '{name}' is not there: no {Path(place).absolute()}. {_how_to_get(name)} "
                "Or name the folder that has it: export DETECTRON2_DATASETS=FOLDER "
                f"(now {os.getenv('DETECTRON2_DATASETS', './datasets')}). "
                "To try without a download: --config-file configs/digits/ccnet_mask_rcnn.yaml"
            )


def _how_to_get(name: str) -> str:
    command = MetadataCatalog.get(name).get("prepare_command")
    if command:
        return f"docs/DATASETS.md shows its layout; then run '{command}'."
    if name.startswith("coco_2017"):
        return (
            "Get train2017.zip, val2017.zip and annotations_trainval2017.zip from cocodataset.org "
            "and unpack them into coco/ there (coco/train2017, coco/val2017, coco/annotations)."
        )
    return "Its layout is that of Detectron2's datasets/README.md."


def check_weights(weights: str) -> None:
    """Refuse weights that are not there; those named by URL are fetched into the cache now."""
    if not weights:
        return
    cure = (
        "name a .pth, .safetensors or .pkl file by MODEL.WEIGHTS, "
        'or start from random weights by MODEL.WEIGHTS ""'
    )
    if weights == SCHEME + HUB:
        return  # timm knows its address, and fetches it where it is loaded
    file = weights.removeprefix(SCHEME)
    if "://" not in file:
        if Path(file).is_dir():
            raise UserError(f"weights {file} is a folder; {cure}")
        if not Path(file).is_file():
            raise UserError(f"weights {file} are not there; {cure}")
        return
    try:
        _reach(weights)
        if not Path(PathManager.get_local_path(weights)).is_file():
            raise FileNotFoundError("no such address")
    except Exception as error:  # whatever the handler of that scheme raises
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise UserError(f"weights {weights} cannot be fetched ({reason}); {cure}") from error


def _reach(weights: str) -> None:
    """Ask a web address that is not in the cache for its headers: a download has no time limit of
    its own."""
    prefix = Detectron2Handler.PREFIX
    if weights.startswith(prefix):
        weights = Detectron2Handler.S3_DETECTRON2_PREFIX + weights.removeprefix(prefix)
    url = urllib.parse.urlparse(weights)
    if url.scheme in ("http", "https") and not Path(get_cache_dir(), url.path.lstrip("/")).exists():
        with urllib.request.urlopen(urllib.request.Request(weights, method="HEAD"), timeout=3):
            pass


def check_model(cfg: CfgNode) -> None:
    """Build the model without memory for its weights: a bad block, placement or head shows here,
    before any file is written; so does a backend in the environment that cannot run."""
    device = cfg.MODEL.DEVICE
    cfg = cfg.clone()
    cfg.defrost()
    cfg.MODEL.DEVICE = "meta"
    try:
        with torch.device("meta"):
            model = build_model(cfg)
            build_semantic_inference(cfg, model)
    except (ValueError, KeyError, AssertionError) as error:
        text = error.args[0] if error.args else type(error).__name__
        if isinstance(error, KeyError) and not isinstance(text, str):
            text = f"a setting has the value {text}, which is none of those known"
        raise UserError(f"the model cannot be built: {text}") from error
    if requested_backend(None)[1] and any(isinstance(m, CrissCross) for m in model.modules()):
        x = torch.empty(1, 1, 1, 1, device=device)
        try:
            choose(None, x, x, x)
        except ValueError as error:
            raise UserError(str(error)) from error
