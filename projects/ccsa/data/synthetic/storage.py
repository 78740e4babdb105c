"""Storage of the datasets that ccsa draws itself: written once, on first use.

A folder may be replaced only if it has our version file and contains nothing but our own folders.
Anything else is the user's data, which is never touched.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from iopath.common.file_io import file_lock

from ccsa.data.paths import datasets_root
from ccsa.errors import UserError

VERSION_FILE = "version.json"


def ensure_written(
    name: str,
    version: int,
    folders: Collection[str],
    write: Callable[[Path], object],
    root: Path | str | None = None,
) -> Path:
    """Return the folder ``root/name``; write it if it is missing, incomplete or of another version.

    Several processes may start at the same time: one writes, and the others wait. The dataset is
    written to a temporary folder next to its final location and renamed when it is complete. If the
    writer is killed, the final location is unchanged, and the operating system releases the lock.

    Args:
        name: the name of the dataset and of its folder.
        version: the version of what ``write`` writes.
        folders: the names of all folders in the dataset.
        write: writes the dataset into a folder that does not exist yet, the version file
            (:func:`write_version`) last.
        root: the folder of all datasets; by default :func:`datasets_root` at the time of the call.

    Raises:
        UserError: the folder contains something else, or cannot be written.
    """
    root = datasets_root() if root is None else Path(root)
    folder = root / name
    if _is_current(folder, version, folders):
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with file_lock(str(folder)):
            if not _is_current(folder, version, folders):  # unless another process was first
                _replace(folder, folders, write)
    except UserError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        # A file was not written. The message must name the final folder, not the temporary one.
        raise _cannot_write(folder, error.__cause__) from error
    except OSError as error:
        raise _cannot_write(folder, error) from error
    return folder


def _cannot_write(folder: Path, reason: OSError) -> UserError:
    return UserError(
        f"cannot write the {folder.name} dataset to {folder.absolute()} ({reason}); "
        "free disk space there, or name another folder: export DETECTRON2_DATASETS=FOLDER"
    )


def write_version(folder: Path, version: int, seed: int, counts: Mapping[str, int]) -> None:
    """Write the version file, which marks the dataset as complete."""
    (folder / VERSION_FILE).write_text(json.dumps({"version": version, "seed": seed, **counts}))


def _read_version(folder: Path) -> dict[str, Any]:
    """Return the content of the version file; an empty dict if it is missing, broken or written by
    another program."""
    try:
        content = json.loads((folder / VERSION_FILE).read_text())
    except (OSError, json.JSONDecodeError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) and {"version", "seed"} <= content.keys() else {}


def _is_current(folder: Path, version: int, folders: Collection[str]) -> bool:
    """Return whether the dataset is complete and of this version."""
    return _read_version(folder).get("version") == version and all(
        (folder / name).is_dir() for name in folders
    )


def _is_ours(folder: Path, folders: Collection[str]) -> bool:
    """Return whether the folder may be replaced: it is empty, or has our version file and nothing
    but our folders."""
    names = {path.name for path in folder.iterdir()}
    return not names or (bool(_read_version(folder)) and names <= {VERSION_FILE, *folders})


def _replace(folder: Path, folders: Collection[str], write: Callable[[Path], object]) -> None:
    """Write the dataset and move it to its final location; the caller holds the lock."""
    name = folder.name
    if folder.exists() and not _is_ours(folder, folders):
        raise UserError(
            f"{folder.absolute()} contains something that is not the {name} dataset; "
            "move it away, or name another folder: export DETECTRON2_DATASETS=FOLDER"
        )
    prefix = f".{name}-partial-"  # of the temporary folder
    for abandoned in folder.parent.glob(f"{prefix}*"):  # of killed processes
        shutil.rmtree(abandoned, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=prefix, dir=folder.parent))
    try:
        write(partial / "new")
        if folder.exists():
            os.replace(folder, partial / "old")
        os.replace(partial / "new", folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
