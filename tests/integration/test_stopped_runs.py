"""A run that a signal has stopped, and the one that continues it."""

import logging
import signal
import subprocess

import pytest
import torch
from detectron2.engine import HookBase
from support import own_scenes
from support.exact_resume import SCHEDULE, SMALL
from support.resumed_runs import differences, train
from support.run_tools import command, environment

from ccsa.checkpoint.checkpoint_files import write_checkpoint
from ccsa.engine.evaluations import Evaluations
from ccsa.engine.stop_signals import RunStopped
from ccsa.utils.run_lock import RunLock

pytestmark = pytest.mark.slow


class SignalAt(HookBase):
    """Receives a signal in an iteration, before its step."""

    def __init__(self, number: int, iteration: int):
        self.number, self.iteration = number, iteration

    def before_step(self) -> None:
        if self.trainer.iter == self.iteration:
            signal.raise_signal(self.number)


def stop(cfg, number, iteration, **others):
    with pytest.raises(RunStopped) as raised:
        train(cfg, hook=SignalAt(number, iteration), **others)
    assert raised.value.code == 128 + number


def test_every_signal_finishes_its_iteration(configured, tmp_path, logged):
    logged.set_level(logging.INFO, logger="ccsa")
    options = ("own/ccnet", "TEST.VALIDATION_LOSS", "True", "SEED", 3)
    train(configured(options[0], tmp_path / "whole", *options[1:]))
    cfg = configured(options[0], tmp_path / "parts", *options[1:])
    for number, iteration in ((signal.SIGINT, 1), (signal.SIGTERM, 5), (signal.SIGUSR1, 7)):
        stop(cfg, number, iteration, resume=iteration > 1)
        name = signal.Signals(number).name
        assert f"stopped by {name} after {iteration + 1} iterations; --resume con" in logged.text
        assert (tmp_path / "parts" / f"model_{iteration:07d}.pth").exists()
    train(cfg, resume=True)
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


def test_an_evaluation_is_interrupted_and_repeated(configured, tmp_path, monkeypatch):
    """Once during training, where a checkpoint of the iteration is saved before its evaluation,
    and once in the last one."""
    options = ("own/mask_rcnn", "MODEL.EMA.ENABLED", "True", *SMALL)
    train(configured(options[0], tmp_path / "whole", *options[1:]))
    cfg = configured(options[0], tmp_path / "parts", *options[1:])
    original = Evaluations.run

    def interrupted(self, *arguments):
        signal.raise_signal(signal.SIGTERM)
        return original(self, *arguments)

    for resume, saved in ((False, "model_0000005.pth"), (True, "model_final.pth")):
        with monkeypatch.context() as patch:
            # The evaluation that the first part has missed comes first in the second part.
            count = iter([original] * resume + [interrupted])
            patch.setattr(Evaluations, "run", lambda *args, count=count: next(count)(*args))
            with pytest.raises(RunStopped):
                train(cfg, resume=resume)
        assert (tmp_path / "parts" / "last_checkpoint").read_text() == saved
    train(cfg, resume=True)
    assert differences(tmp_path / "whole", tmp_path / "parts") == []


def test_processes_agree_on_the_last_iteration(root, tmp_path):
    """Although only one of them receives the signal."""
    own_scenes.write_coco_compressed(tmp_path / "scenes", own_scenes.make_scenes(7))
    config = ("--config-file", root / "configs/own/ccnet.yaml", "--data", tmp_path / "scenes")
    options = (*SCHEDULE, "DATASETS.TEST", "()", "DATALOADER.NUM_WORKERS", 0, "OUTPUT_DIR", "run")
    kill = ("--import", root / "tests/support/killed_at.py", "--num-gpus", 2)
    done = subprocess.run(
        command(root, "train_net.py", *config, *kill, *options),
        env={**environment(tmp_path), "KILL_AT": f"1:4:SIGUSR1:{tmp_path / 'marker'}"},
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    printed = done.stdout + done.stderr
    assert done.returncode == 128 + signal.SIGUSR1, printed[-3000:]
    assert "stopped by SIGUSR1 after 5 iterations; --resume continues" in printed
    assert "Traceback" not in printed and "lost the connection" not in printed
    assert (tmp_path / "run/last_checkpoint").read_text() == "model_0000004.pth"


@pytest.fixture
def call(run_tool, root, seven_scenes, tmp_path, monkeypatch):
    """A function that calls tools/train_net.py in this process, for the folder ``run``."""
    import train_net

    monkeypatch.chdir(tmp_path)

    def call(*words):
        config = ("--config-file", root / "configs/own/ccnet.yaml", "--data", seven_scenes)
        options = (*SCHEDULE, "DATASETS.TEST", "()", "DATALOADER.NUM_WORKERS", 0)
        status, _, err = run_tool(train_net, *config, *words, *options, "OUTPUT_DIR", "run")
        return status, err

    return call


def files(folder):
    """Return the contents of the files that a rejected run must not change."""
    paths = [path for path in folder.glob("*") if path.name not in ("log.txt", "run.lock")]
    return {path.name: path.read_bytes() for path in paths if path.is_file()}


def test_a_rejected_run_changes_nothing(call, tmp_path):
    assert call() == (0, "")
    folder = tmp_path / "run"
    before = files(folder)
    with RunLock(folder):  # of a run that is going on
        status, err = call("--resume")
    assert status == 2 and "another run is using run (process " in err and files(folder) == before
    whole = torch.load(folder / "model_final.pth", weights_only=True)
    gamma = next(key for key in whole["model"] if key.endswith("gamma"))
    without_gamma = {**whole, "model": {k: v for k, v in whole["model"].items() if k != gamma}}
    without_trainer = {key: value for key, value in whole.items() if key != "trainer"}
    for content, message in (
        (without_gamma, "does not contain the whole model: 1 missing"),
        (without_trainer, "cannot be resumed from, because it has no state of the trainer"),
    ):
        write_checkpoint(content, folder / "model_final.pth")
        before = files(folder)
        status, err = call("--resume", "SEED", 7)
        assert status == 2 and message in err, err
        assert "Traceback" not in err and files(folder) == before
