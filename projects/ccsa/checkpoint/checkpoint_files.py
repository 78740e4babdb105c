"""The checkpoint files of a run: written with a checksum, verified, and removed when they are old.

Beside each ``NAME.pth`` there is ``NAME.pth.sha256`` in the format of the command ``sha256sum``, so
that ``sha256sum --check`` verifies a folder as well. Files are ordered by their iteration and never
by their time of change, because clocks can be wrong.
"""

import contextlib
import hashlib
import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from detectron2.utils import comm

from ccsa.checkpoint.weight_files import read_entry, read_weights
from ccsa.errors import UserError
from ccsa.utils.files import atomic_write, write_text
from ccsa.utils.run_folders import BEST, FINAL, LAST, numbered_checkpoints, pointed_checkpoint

logger = logging.getLogger(__name__)

_CHECKSUM = re.compile(r"([0-9a-f]{64}) [ *](.+)\n")
_BLOCK = 2**20  # bytes that are read at a time
_CLOCK_TOLERANCE = 60.0  # seconds by which the clocks of two machines may differ


class _HashedFile:
    """A file that computes the SHA-256 of what is written, and keeps the error of a write that
    failed, because torch may replace it by one that does not state the reason."""

    def __init__(self, file: BinaryIO):
        self._file, self.sha256, self.error = file, hashlib.sha256(), None

    error: OSError | None

    def write(self, data: Any) -> int:
        try:
            written = self._file.write(data)
        except OSError as error:
            self.error = error
            raise
        self.sha256.update(data)
        return written

    def flush(self) -> None:
        self._file.flush()


def checksum_file(path: Path) -> Path:
    """Return the path of the checksum of a checkpoint."""
    return path.with_name(f"{path.name}.sha256")


def write_checkpoint(content: Mapping[str, Any], path: Path) -> None:
    """Write a checkpoint and its checksum. When this returns, both have reached the disk.

    Args:
        content: what ``torch.save`` writes.
        path: the file; an existing one is replaced at the end.

    Raises:
        UserError: the file cannot be written; an existing one at ``path`` stays as it was.
    """
    with atomic_write(path) as partial:
        sha256 = _write(content, partial)
        # Without a checksum, a file is verified by those inside it. A checksum of the former
        # content would make the new file look damaged if the process were killed here.
        checksum_file(path).unlink(missing_ok=True)
    write_text(checksum_file(path), f"{sha256}  {path.name}\n")


def _write(content: Mapping[str, Any], path: Path) -> str:
    """Write a file with ``torch.save`` and return its SHA-256."""
    with open(path, "wb", buffering=0) as raw:
        file = _HashedFile(raw)
        try:
            torch.save(content, cast(BinaryIO, file))
        except RuntimeError as error:
            if file.error is None:
                raise
            raise file.error from error
        return file.sha256.hexdigest()


def damage(path: Path) -> str:
    """Return what is wrong with a checkpoint, or an empty string if it is complete.

    Without a ``.sha256`` file, the checksums inside the file are verified.
    """
    if not path.is_file():
        return "it does not exist"
    stored = _stored_checksum(path)
    try:
        if stored:
            return "" if _sha256(path) == stored else f"its content differs from {path.name}.sha256"
        read_weights(path)
    except OSError as error:
        return f"it cannot be read: {error.strerror or error}"
    except UserError:
        return "it is truncated, damaged, or not a checkpoint"
    return ""


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _stored_checksum(path: Path) -> str:
    """Return the checksum beside a checkpoint; empty if there is none that can be used."""
    try:
        found = _CHECKSUM.fullmatch(checksum_file(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeError):
        return ""
    return found[1] if found and found[2] == path.name else ""


def resumable(folder: Path) -> list[Path]:
    """Return the checkpoints in a folder from which a run can be resumed, the preferred one first:
    that of ``last_checkpoint``, then the others from the newest to the oldest."""
    iterations: dict[Path, float] = {**numbered_checkpoints(folder)}
    for name, unknown in ((FINAL, float("inf")), (BEST, -1.0)):
        if (folder / name).is_file():
            iteration = read_entry(folder / name, "iteration")
            iterations[folder / name] = iteration if isinstance(iteration, int) else unknown
    last = pointed_checkpoint(folder)
    others = sorted(iterations, key=lambda path: (path == last, iterations[path]), reverse=True)
    return others if last is None or last in iterations else [last, *others]


def newest_valid(folder: Path) -> Path:
    """Return the checkpoint from which the run in a folder is resumed.

    It is that of ``last_checkpoint``, or the newest valid one if that file is missing or names a
    checkpoint that is damaged. The log states which files were rejected.

    Raises:
        UserError: no checkpoint is valid.
    """
    rejected: list[str] = []
    for path in resumable(folder):
        problem = damage(path)
        if not problem:
            _log_choice(folder, path, rejected)
            return path
        rejected.append(f"{path.name}: {problem}")
    raise UserError(
        f"--resume: {folder} has no checkpoint that is complete "
        f"({'; '.join(rejected) or f'{LAST} is empty'}); restore one from a copy, or start a run "
        "in another folder"
    )


def shared_newest_valid(folder: Path) -> Path:
    """Return :func:`newest_valid`, which the main process finds for all processes of the job.

    Raises:
        UserError: in every process, if no checkpoint is valid.
    """
    found = problem = None
    if comm.is_main_process():
        try:
            found = newest_valid(folder)
        except UserError as error:
            problem = str(error)
    found, problem = comm.all_gather((found, problem))[0]
    if found is None:
        raise UserError(problem)
    return found


def _log_choice(folder: Path, path: Path, rejected: list[str]) -> None:
    if rejected:
        logger.warning(
            "The newest checkpoint is damaged (%s). The newest valid one is used: %s",
            "; ".join(rejected),
            path,
        )
    elif pointed_checkpoint(folder) is None:
        logger.warning("%s has no %s. The newest valid checkpoint is used: %s", folder, LAST, path)
    ahead = path.stat().st_mtime - time.time()
    if ahead > _CLOCK_TOLERANCE:
        logger.warning(
            "The clock was set back: %s is %.0f s in the future. Checkpoints are ordered by their "
            "iterations, so this does not matter.",
            path.name,
            ahead,
        )


def remove_old(folder: Path, iteration: int, keep: int) -> None:
    """Remove old checkpoints ``model_<iteration>.pth`` and their checksums.

    ``model_final.pth``, ``model_best.pth``, the file of ``last_checkpoint``, and all files with
    other names are kept.

    Args:
        folder: the run folder.
        iteration: of the checkpoint that was written last; later ones are not removed.
        keep: the number of checkpoints that are kept.
    """
    last = pointed_checkpoint(folder)
    written = [path for path, at in numbered_checkpoints(folder).items() if at <= iteration]
    for path in written[keep:]:
        if path != last:
            with contextlib.suppress(OSError):
                path.unlink()
                checksum_file(path).unlink(missing_ok=True)
