"""Datasets that ccsa makes itself: written to disk on first use, once, safely.

A folder is ours if its version file says so and nothing but our own files lies beside it; all else
is somebody's data, which is never touched.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from iopath.common.file_io import file_lock

from ccsa.errors import UserError

STAMP = "version.json"


def datasets_root() -> Path:
    """Where datasets lie: ``$DETECTRON2_DATASETS``, by default ``./datasets``."""
    return Path(os.getenv("DETECTRON2_DATASETS", "datasets")).expanduser()


def ensure_written(
    name: str,
    version: int,
    folders: Collection[str],
    write: Callable[[Path], object],
    root: Path | str | None = None,
) -> Path:
    """The folder ``root/name``, written if it is not there, incomplete or of another version.

    Safe when several processes start together: one writes, the others wait. It is written beside
    its place and renamed when complete. A writer that is killed leaves the place as it was, and the
    lock, held by the operating system, falls with it.

    Args:
        name: of the dataset and of its folder.
        version: of what is written.
        folders: names of all folders in it.
        write: writes everything into a folder that is not there yet, :func:`write_stamp` last.
        root: :func:`datasets_root` by default, read now.

    Raises:
        UserError: the place holds something else, or cannot be written.
    """
    root = datasets_root() if root is None else Path(root)
    folder = root / name
    if _is_current(folder, version, folders):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with file_lock(str(folder)):
            if not _is_current(folder, version, folders):  # another process may have been first
                _replace(folder, folders, write)
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        # A single file could not be written; only this function knows the folder that users know.
        raise _cannot_write(folder, error.__cause__) from error
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return folder


def _cannot_write(folder: Path, reason: OSError) -> UserError:
    return UserError(
        f"cannot write the {folder.name} dataset to {folder.absolute()} ({reason}); "
        "make room there, or name another place: export DETECTRON2_DATASETS=FOLDER"
    )


def write_stamp(folder: Path, version: int, seed: int, counts: Mapping[str, int]) -> None:
    """Write the version file, which says that the dataset is complete."""
    (folder / STAMP).write_text(json.dumps({"version": version, "seed": seed, **counts}))


def _read_stamp(folder: Path) -> dict:
    """What the version file says; nothing if it is absent, broken or another program's."""
    try:
        stamp = json.loads((folder / STAMP).read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and {"version", "seed"} <= stamp.keys() else {}


def _is_current(folder: Path, version: int, folders: Collection[str]) -> bool:
    stamp = _read_stamp(folder)
    return stamp.get("version") == version and all((folder / name).is_dir() for name in folders)


def _is_ours(folder: Path, folders: Collection[str]) -> bool:
    """Whether the folder may be thrown away: it is empty, or has our version file and nothing
    but our folders."""
    names = {place.name for place in folder.iterdir()}
    return not names or (bool(_read_stamp(folder)) and names <= {STAMP, *folders})


def _replace(folder: Path, folders: Collection[str], write: Callable[[Path], object]) -> None:
    """Write the dataset and put it in its place; the caller holds the lock."""
    name = folder.name
    if folder.exists() and not _is_ours(folder, folders):
        raise UserError(
            f"{folder.absolute()} holds something that is not the {name} dataset; "
            "move it away, or name another place: export DETECTRON2_DATASETS=FOLDER"
        )
    prefix = f".{name}-partial-"  # beside the dataset while it is written
    for abandoned in folder.parent.glob(f"{prefix}*"):  # by a writer that was killed
        shutil.rmtree(abandoned, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        write(partial / "new")
        if folder.exists():
            os.replace(folder, partial / "old")
        os.replace(partial / "new", folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
