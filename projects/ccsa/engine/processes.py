"""Checks of the number of processes of a job, and of how they find each other."""

import argparse
import os
import re

import torch
from detectron2.config import CfgNode

from ccsa.errors import UserError

PROCESSES_PER_CORE = 8  # on the CPU; more of them only slow each other down
_ADDRESS = re.compile(r"tcp://[^/:\s]+:(\d+)|tcp://\[[0-9a-fA-F:]+\]:(\d+)")


def check_processes(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Check the number of processes against the GPUs, the norms and the batch size.

    Raises:
        UserError: more processes than GPUs or far more than CPU cores, a rank or an address that
            does not fit, SyncBN in several CPU processes, a batch that the processes cannot share
            equally, or more parts of a batch than a process has images.
    """
    available = torch.cuda.device_count()
    _check_options(args)
    asked = getattr(args, "launcher", "") or f"--num-gpus {args.num_gpus}"
    on_gpu = torch.device(cfg.MODEL.DEVICE).type == "cuda"
    # One process is Detectron2's default and does not require a GPU. Several processes on the CPU
    # must be requested explicitly with MODEL.DEVICE cpu.
    explicit_cpu = "cpu" in (getattr(args, "opts", None) or [])
    if args.num_gpus > 1 and args.num_gpus > available and not (explicit_cpu and not on_gpu):
        raise UserError(
            f"{asked}, but {available} CUDA devices are available; "
            "use fewer, or add MODEL.DEVICE cpu to run that many processes on the CPU"
        )
    most = PROCESSES_PER_CORE * (os.cpu_count() or 1)
    if not on_gpu and args.num_gpus > most:
        raise UserError(
            f"{asked} is too much for the {os.cpu_count() or 1} CPU cores of this machine; use at "
            f"most {most} processes"
        )
    if args.num_gpus * args.num_machines > 1 and not on_gpu and "SyncBN" in cfg.dump():
        raise UserError(
            "SyncBN needs a GPU for each process; for several CPU processes use BN wherever SyncBN "
            "is set, e.g. MODEL.RESNETS.NORM BN MODEL.SEM_SEG_HEAD.NORM BN"
        )
    if args.eval_only:
        return
    batch, reference = cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE
    if reference and batch % reference:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {batch} is not divisible by REFERENCE_WORLD_SIZE {reference}; "
            "add SOLVER.REFERENCE_WORLD_SIZE 0 to use the batch size and learning rate as written"
        )
    world_size = args.num_gpus * args.num_machines
    if not reference and batch % world_size:
        raise UserError(
            f"SOLVER.IMS_PER_BATCH {batch} cannot be shared equally by {world_size} processes; "
            f"make it a multiple of {world_size}"
        )
    share = batch // (reference or world_size)
    if share < cfg.SOLVER.ACCUMULATE:
        raise UserError(
            f"SOLVER.ACCUMULATE {cfg.SOLVER.ACCUMULATE} is more than the {share} images of each "
            "process; lower it, or raise SOLVER.IMS_PER_BATCH"
        )


def _check_options(args: argparse.Namespace) -> None:
    """Check the options of Detectron2's ``launch``, which it would use without a check.

    Raises:
        UserError: an option is out of its range, or the address is not one.
    """
    for option in ("num_gpus", "num_machines"):
        count = getattr(args, option)
        if not 1 <= count <= 10**6:
            raise UserError(
                f"--{option.replace('_', '-')} must be at least 1 and at most 1000000, not {count}"
            )
    rank, machines = getattr(args, "machine_rank", 0), args.num_machines
    if not 0 <= rank < machines:
        raise UserError(
            f"--machine-rank {rank} does not exist for --num-machines {machines}; number the "
            f"machines from 0 to {machines - 1}"
        )
    url = getattr(args, "dist_url", "auto")
    if url == "auto" and machines == 1:
        return
    if url == "auto":
        raise UserError(
            "--dist-url auto is only possible on one machine; give the address of machine 0, e.g. "
            "tcp://192.168.0.1:29500"
        )
    found = _ADDRESS.fullmatch(url)
    if not (found and 1 <= int(found[1] or found[2]) <= 65535):
        raise UserError(
            f"--dist-url '{url[:60]}' is not an address; give tcp://HOST:PORT with a port from 1 "
            "to 65535"
        )
