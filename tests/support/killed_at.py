"""Kills processes of a training at chosen moments; import it with --import.

The environment variable ``KILL_AT`` lists entries ``rank:iteration:what:marker``. In that
iteration, after the step, the process of that rank kills ``itself`` or, as if the machine had lost
power, the ``host``: the launcher that has started it as well. It does so once, if the file
``marker`` does not exist yet.
"""

import os
import signal
from pathlib import Path

from detectron2.engine import HookBase
from detectron2.utils import comm

from ccsa.engine import Trainer


class KillAt(HookBase):
    def after_step(self) -> None:
        for entry in filter(None, os.environ.get("KILL_AT", "").split(",")):
            rank, iteration, what, marker = entry.split(":")
            if comm.get_rank() != int(rank) or self.trainer.iter != int(iteration):
                continue
            if not Path(marker).exists():
                Path(marker).write_text(str(os.getpid()))
                if what == "host":
                    os.kill(os.getppid(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)


build_hooks = Trainer.build_hooks
if not hasattr(Trainer, "killed_at"):  # once, also if the file is imported under two names
    Trainer.killed_at = True
    Trainer.build_hooks = lambda self: [KillAt(), *build_hooks(self)]
