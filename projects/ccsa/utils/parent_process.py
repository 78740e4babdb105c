"""Processes that end with the one that has started them."""

import contextlib
import ctypes
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable

_PR_SET_PDEATHSIG = 1  # of Linux's prctl


def end_with_parent(*, at_once: bool = True) -> None:
    """Make this process, which multiprocessing has started, end with its parent.

    A thread watches a pipe to the parent.

    Args:
        at_once: on Linux, let the system kill this process as well, also while it computes without
            running Python code. The system does so if the thread ends that has started this
            process, so it must be the main thread.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    if at_once and sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # a C library without prctl
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    sentinel = parent.sentinel  # it also tells that the parent has ended before
    end_after(lambda: multiprocessing.connection.wait([sentinel]))


def end_worker_with_parent(_number: int) -> None:
    """Make this worker of a data loader end with the process that reads from it.

    torch's workers do this by themselves, but one whose parent is killed while it still starts
    would wait forever.

    Args:
        _number: of the worker, as torch passes it to a ``worker_init_fn``.
    """
    end_with_parent(at_once=False)


def end_after(wait: Callable[[], object]) -> None:
    """End this process, without any further action of it, when a function returns."""

    def run() -> None:
        wait()
        os._exit(128 + getattr(signal, "SIGKILL", 9))

    threading.Thread(target=run, name="watch the parent process", daemon=True).start()
