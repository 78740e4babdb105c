"""Files that are complete or absent, even if the process is killed while it writes them."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from ccsa.errors import UserError

STALE_AFTER = 3600.0  # seconds after which no program still writes to an unfinished file
PARTIAL = ".partial"  # part of the name of a file that is still being written, before its suffix


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, and move it to ``path`` on success.

    The temporary file is in the same folder and has the same suffix. It is deleted after an error,
    so that an existing file at ``path`` stays as it was.

    Args:
        path: the file to write; missing parent folders are created.

    Yields:
        The path of the temporary file.

    Raises:
        UserError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.txt"
        >>> with atomic_write(path) as partial:
        ...     _ = partial.write_text("done")
        ...     path.exists()
        False
        >>> path.read_text()
        'done'
    """
    partial = path.with_name(f".{path.stem}.{os.getpid()}{PARTIAL}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        os.replace(partial, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); "
            "free disk space or fix the permissions there, or name another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file that is complete or absent.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8")


def check_new_file(path: Path, option: str) -> None:
    """Check that a file does not exist yet and that its folder is writable.

    Tools call this before a long computation whose result they write.

    Args:
        path: the file to write.
        option: the command line option that names it, for the message.

    Raises:
        UserError: the file exists, or its folder is not writable.
    """
    if path.exists():
        raise UserError(
            f"{option} {path} would be overwritten; name another file, or delete it first"
        )
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UserError(f"{option} {path} cannot be written in {parent}; name another file")


def remove_stale_partials(folder: Path) -> None:
    """Remove unfinished files that programs left in ``folder`` when they were killed.

    Files that may still be written, because they changed within the last hour, are kept.
    """
    for partial in folder.glob(f".*{PARTIAL}.*"):
        if time.time() - partial.stat().st_mtime > STALE_AFTER:
            partial.unlink(missing_ok=True)
