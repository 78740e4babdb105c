"""Stopping a run by a signal without losing an iteration.

SIGINT (Ctrl-C), SIGTERM and SIGUSR1 let the run finish its iteration, save a checkpoint, and exit
with status 128 + the number of the signal. A later signal ends the process at once.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import torch
import torch.distributed
from detectron2.utils import comm

# Windows does not have SIGUSR1.
STOPPING = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]
REPETITION = 2.0  # seconds in which further signals count as one, as a shell sends them to all


class RunStopped(SystemExit):
    """Raised where a run stops because of a signal. The exit status is 128 + its number.

    Args:
        number: of the signal.
        everywhere: whether every process of the job stops at the same place in the program.
    """

    def __init__(self, number: int, *, everywhere: bool):
        super().__init__(128 + number)
        self.number, self.everywhere = number, everywhere

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.number).name}"


class StopSignals:
    """Receives the signals that ask a run to stop, as a context manager around the training loop.

    Attributes:
        number: of the signal that this process has received; 0 if none.

    Example:
        >>> signals = StopSignals()
        >>> with signals:
        ...     signal.raise_signal(signal.SIGUSR1)
        ...     signals.agreed()
        10
    """

    def __init__(self) -> None:
        self.number = 0
        self._since = 0.0
        self._interruptible = False
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # others cannot set handlers
            self._before = {number: signal.signal(number, self._receive) for number in STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def agreed(self) -> int:
        """Return the number of a signal that any process of the job has received; 0 if none has.

        Every process calls this after each iteration, so that all of them stop after the same one.
        """
        if comm.get_world_size() == 1:
            return self.number
        number = torch.tensor(self.number)
        group = comm._get_global_gloo_group()  # NCCL would need a tensor on the GPU
        torch.distributed.all_reduce(number, torch.distributed.ReduceOp.MAX, group=group)
        return int(number)

    @contextlib.contextmanager
    def interrupting(self) -> Iterator[None]:
        """Raise :class:`RunStopped` at once if the main process receives a signal in this block,
        whose work can be repeated and takes long, such as an evaluation."""
        self._interruptible = comm.is_main_process()
        try:
            if self.number and self._interruptible:
                raise self._stopped()
            yield
        finally:
            self._interruptible = False

    def _stopped(self) -> RunStopped:
        self._interruptible = False
        return RunStopped(self.number, everywhere=comm.get_world_size() == 1)

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker of a data loader, which inherits the handler
            if number == signal.SIGTERM:
                os._exit(128 + number)
            return  # the iteration still needs the samples of the worker
        now = time.monotonic()
        if self.number and now - self._since < REPETITION:
            return
        if self.number:
            os._exit(128 + number)
        self.number, self._since = number, now
        if comm.is_main_process():
            # The buffers of sys.stderr and the log may be in use where the handler interrupts.
            name = signal.Signals(number).name
            text = f"{name}: saving a checkpoint after this iteration; repeat it to stop at once\n"
            with contextlib.suppress(OSError):
                os.write(2, text.encode())
        if self._interruptible:
            raise self._stopped()
