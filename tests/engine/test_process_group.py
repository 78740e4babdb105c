"""Processes of a job that lose others, and errors that occur in all of them."""

import pytest
import torch

from ccsa.engine.heartbeat import Place
from ccsa.engine.process_group import _gpu, connection_lost
from ccsa.errors import UserError


def test_errors_of_gloo_and_nccl_are_recognized():
    for text in (
        "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer",
        "[../gloo/transport/tcp/unbound_buffer.cc:84] Timed out waiting 1800000ms for recv",
        "NCCL error: remote process exited or there was a network error",
        "Failed to recv, got 0 bytes. Connection was likely closed.",
    ):
        assert connection_lost(RuntimeError(text))
    for error in (RuntimeError("The size of tensor a (3) must match"), ValueError("closed")):
        assert not connection_lost(error)


def test_each_process_of_a_machine_gets_a_gpu(monkeypatch):
    place = Place(5, 1, 8, 4, "tcp://127.0.0.1:1")
    for count, gpu in ((8, 1), (4, 1), (1, 0)):  # one: the launcher shows each process its own
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert _gpu(place) == gpu
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="4 processes of this machine share 2 CUDA devices"):
        _gpu(place)
