"""Signals that ask a run to stop: one is remembered, a later one ends the process."""

import os
import signal

import pytest

from ccsa.engine import stop_signals
from ccsa.engine.stop_signals import STOPPING, RunStopped, StopSignals


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(stop_signals.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def exits(monkeypatch):
    """The status of each exit that was asked for."""
    statuses = []
    monkeypatch.setattr(stop_signals.os, "_exit", statuses.append)
    return statuses


@pytest.mark.parametrize("number", STOPPING, ids=lambda number: signal.Signals(number).name)
def test_a_signal_is_remembered_and_printed(number, capfd):
    before = signal.getsignal(number)
    signals = StopSignals()
    with signals:
        assert signals.agreed() == 0
        signal.raise_signal(number)
        assert signals.agreed() == number
    assert signal.getsignal(number) is before
    printed = capfd.readouterr().err
    assert printed.startswith(f"{signal.Signals(number).name}: saving a checkpoint after this it")


def test_the_same_signal_within_two_seconds_counts_once(clock, exits):
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGINT)
        clock[0] += 1.9
        signal.raise_signal(signal.SIGINT)
        assert exits == [] and signals.number == signal.SIGINT
        clock[0] += 0.2
        signal.raise_signal(signal.SIGINT)
        assert exits == [130]


def test_an_evaluation_is_interrupted_at_once():
    with StopSignals() as signals:
        with (
            pytest.raises(RunStopped, match="stopped by SIGTERM") as raised,
            signals.interrupting(),
        ):
            signal.raise_signal(signal.SIGTERM)
        assert raised.value.code == 143 and raised.value.everywhere
        # It has arrived before the next one, which does not begin.
        with pytest.raises(RunStopped), signals.interrupting():
            pytest.fail("the evaluation began")


def test_other_processes_wait_for_the_main_process(monkeypatch):
    monkeypatch.setattr(stop_signals.comm, "is_main_process", lambda: False)
    with StopSignals() as signals, signals.interrupting():
        signal.raise_signal(signal.SIGTERM)
        assert signals.number == signal.SIGTERM


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 7), (signal.SIGUSR1, 7), (signal.SIGTERM, 143)]
)
def test_workers_of_a_loader_do_not_stop_the_run(number, status, capfd):
    """A forked worker inherits the handlers. SIGTERM still ends it, because torch sends it."""
    with StopSignals() as signals:
        child = os.fork()
        if child == 0:
            signal.raise_signal(number)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == status
        assert signals.number == 0 and capfd.readouterr().err == ""
