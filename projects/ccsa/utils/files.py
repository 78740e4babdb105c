"""Files that are complete or absent, even if the process is killed while it writes them."""

import contextlib
import errno
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ccsa.errors import UserError

STALE_AFTER = 3600.0  # seconds after which no program still writes to an unfinished file
PARTIAL = ".partial"  # part of the name of a file that is still being written, before its suffix


@contextlib.contextmanager
def atomic_write(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to, and move it to ``path`` on success.

    The temporary file is in the same folder and has the same suffix. It is deleted after an error,
    so that an existing file at ``path`` stays as it was.

    Args:
        path: the file to write; missing parent folders are created.
        durable: whether the file has reached the disk when this returns, so that it also survives
            a power failure. This takes time.

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
        if durable:
            _sync(partial)
        os.replace(partial, path)
        if durable:
            _sync(path.parent)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); "
            "free disk space or fix the permissions there, or name another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, have reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # of file systems without fsync
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Write a UTF-8 text file that is complete or absent.

    Args:
        path, durable: see :func:`atomic_write`.
        text: the content.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_write(path, durable=durable) as partial:
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
    check_writable(path, option)


def check_writable(path: Path, option: str) -> None:
    """Check that a file can be written; it may exist already, and its folder may not.

    Args:
        path: the file to write.
        option: the command line option that names it, for the message.

    Raises:
        UserError: the path is a folder, or the folder is not writable.
    """
    if path.is_dir():
        raise UserError(f"{option} {path} is a folder; name a file")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=parent):  # os.access does not know every file system
            pass
    except OSError as error:
        raise UserError(
            f"{option} {path} cannot be written in {parent} ({error.strerror}); name another file"
        ) from error


def remove_stale_partials(folder: Path, *, older_than: float = STALE_AFTER) -> None:
    """Remove unfinished files that programs left in ``folder`` when they were killed.

    Args:
        folder: the folder; those below it are not searched.
        older_than: files that may still be written, because they changed within this time in
            seconds, are kept. It is 0 if no other program can be writing to the folder.
    """
    for partial in folder.glob(f".*{PARTIAL}.*"):
        if not older_than or time.time() - partial.stat().st_mtime > older_than:
            partial.unlink(missing_ok=True)
