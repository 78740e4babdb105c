"""Runs that are interrupted, and their comparison with undisturbed ones."""

import json
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.engine import HookBase
from detectron2.utils.env import seed_all_rng

from ccsa.engine import Trainer
from ccsa.engine.resume_changes import read_progress

TIMES = {"time", "data_time", "rank_data_time", "eta_seconds"}


class Killed(BaseException):
    """Ends a run without a checkpoint, as a signal that cannot be caught."""


class Kill(HookBase):
    """Ends a run in an iteration, after its step and before the other hooks."""

    def __init__(self, iteration: int):
        self.iteration = iteration

    def after_step(self) -> None:
        if self.trainer.iter == self.iteration:
            raise Killed


def train(
    cfg: CfgNode, *, resume: bool = False, kill: int | None = None, hook: HookBase | None = None
) -> Trainer:
    """Train as tools/train_net.py does, from other random states each time.

    Args:
        cfg: the configuration of the run.
        resume: as with ``--resume``.
        kill: the iteration in which the run is killed.
        hook: an additional one, called before all others.
    """
    Path(cfg.OUTPUT_DIR).mkdir(exist_ok=True)
    seed_all_rng(cfg.SEED if cfg.SEED >= 0 else None)
    trainer = Trainer(cfg, read_progress(cfg.OUTPUT_DIR) if resume else None)
    trainer.resume_or_load(resume=resume)
    hook = hook or (None if kill is None else Kill(kill))
    if hook is not None:
        trainer.register_hooks([hook])
        trainer._hooks.insert(0, trainer._hooks.pop())
    try:
        trainer.train()
    except Killed:
        assert kill is not None
    return trainer


def rows(folder: Path) -> list[dict]:
    """Return the rows of metrics.json without times."""
    lines = (folder / "metrics.json").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def flat(state, prefix=""):
    """Return the values of nested containers by path."""
    if isinstance(state, dict):
        items = state.items()
    elif isinstance(state, list | tuple):
        items = enumerate(state)
    else:
        return {prefix: state}
    return {k: v for key, value in items for k, v in flat(value, f"{prefix}/{key}").items()}


def differences(one: Path, other: Path) -> list[str]:
    """Return what differs between the final checkpoints and the metrics of two runs."""
    # As text, because the score of a class that does not occur is NaN.
    found = [] if str(rows(one)) == str(rows(other)) else ["metrics.json"]
    states = []
    for folder in (one, other):
        content = torch.load(folder / "model_final.pth", weights_only=True)
        content["trainer"]["hooks"].pop("ResumeState")  # times and lengths of files
        states.append(flat(content))
    found += sorted(states[0].keys() ^ states[1].keys())
    for key in states[0].keys() & states[1].keys():
        a, b = states[0][key], states[1][key]
        same = torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b
        found += [] if same else [key]
    return found
