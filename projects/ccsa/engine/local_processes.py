"""Run a function in several processes of this machine, of which none outlives the others.

It replaces ``detectron2.engine.launch``, whose processes go on training after their parent was
terminated, and which ends without a message if one of them is killed.
"""

import argparse
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from ccsa.engine.heartbeat import AFTER_ERROR, CONNECTION_LOST, Place
from ccsa.engine.process_group import run_in_job
from ccsa.engine.stop_signals import STOPPING
from ccsa.errors import reports_user_errors
from ccsa.utils.parent_process import end_after, end_with_parent

# Signals that the parent passes on; Windows has no SIGHUP.
_STOPPING = [*STOPPING, *filter(None, [getattr(signal, "SIGHUP", None)])]
_PR_SET_PDEATHSIG = 1  # of Linux's prctl
AFTER_SIGNAL = 5.0  # seconds that the other processes have to end by themselves


def launch(
    function: Callable[..., None], arguments: tuple, args: argparse.Namespace, device: str
) -> None:
    """Call a function in every process that a command line asks for on this machine.

    A job of one process runs in this one.

    Args:
        function: see :func:`run_processes`.
        arguments: of the function.
        args: ``num_gpus`` (processes of this machine), ``num_machines``, ``machine_rank`` and
            ``dist_url``, as :func:`ccsa.engine.processes.check_processes` has checked them.
        device: the device of the configuration.

    Raises:
        SystemExit: see :func:`run_processes`.
    """
    count, machines = args.num_gpus, args.num_machines
    if count * machines == 1:
        function(*arguments)
        return
    auto = args.dist_url == "auto"
    address = f"tcp://127.0.0.1:{free_port()}" if auto else args.dist_url
    first = args.machine_rank * count
    places = [Place(first + i, i, count * machines, count, address) for i in range(count)]
    run_processes(function, arguments, places, torch.device(device).type)


def free_port() -> int:
    """Return a TCP port of this machine that no program uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_processes(
    function: Callable[..., None], arguments: tuple, places: Sequence[Place], device: str
) -> None:
    """Call a function in one new process per place, and return when all of them are done.

    SIGINT, SIGTERM, SIGHUP and SIGUSR1 are passed on to the processes. If this process ends in any
    way, the others are killed. If one of them ends early, the others are ended as well.

    Args:
        function: of a module, because the new processes import it.
        arguments: of the function; they are pickled.
        places: of the new processes in the job.
        device: the type of device that the processes compute on.

    Raises:
        SystemExit: a process did not end well. The status is that of the process, or 128 + the
            number of the signal that has ended it. If a process was killed, a message names its
            rank and the signal.
    """
    context = multiprocessing.get_context("spawn")
    processes = [
        context.Process(target=_run, args=(function, arguments, place, device), daemon=False)
        for place in places
    ]
    try:
        with _signals_passed_on(processes) as received:
            for process in processes:
                process.start()
            _wait(processes)
        status, message = job_status([p.exitcode for p in processes], places, received)
    finally:
        for process in processes:
            if process.pid is not None and process.exitcode is None:
                process.kill()
                process.join()
    if message:
        print(f"error: {message}", file=sys.stderr, flush=True)
    if status:
        sys.exit(status)


def _wait(processes: Sequence[SpawnProcess]) -> None:
    """Wait until all processes have ended, or until one has failed and the others had some time to
    notice that."""
    deadline = float("inf")
    while alive := [p for p in processes if p.exitcode is None]:
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            return
        # Not longer than a second, because handlers of signals run between calls only.
        multiprocessing.connection.wait([p.sentinel for p in alive], min(remaining, 1.0))
        if failed := [p.exitcode for p in processes if p.exitcode]:
            patience = AFTER_SIGNAL if min(failed) < 0 else AFTER_ERROR
            deadline = min(deadline, time.monotonic() + patience)


def job_status(
    codes: Sequence[int | None], places: Sequence[Place], received: Sequence[int] = ()
) -> tuple[int, str]:
    """Return the exit status of a job, and a sentence unless a process has explained its end.

    Args:
        codes: the exit status of each process, negative for a signal; None if it had to be killed.
        places: of the processes.
        received: signals that were passed on to the processes.

    Example:
        >>> places = [Place(rank, rank, 2, 2, "tcp://127.0.0.1:29500") for rank in range(2)]
        >>> job_status([CONNECTION_LOST, -9], places)[0]
        137
    """
    for code, place in zip(codes, places, strict=True):
        if code is not None and code < 0 and -code not in received:
            name = signal.Signals(-code).name
            hint = ", which the system sends if memory runs out" * (name == "SIGKILL")
            return 128 - code, (
                f"rank {place.rank} of {place.world_size} was ended by signal {-code} ({name}"
                f"{hint}), so the other processes were stopped; continue the run with --resume"
            )
    for code in codes:
        if code is not None and code < 0:
            return 128 - code, f"stopped by {signal.Signals(-code).name}"
    for code in codes:
        if code and code != CONNECTION_LOST:  # the process has said why
            return code, ""
    if CONNECTION_LOST in codes:
        if places[0].world_size > places[0].local_size:
            return CONNECTION_LOST, ""
        lost = ", ".join(str(p.rank) for p, c in zip(places, codes, strict=True) if c)
        return CONNECTION_LOST, (
            f"rank {lost} lost the connection to another process of the job; continue the run with "
            "--resume"
        )
    return 0, ""


@contextlib.contextmanager
def _signals_passed_on(processes: Sequence[SpawnProcess]) -> Iterator[list[int]]:
    """Send the signals that stop a job to its processes as well; yield those received so far.

    Handlers can only be set in the main thread; in another one, nothing is passed on.
    """
    received: list[int] = []

    def pass_on(number: int, _frame: Any) -> None:
        received.append(number)
        for process in processes:
            if process.pid is not None and process.exitcode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, pass_on) for number in _STOPPING}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@reports_user_errors
def _run(function: Callable[..., None], arguments: tuple, place: Place, device: str) -> None:
    """Run the function as one process of a job. This is the beginning of a new process."""
    end_with_parent()
    # The parent knows which process is gone, unless it runs on another machine.
    run_in_job(function, arguments, place, device, explain=place.world_size > place.local_size)


def end_with_launcher() -> None:
    """Make this process end within seconds of the one that has started it, such as torchrun, which
    may start other processes for the same run when it is started again."""
    started_by = os.getppid()

    def wait() -> None:
        while os.getppid() == started_by:
            time.sleep(1.0)

    end_after(wait)
