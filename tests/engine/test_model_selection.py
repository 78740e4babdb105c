"""The best checkpoint and early stopping, with metrics that are given."""

import math
from types import SimpleNamespace

import pytest

from ccsa.engine.model_selection import BestCheckpoint, EarlyStopping, TrainingStopped


class Metrics:
    """Evaluations whose metric is set by the test."""

    def __init__(self):
        self.count, self.metric = 0, None

    def add(self, value):
        self.count += 1
        self.metric = None if value is None else ("mask AP", value)

    def __call__(self):
        return self.count, self.metric


def attach(hook):
    saved = []
    checkpointer = SimpleNamespace(save=lambda name, **given: saved.append((name, given)))
    hook.trainer = SimpleNamespace(checkpointer=checkpointer, iter=0, max_iter=100)
    return saved


def test_the_best_checkpoint_is_the_first_of_the_highest_metric():
    metrics = Metrics()
    hook = BestCheckpoint(metrics)
    saved = attach(hook)
    for iteration, value in enumerate([math.nan, 10.0, 9.0, 10.0, None, 12.0]):
        hook.trainer.iter = iteration
        metrics.add(value)
        hook.after_step()
        hook.after_step()  # without a new evaluation, nothing happens
    hook.trainer.iter = 100  # in after_train, the loop has counted one more
    metrics.add(13.0)
    hook.after_train()
    assert [given["iteration"] for _, given in saved] == [1, 5, 99]
    assert {name for name, _ in saved} == {"model_best"}
    assert not any(given["is_last"] for _, given in saved)


def test_early_stopping_waits_for_its_patience_and_survives_a_resume():
    metrics = Metrics()
    hook = EarlyStopping(metrics, patience=2, minimum=0.5)
    attach(hook)
    for value in (10.0, 10.4, 10.6):  # 10.4 is not more than 0.5 better than 10
        metrics.add(value)
        hook.after_step()
    metrics.add(10.6)
    hook.after_step()
    resumed = EarlyStopping(metrics, patience=2, minimum=0.5)
    attach(resumed)
    resumed._seen = metrics.count
    resumed.load_state_dict(hook.state_dict())
    resumed.before_train()
    metrics.add(math.nan)
    with pytest.raises(TrainingStopped, match=r"mask AP has not improved in 2 .*\(10\.60\)"):
        resumed.after_step()
    with pytest.raises(TrainingStopped):  # a run that had ended stays ended
        resumed.before_train()
