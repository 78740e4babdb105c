"""Kills processes of a training at chosen moments; import it with --import.

The environment variable ``KILL_AT`` lists entries ``rank:iteration:what:marker``; the rank may be
``any``. In that iteration, after the step, the process writes its id to the file ``marker``, unless
the file exists already, and does what the entry says:

* ``itself``: it kills itself;
* ``host``: it kills the launcher that has started it as well, as if the machine had lost power;
* ``launcher``: it kills the launcher only, and waits for its own end;
* ``fail``: it raises an error that nobody expects;
* ``wait``: it waits until the file is removed;
* the name of a signal, such as ``SIGUSR1``: it sends this signal to itself.
"""

import os
import signal
import time
from pathlib import Path

from detectron2.engine import HookBase
from detectron2.utils import comm

from ccsa.engine import Trainer


class KillAt(HookBase):
    def after_step(self) -> None:
        for entry in filter(None, os.environ.get("KILL_AT", "").split(",")):
            rank, iteration, what, marker = entry.split(":")
            here = rank in ("any", str(comm.get_rank())) and self.trainer.iter == int(iteration)
            if here and not Path(marker).exists():
                Path(marker).write_text(str(os.getpid()))
                self._act(what, Path(marker))

    def _act(self, what: str, marker: Path) -> None:
        if what in ("host", "launcher"):
            assert os.getppid() > 1, "the launcher has ended"
            os.kill(os.getppid(), signal.SIGKILL)
        if what in ("host", "itself"):
            os.kill(os.getpid(), signal.SIGKILL)
        if what == "fail":
            raise ArithmeticError("a fault of the program")
        while what in ("wait", "launcher") and marker.exists():
            time.sleep(0.02)
        if what.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, what))


build_hooks = Trainer.build_hooks
if not hasattr(Trainer, "killed_at"):  # once, also if the file is imported under two names
    Trainer.killed_at = True
    Trainer.build_hooks = lambda self: [KillAt(), *build_hooks(self)]
