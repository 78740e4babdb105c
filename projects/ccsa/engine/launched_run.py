"""A run whose processes a launcher has started: one folder, one decision, and one message.

The folder stores the id of the launcher's job. If the launcher restarts the processes, the run is
continued without ``--resume``.
"""

import argparse
import contextlib
import functools
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from detectron2.config import CfgNode
from detectron2.utils import comm

from ccsa.engine.checks import check_run
from ccsa.engine.launchers import Launcher
from ccsa.engine.local_processes import end_with_launcher
from ccsa.engine.process_group import run_in_job
from ccsa.engine.resume_state import shorten_logs
from ccsa.errors import UserError
from ccsa.utils.files import write_text
from ccsa.utils.run_folders import RUN_ID, choose_output_dir, has_checkpoint
from ccsa.utils.run_lock import RunLock

Result = TypeVar("Result")
_ENDING_WITHIN = 60.0  # seconds that the former rank 0 has to notice that the job was restarted
_VISIBLE_WITHIN = 30.0  # seconds until a file of another machine appears on a shared file system
# https://github.com/pytorch/pytorch/issues/135712
_REJOINING = (
    "if torchrun itself is started again on a machine, it can only rejoin the others if "
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 was set for torchrun on all machines"
)


def launch_within(
    function: Callable[..., None], cfg: CfgNode, args: argparse.Namespace, found: Launcher
) -> None:
    """Call a function in this process of a job that a launcher has started.

    Args:
        function: called as ``function(cfg, args)``, with the folder of the run in ``cfg``.
        cfg: the configuration of the run; the same in all processes.
        args: of ``tools/train_net.py``. ``resume`` is set if the launcher has restarted the run.
        found: the launcher.

    Raises:
        UserError: the run cannot start.
        SystemExit: another process of the job is gone, or has reported an error.
    """
    if not cfg.OUTPUT_DIR:
        raise UserError(
            f"{found.name} needs one OUTPUT_DIR for all processes and restarts; add OUTPUT_DIR "
            "FOLDER at the end of the command"
        )
    end_with_launcher()
    place = found.place
    several = place.world_size > 1
    if place.rank == 0 and place.served and place.world_size > place.local_size:
        print(f"note: {_REJOINING}", file=sys.stderr)
    if several:
        device = torch.device(cfg.MODEL.DEVICE).type
        run_in_job(_prepared, (function, cfg, args, found), place, device, explain=True)
    else:
        _prepared(function, cfg, args, found)


def _prepared(
    function: Callable[..., None], cfg: CfgNode, args: argparse.Namespace, found: Launcher
) -> None:
    lock = RunLock(Path(cfg.OUTPUT_DIR))
    try:
        prepare_run(cfg, args, found, lock)
        function(cfg, args)
    finally:
        lock.release()


def prepare_run(cfg: CfgNode, args: argparse.Namespace, found: Launcher, lock: RunLock) -> None:
    """Check a run and prepare its folder, in all processes of the job together.

    The first process of each machine checks the run; rank 0 decides whether it is continued, locks
    the folder, and writes the id of the job.

    Args:
        cfg, args, found: as in :func:`launch_within`.
        lock: of the folder.

    Raises:
        UserError, SystemExit: as :func:`launch_within`.
    """
    folder = Path(cfg.OUTPUT_DIR)
    job = f"{found.name} {found.run_id}\n"
    restarted = together(lambda: comm.is_main_process() and _stored_job(folder) == job)
    if restarted and not args.eval_only:
        args.resume = args.resume or together(lambda: has_checkpoint(folder))
    if found.place.local_rank == 0:
        together(functools.partial(check_run, cfg, args))
    else:
        together(lambda: None)
    together(functools.partial(_create, cfg, args, restarted, job, lock))
    together(functools.partial(_check_is_shared, folder, job))


def _stored_job(folder: Path) -> str:
    with contextlib.suppress(OSError, UnicodeError):
        return (folder / RUN_ID).read_text(encoding="utf-8")
    return ""


def _create(
    cfg: CfgNode, args: argparse.Namespace, restarted: bool, job: str, lock: RunLock
) -> None:
    """Create the folder, or remove what a run has left that was stopped before its first
    checkpoint; and write the id of the job. Only rank 0 does anything."""
    if not comm.is_main_process():
        return
    folder = Path(cfg.OUTPUT_DIR)
    if not restarted:
        choose_output_dir(cfg, args)  # raises an error if the folder contains another run
    lock.acquire(_ENDING_WITHIN if restarted else 0.0)
    if restarted and not (args.resume or args.eval_only):
        shorten_logs(folder, {})
    write_text(folder / RUN_ID, job)


def _check_is_shared(folder: Path, job: str) -> None:
    """Check that this process sees what rank 0 has written.

    Raises:
        UserError: it does not.
    """
    give_up = time.monotonic() + _VISIBLE_WITHIN
    while _stored_job(folder) != job:
        if time.monotonic() > give_up:
            raise UserError(
                f"rank {comm.get_rank()} does not see what rank 0 writes to OUTPUT_DIR {folder}; "
                "name a folder on a file system that all machines share, by the same path"
            )
        time.sleep(0.2)


def together(step: Callable[[], Result]) -> Any:
    """Call a function in each process of the job; if it raises in one, it raises in all of them.

    Returns:
        What the function has returned in the process of rank 0.

    Raises:
        UserError: the one of the first process that has raised one.
    """
    result, problem = None, ""
    try:
        result = step()
    except UserError as error:
        problem = str(error)
    answers = comm.all_gather((problem, result))
    if problems := [text for text, _ in answers if text]:
        raise UserError(problems[0])
    return answers[0][1]
