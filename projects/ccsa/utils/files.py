"""Files that are complete or absent, even if the process is killed while it writes them."""

import contextlib
import errno
import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ccsa.errors import UserError, shown

STALE_AFTER = 3600.0  # seconds after which no program still writes to an unfinished file
PARTIAL = ".partial"  # part of the name of a file that is still being written, before its suffix


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, and move it to ``path`` on success.

    The temporary file is in the same folder and has the same suffix. Its name cannot be predicted,
    and it is created exclusively, so that a link with that name is never followed. A link at
    ``path`` is replaced; the file that it leads to stays as it was. File and folder are flushed to
    the disk. After an error the temporary file is deleted, so that a file at ``path`` stays.

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
    partial = path.with_name(f".{path.stem[:100]}.{secrets.token_hex(8)}{PARTIAL}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666))
        yield partial
        _flush(partial)
        os.replace(partial, path)
        _flush(path.parent)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror or error}); "
            "free disk space or fix the permissions there, or name another folder"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Write a file, or the entries of a folder, from the memory of the system to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot do it
            raise
    finally:
        os.close(number)


def regular_file(path: Path) -> Path:
    """Return the path unless it is something that cannot be read as a file.

    Opening a named pipe waits forever, and a device can be endless. A path that does not exist is
    returned, so that whatever opens it reports that.

    Raises:
        OSError: the path is a folder, a pipe or a device.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is not a regular file")
    return path


def real_path(path: str | Path) -> Path:
    """Return the absolute path with all links followed.

    ``Path.resolve`` raises an error for a link that leads to itself. Here such a link stays as it
    is, so that whatever opens the file reports it.
    """
    return Path(os.path.realpath(path))


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file by its name relative to a folder, from which it must not lead out.

    Args:
        folder: may be a link itself.
        name: as a file of annotations gives it; parts may be ``..`` and links.

    Raises:
        UserError: the path, links followed, is not inside the folder.

    Example:
        >>> inside(Path("a"), "b/../c.png").as_posix()
        'a/b/../c.png'
        >>> inside(Path("a"), "../c.png")
        Traceback (most recent call last):
        ...
        ccsa.errors.UserError: '../c.png' leads outside the folder a; name a file inside it
    """
    path = folder / name
    if "\0" in name or not real_path(path).is_relative_to(real_path(folder)):
        raise UserError(f"{shown(name)} leads outside the folder {folder}; name a file inside it")
    return path


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
