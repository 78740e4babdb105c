"""The parts of the trainer that need no dataset."""

import logging
from types import SimpleNamespace

import pytest
import torch
from detectron2.engine import DefaultTrainer, TrainerBase
from detectron2.solver import LRMultiplier
from fvcore.common.param_scheduler import ConstantParamScheduler
from torch import nn

from ccsa.checkpoint import Checkpointer
from ccsa.engine import trainer as trainer_module
from ccsa.engine.model_selection import TrainingStopped
from ccsa.engine.stop_signals import StopSignals
from ccsa.engine.trainer import Trainer
from ccsa.errors import UserError


@pytest.mark.parametrize(
    ("error", "logged"),
    [(UserError("bad"), False), (TrainingStopped("early"), False), (RuntimeError("bug"), True)],
)
def test_only_unexpected_errors_are_logged_with_a_traceback(error, logged):
    logger = logging.getLogger("detectron2.engine.train_loop")
    info = (type(error), error, None)
    record = logger.makeRecord("x", logging.ERROR, "f", 1, "Exception during training:", (), info)
    assert bool(logger.filter(record)) == logged


@pytest.fixture
def interrupted(monkeypatch):
    """Return a function that trains until an error is raised, and returns the saved checkpoint."""

    def train(error, last_updated_iter):
        def fail(self):
            raise error

        monkeypatch.setattr(DefaultTrainer, "train", fail)
        saved = {}
        trainer = Trainer.__new__(Trainer)
        trainer.last_updated_iter = last_updated_iter
        trainer.iter, trainer.max_iter, trainer.hooks_left = 8, 20, 0
        trainer.signals = StopSignals()
        trainer.cfg = SimpleNamespace(SOLVER=SimpleNamespace(CHECKPOINT_PERIOD=100))
        trainer.checkpointer = SimpleNamespace(save=lambda name, **kw: saved.update({name: kw}))
        with pytest.raises(BaseException) as raised:
            trainer.train()
        return saved, raised.value

    return train


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("cannot read a.jpg")])
def test_a_stopped_run_saves_the_last_finished_iteration(interrupted, error):
    saved, raised = interrupted(error, 7)
    assert raised is error and saved == {"model_0000007": {"iteration": 7}}
    assert interrupted(error, None) == ({}, error)  # stopped before the first update


def test_channels_last_applies_to_weights_of_images_and_clips(monkeypatch):
    model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv3d(8, 8, 3), nn.Linear(8, 8))
    monkeypatch.setattr(trainer_module, "build_model", lambda cfg: model)
    cfg = SimpleNamespace(MODEL=SimpleNamespace(CHANNELS_LAST=True))
    assert Trainer.build_model(cfg) is model
    assert model[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert model[1].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert model[2].weight.is_contiguous()


def test_a_resumed_run_uses_the_settings_of_its_configuration(tmp_path, caplog):
    """Both the learning rate at once, and the one after the next step of the schedule."""

    def make(lr, decay):
        trainer = Trainer.__new__(Trainer)
        model = nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=lr, weight_decay=decay)
        trainer._resumed = None
        trainer._trainer = SimpleNamespace(optimizer=optimizer, model=model, data_loader=[])
        trainer.optimizer, trainer.iter = optimizer, 0
        trainer.scheduler = LRMultiplier(optimizer, ConstantParamScheduler(0.5), max_iter=10)
        trainer.cfg = SimpleNamespace(MODEL=SimpleNamespace(WEIGHTS=""))
        trainer.checkpointer = Checkpointer(
            model, str(tmp_path), optimizer=optimizer, scheduler=trainer.scheduler
        )
        return trainer

    make(0.1, 0.2).checkpointer.save("model")
    trainer = make(0.01, 0.3)
    trainer.resume_or_load(resume=True)
    (group,) = trainer.optimizer.param_groups
    assert (group["lr"], group["initial_lr"]) == pytest.approx((0.005, 0.01))
    assert group["weight_decay"] == 0.3
    trainer.optimizer.step()
    trainer.scheduler.step()
    assert group["lr"] == pytest.approx(0.005)
    for change in ("initial_lr 0.1 -> 0.01", "weight_decay 0.2 -> 0.3"):
        assert change in caplog.text


def test_training_sets_without_objects_are_one_sentence(monkeypatch):
    def fail(cfg):
        raise AssertionError("No valid data found in mine_train.")

    monkeypatch.setattr(trainer_module, "build_train_loader", fail)
    cfg = SimpleNamespace(DATASETS=SimpleNamespace(TRAIN=("mine_train",)))
    with pytest.raises(UserError, match="no image of mine_train has an object"):
        Trainer.build_train_loader(cfg)


@pytest.mark.parametrize(("start", "last"), [(0, 3), (2, 3), (3, 3), (5, 5)])
def test_a_run_that_was_killed_in_its_last_evaluation_counts_no_further_iteration(start, last):
    """Such a run is resumed at MAX_ITER, and its loop has no iteration."""
    seen = []
    trainer = Trainer.__new__(Trainer)
    TrainerBase.__init__(trainer)
    trainer.run_step = lambda: seen.append(trainer.iter)
    trainer.last_updated_iter, trainer.signals = None, StopSignals()
    trainer.progress = SimpleNamespace(hooks_left=0)
    TrainerBase.train(trainer, start, 3)
    assert seen == list(range(start, 3))
    assert trainer.iter == trainer.storage.iter == last
