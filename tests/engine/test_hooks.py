"""The logged scalar gamma, and the line of progress."""

import logging
import re
from types import SimpleNamespace

import pytest
import torch
from detectron2.engine import TrainerBase
from detectron2.utils.events import EventStorage
from torch import nn

from ccsa.engine import hooks
from ccsa.engine.hooks import LogGamma, TerminalWriter
from ccsa.insertion import insert_blocks
from ccsa.utils.memory import peak_memory

SPECS = [
    {"at": "0", "block": "CrissCross"},
    {"at": "1", "block": "NonLocal"},
    {"at": "1", "block": "SqueezeExcitation"},
    {"at": "2", "block": "SqueezeExcitation", "residual": False},  # has no gamma
]
PATHS = ["0.context", "1.context.0", "1.context.1"]


def net(specs=SPECS):
    model = nn.Sequential(*(nn.Conv2d(4, 4, 1) for _ in range(3)))
    insert_blocks(model, specs)
    return model


class Loop(TrainerBase):
    """A training loop in which every step adds 0.5 to gamma of the first block."""

    def __init__(self, model):
        super().__init__()
        self.checkpointer = SimpleNamespace(model=model)

    def run_step(self):
        block = self.checkpointer.model[0]
        if hasattr(block, "context"):
            block.context.gamma.data += 0.5


def run(model, iterations, **keywords):
    loop = Loop(model)
    loop.register_hooks([LogGamma(**keywords)])
    loop.train(0, iterations)
    return loop.storage


def test_gamma_of_every_gated_block_is_logged():
    model = net()
    nn.init.constant_(model[1].context[1].gamma, -2.0)
    histories = run(model, 4, period=1).histories()
    assert set(histories) == {f"gamma/{path}" for path in PATHS}
    values = [value for value, _ in histories["gamma/0.context"].values()]
    assert values == [0.5, 1.0, 1.5, 2.0]
    assert histories["gamma/1.context.0"].latest() == 0
    assert histories["gamma/1.context.1"].latest() == -2


def test_gamma_is_logged_every_so_often_and_at_the_end():
    history = run(net(), 7, period=3).histories()["gamma/0.context"]
    assert [(value, iteration) for value, iteration in history.values()] == [
        *((1.5, 2), (3.0, 5), (3.5, 6))
    ]


def test_gamma_is_written_as_it_is_and_not_smoothed():
    storage = run(net(), 3, period=1)
    latest = storage.latest_with_smoothing_hint(window_size=20)
    assert latest["gamma/0.context"][0] == 1.5


def test_a_model_without_blocks_logs_no_gamma():
    assert run(net([]), 3, period=1).histories() == {}


@pytest.fixture
def written(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("ccsa"), "propagate", True)
    caplog.set_level(logging.INFO, logger="ccsa")

    def write(writer):
        caplog.clear()
        writer.write()
        return [r.getMessage() for r in caplog.records]

    return write


def fill(storage, steps, time=2.0, **losses):
    for i in range(steps):
        storage.iter = i
        scalars = {name: value * (1 + i % 2) for name, value in losses.items()}
        storage.put_scalars(**scalars)
        if losses:
            storage.put_scalar("total_loss", sum(scalars.values()))
        storage.put_scalar("lr", 0.02, smoothing_hint=False)
        if i > 2:
            storage.put_scalar("time", time)


def test_the_line_has_all_that_a_user_waits_for(written):
    with EventStorage(0) as storage:
        fill(storage, 40, loss_mask=1.0, loss_cls=0.5)
        (line,) = written(TerminalWriter(1840))
        assert "\n" not in line
        assert line.startswith("  40/1840  ")
        assert "left 1:00:00" in line  # 1800 iterations of 2 s
        assert "loss 2.250" in line  # the median of 1.5 and 3
        assert "mask 1.500" in line and "cls 0.750" in line
        assert "lr 0.02" in line and "2.00 s/it" in line
        gib = float(re.search(r"memory (\d+\.\d) GiB", line)[1])
        assert gib == pytest.approx(peak_memory() / 2**30, abs=0.06) and gib > 0
        assert storage.latest()["eta_seconds"][0] == 3600  # for the other writers


def test_the_line_grows_with_what_is_known(written):
    with EventStorage(0) as storage:
        (line,) = written(TerminalWriter(500))
        assert line.startswith("  1/500  memory ")
        storage.put_scalar("total_loss", 1.25)
        (line,) = written(TerminalWriter(500))
        assert "loss 1.250" in line and "left" not in line and "s/it" not in line


def test_a_platform_that_does_not_report_memory(written, monkeypatch):
    monkeypatch.setattr(hooks, "peak_memory", lambda: None)
    with EventStorage(0) as storage:
        fill(storage, 5, loss_mask=1.0)
        (line,) = written(TerminalWriter(10))
    assert line.endswith("s/it") and "memory" not in line


def test_the_last_iteration_is_shown_and_nothing_after_it(written):
    with EventStorage(0) as storage:
        fill(storage, 10, loss_mask=1.0)
        (line,) = written(TerminalWriter(10))
        assert line.startswith("10/10  left 0:00:00  ")
        storage.step()  # evaluation after training calls the writers once more
        assert storage.iter == 10
        assert written(TerminalWriter(10)) == []


def test_peak_memory_is_in_bytes_and_never_falls():
    before = peak_memory()
    assert 2**26 < before < 2**40
    held = torch.ones(2**26)  # 256 MiB
    after = peak_memory()
    assert after >= before and after >= held.numel() * 4
