"""Run a tool in a forked process, with limits of time and memory, and judge how it ended.

A forked process needs no imports, so that a call takes a tenth of a second; a crash or a hang of
the tool does not reach the test.
"""

import contextlib
import functools
import logging
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from support.logs import forget_handlers

OK, REJECT, TRACEBACK, CRASH, HANG, OTHER = "ok", "reject", "traceback", "crash", "hang", "other"
_TRACEBACK_STATUS = 99


class Outcome(NamedTuple):
    """How a call of a tool ended.

    Attributes:
        kind: OK (exit status 0), REJECT (2), TRACEBACK, CRASH (a signal), HANG, or OTHER.
        text: everything that it printed.
        seconds: how long it took.
    """

    kind: str
    text: str
    seconds: float

    @property
    def error(self) -> str:
        """Return the last line that reports an error; the last line if none does."""
        lines = self.text.strip().splitlines() or [""]
        return next((line for line in reversed(lines) if "error: " in line), lines[-1])


def run_forked(
    tool: ModuleType,
    words: Sequence[object],
    folder: Path,
    seconds: float = 60.0,
    memory: int = 16 << 30,
) -> Outcome:
    """Run ``tool.main()`` with a command line, in ``folder``.

    Args:
        tool: an imported module of the folder ``tools``.
        words: the words after the name of the tool.
        folder: the working directory.
        seconds: after which the call is ended, as a hang.
        memory: the limit of the address space in bytes.
    """
    started = time.monotonic()
    with tempfile.TemporaryFile() as output:
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if not child:
            _child(functools.partial(call, tool, words), folder, output.fileno(), memory)
        status = None
        while status is None and time.monotonic() - started < seconds:
            ended, found = os.waitpid(child, os.WNOHANG)
            status = found if ended else None
            time.sleep(0.01)
        if status is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
        output.seek(0)
        text = output.read().decode(errors="replace")
    if status is None:
        kind = HANG
    elif os.WIFSIGNALED(status):
        kind = CRASH
    else:
        kinds = {0: OK, 2: REJECT, _TRACEBACK_STATUS: TRACEBACK}
        kind = kinds.get(os.WEXITSTATUS(status), OTHER)
    if kind in (OK, REJECT) and "Traceback (most recent call last)" in text:
        kind = TRACEBACK
    return Outcome(kind, text, time.monotonic() - started)


def call(tool: ModuleType, words: Sequence[object]) -> None:
    """Call ``tool.main()`` with a command line, in a forked process."""
    sys.argv = [f"{tool.__name__}.py", *map(str, words)]
    tool.main()


class Forked:
    """A forked process, and the file with everything that it prints."""

    def __init__(self, pid: int, output: Path):
        self.pid, self.output = pid, output
        self.status: int | None = None

    def wait(self, seconds: float = 120.0) -> int:
        """Wait for the end; return the exit status, negative for a signal."""
        give_up = time.monotonic() + seconds
        while self.running():
            if time.monotonic() > give_up:
                self.kill()
                raise AssertionError(f"still running after {seconds:g} s:\n{self._end()}")
            time.sleep(0.01)
        assert self.status is not None
        return self.status

    def _end(self) -> str:
        return self.output.read_text()[-3000:]

    def running(self) -> bool:
        """Return whether the process has not ended."""
        ended, found = os.waitpid(self.pid, os.WNOHANG) if self.status is None else (1, 0)
        if ended and self.status is None:
            self.status = os.waitstatus_to_exitcode(found)
        return self.status is None

    def kill(self) -> None:
        """End the process if it still runs."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


def fork(function: Callable[[], object], output: Path) -> Forked:
    """Call a function in a forked process. What it prints is appended to a file."""
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if not child:
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        _child(function, Path.cwd(), file, 16 << 30)
    return Forked(child, output)


def _child(function: Callable[[], object], folder: Path, output: int, memory: int) -> None:
    """Call the function and end this process; never returns."""
    code = _TRACEBACK_STATUS
    try:
        os.setsid()
        os.chdir(folder)
        os.dup2(output, 1)
        os.dup2(output, 2)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1, closefd=False) for n in (1, 2))
        known = logging.root.manager.loggerDict.values()
        forget_handlers(x for x in (logging.root, *known) if isinstance(x, logging.Logger))
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        function()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
