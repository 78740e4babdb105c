"""A lock of a run folder, so that two programs never write to it at the same time."""

import errno
import os
import socket
import time
from pathlib import Path

from ccsa.errors import UserError, shown
from ccsa.utils.files import remove_stale_partials

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = "run.lock"
# What file systems answer that know no locks; a run there is not protected.
_UNSUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
_POLL = 0.2  # seconds between two attempts
_held: set[int] = set()  # file descriptors of the locks of this process


class RunLock:
    """The lock of a run folder, which ends with this process at the latest, however it ends.

    It is a lock of the operating system on the file ``run.lock``. It belongs to this process and
    not to those that it starts, so it never outlives the run, and nobody has to remove the file.

    Args:
        folder: of the run.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with RunLock(folder):
        ...     (folder / "run.lock").exists()
        True
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self._file: int | None = None

    def __enter__(self) -> "RunLock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self, patience: float = 0.0) -> None:
        """Lock the folder, and remove the unfinished files that killed programs have left in it.

        Args:
            patience: seconds to wait for another program that holds the lock.

        Raises:
            UserError: another program holds the lock, or the folder cannot be written.
        """
        try:
            # A link is not followed, so that no other file is written.
            flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
            file = os.open(self.folder / LOCK, flags, 0o644)
        except OSError as error:
            raise UserError(
                f"cannot write a run to {self.folder} ({error.strerror}); fix the permissions "
                "there, or name another OUTPUT_DIR"
            ) from error
        end = time.monotonic() + patience
        while not _locked(file):
            if time.monotonic() >= end:
                holder = os.read(file, 200).decode("utf-8", "replace").strip()
                os.close(file)
                raise UserError(
                    f"another run is using {self.folder} ({shown(holder)[1:-1]}); wait until it "
                    "ends or stop it, or name another OUTPUT_DIR"
                )
            time.sleep(_POLL)
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        self._file = file
        _held.add(file)
        for place in (self.folder, *self.folder.glob("inference/*")):
            if place.is_dir() and not place.is_symlink():
                remove_stale_partials(place, older_than=0)

    def release(self) -> None:
        """Unlock the folder; nothing happens if it is not locked."""
        if self._file in _held:
            _held.discard(self._file)
            os.close(self._file)
        self._file = None


def _locked(file: int) -> bool:
    """Lock a file; return False if another program holds its lock. Where the file system knows no
    locks, nothing is protected."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _UNSUPPORTED
    return True


def _close_copies() -> None:
    """Close the copies in a process that was forked, such as a worker of a data loader. Otherwise
    the lock would last until that process ends."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_copies)
