"""Weight files: they are read by content, rejected with a reason, and no code in them is run."""

import argparse
import os
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from safetensors.torch import load_file, save_file
from support.small_nets import net, same, weights
from torch import nn

from ccsa.checkpoint import Checkpointer, convert_state_dict, save_weights
from ccsa.checkpoint.weight_files import WeightsSource, contains_itself, read_weights
from ccsa.errors import UserError


def damaged(tmp_path, how):
    suffix = how.split()[0] if how.startswith(("pkl", "safetensors")) else "pth"
    file = tmp_path / f"weights.{suffix}"
    torch.save({"model": weights(net())}, file)
    if suffix == "safetensors":
        save_file(weights(net()), file)
    data = file.read_bytes()
    if how == "missing":
        file.unlink()
    elif how == "a folder":
        file.unlink()
        file.mkdir()
    elif how == "safetensors missing":
        file.unlink()
    elif how == "another model":
        torch.save({"model": {"0.conv.weight": torch.zeros(4, 3, 1, 1)}}, file)
    elif how == "the same keys, all of other shapes":
        torch.save({"model": {k: torch.zeros(7) for k in weights(net())}}, file)
    elif how == "no state dict":
        torch.save([1, 2, 3], file)
    else:
        file.write_bytes(
            {
                "empty": b"",
                "cut in the middle": data[: len(data) // 2],
                "cut near the end": data[:-30],
                "noise": bytes(range(256)) * 40,
                "a web page": b"<!DOCTYPE html><html>404: Not Found</html>",
                "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
                "plain pickle": pickle.dumps({"0.bias": [1, 2, 3]}, protocol=2),
                "pkl empty": b"",
                "pkl cut": pickle.dumps({"model": {"a": list(range(99))}})[:-50],
                "pkl noise": bytes(range(256)) * 40,
                "pkl list": pickle.dumps([1, 2, 3]),
                "pkl web page": b"<!DOCTYPE html><html>404: Not Found</html>",
                "pkl of another model": pickle.dumps({"conv9_w": np.zeros(3)}),
                "safetensors empty": b"",
                "safetensors cut": data[:-5],
                "safetensors cut in its header": data[:40],
                "safetensors web page": b"<!DOCTYPE html><html>404: Not Found</html>",
            }[how]
        )
    return file


@pytest.mark.parametrize(
    "how",
    [
        *("missing", "a folder", "empty", "cut in the middle", "cut near the end", "noise"),
        *("a web page", "a git-lfs pointer", "plain pickle", "no state dict"),
        *("another model", "the same keys, all of other shapes"),
        *("pkl empty", "pkl cut", "pkl noise", "pkl list", "pkl web page", "pkl of another model"),
        *("safetensors missing", "safetensors empty", "safetensors cut"),
        *("safetensors cut in its header", "safetensors web page"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_and_changes_nothing(tmp_path, how):
    file, model = damaged(tmp_path, how), net()
    before = weights(model)
    checkpointer = Checkpointer(model)
    with pytest.raises(UserError) as error:
        checkpointer.load(str(file))
    text = str(error.value)
    assert str(file) in text and "MODEL.WEIGHTS" in text and "\n" not in text
    assert ("another model" in text) == (" model" in how or "same keys" in how)
    assert same(weights(model), before)
    torch.save(weights(net(seed=1)), tmp_path / "good.pth")
    checkpointer.load(str(tmp_path / "good.pth"))  # it is usable after an error
    assert same(weights(model), weights(net(seed=1)))


def test_no_weights_is_no_error():
    model = net()
    before = weights(model)
    assert Checkpointer(model).load("") == {}
    assert same(weights(model), before)


class Runs:
    """Creates a file when it is unpickled."""

    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize("suffix", ["pth", "pkl", "pyth", "safetensors"])
@pytest.mark.parametrize("content", [Runs(), argparse.Namespace(lr=1)])
def test_nothing_in_a_file_is_run(tmp_path, monkeypatch, suffix, content):
    monkeypatch.chdir(tmp_path)
    file, model = tmp_path / f"weights.{suffix}", net()
    data = {"model": {"0.bias": content}}
    if suffix == "pkl":
        file.write_bytes(pickle.dumps(data))
    else:
        torch.save(data, file)
    with pytest.raises(UserError) as error:
        Checkpointer(model).load(str(file))
    text = str(error.value)
    if suffix != "safetensors":
        name = f"{os.name}.system" if isinstance(content, Runs) else "argparse.Namespace"
        assert name in text and "only its state dict" in text
    assert str(file) in text and "MODEL.WEIGHTS" in text and "\n" not in text
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_an_old_torch_is_told_to_be_safe(tmp_path, monkeypatch):
    """Before torch 2.6, weights_only was False by default."""
    asked, load = [], torch.load

    def spied(*args, **keywords):
        asked.append(keywords.get("weights_only"))
        return load(*args, **keywords)

    monkeypatch.setattr(torch, "load", spied)
    torch.save({"model_state": weights(net())}, tmp_path / "file.pyth")
    torch.save(weights(net()), tmp_path / "file.pth")
    for name in ("file.pth", "file.pyth"):
        Checkpointer(net(seed=1)).load(str(tmp_path / name))
    assert asked == [True, True]


def test_safetensors_in_and_out(tmp_path, logged):
    model, other = net(), net(seed=1)
    state = weights(model)
    state["0.weight"] = state["0.weight"].transpose(0, 1).contiguous().transpose(0, 1)
    state["2.bias"] = state["0.bias"][:2]  # not contiguous, and with shared memory
    model.load_state_dict(state)
    save_weights(state, tmp_path / "new" / "file.safetensors", source="test")
    Checkpointer(other).load(str(tmp_path / "new" / "file.safetensors"))
    assert same(weights(other), weights(model)) and not logged.records
    assert load_file(tmp_path / "new" / "file.safetensors").keys() == state.keys()
    (tmp_path / "plain").touch()
    modes = [p.stat().st_mode for p in (tmp_path / "plain", tmp_path / "new" / "file.safetensors")]
    assert modes[0] == modes[1]  # the permissions of an ordinary file


def test_weights_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(file, content):
        file.write_text("part")
        raise OSError("No space left on device")

    file = tmp_path / "file.safetensors"
    file.write_bytes(b"old")
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UserError, match="No space left"):
        save_weights(weights(net()), file)
    with pytest.raises(UserError, match=r"written as .safetensors"):
        save_weights(weights(net()), tmp_path / "file.pth")
    assert [p.name for p in tmp_path.iterdir()] == ["file.safetensors"]
    assert file.read_bytes() == b"old"


@pytest.mark.parametrize("kind", ["zoo", "caffe2", "blobs", "pycls"])
def test_files_of_detectron2s_zoo(tmp_path, logged, kind):
    """They load as in Detectron2, whose checkpointer is the reference."""

    class Net(nn.Module):
        def __init__(self, seed):
            super().__init__()
            torch.manual_seed(seed)
            self.stem = nn.Conv2d(3, 4, 1)

    arrays = {key: value.numpy() for key, value in Net(1).state_dict().items()}
    blobs = {"stem_w": arrays["stem.weight"], "stem_b": arrays["stem.bias"]}
    file = tmp_path / ("file.pyth" if kind == "pycls" else "file.pkl")
    if kind == "pycls":
        torch.save({"model_state": Net(1).state_dict()}, file)
    else:
        blobs["stem_w_momentum"] = np.zeros(1)
        content = {
            "zoo": {"model": arrays, "__author__": "someone", "matching_heuristics": True},
            "caffe2": blobs,
            "blobs": {"blobs": blobs, "cfg": "TRAIN: {}"},
        }[kind]
        file.write_bytes(pickle.dumps(content, protocol=2))
    for cls in (DetectionCheckpointer, Checkpointer):
        model = Net(0)
        cls(model).load(str(file))
        assert same(model.state_dict(), Net(1).state_dict()), cls
    assert not logged.records


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("suffix", ["pth", "pkl"])
def test_a_plain_pickle_is_refused_by_the_name_it_has(tmp_path, protocol, suffix):
    file = tmp_path / f"weights.{suffix}"
    file.write_bytes(pickle.dumps({"0.bias": np.zeros(4), "args": Path("x")}, protocol))
    with pytest.raises(UserError, match=r"they reference pathlib\.\w*Path"):
        Checkpointer(net()).load(str(file))


@pytest.mark.parametrize("suffix", ["pth", "pkl"])
@pytest.mark.parametrize("kind", ["torch", "torch and more", "old torch", "safetensors", "pickle"])
def test_files_are_read_by_what_they_are(tmp_path, kind, suffix):
    file, state = tmp_path / f"weights.{suffix}", weights(net(seed=1))
    if kind == "safetensors":
        save_file(state, file)
    elif kind == "pickle":
        arrays = {key: value.numpy() for key, value in state.items()}
        file.write_bytes(pickle.dumps({"model": arrays, "__author__": "someone"}))
    else:
        content = {"model": state, "iteration": 3} if "more" in kind else state
        torch.save(content, file, _use_new_zipfile_serialization="old" not in kind)
    model = net()
    Checkpointer(model).load(str(file))
    assert same(weights(model), state)


def test_what_is_no_file_of_weights_is_named(tmp_path):
    torch.jit.script(net()).save(tmp_path / "script.pt")
    torch.save(torch.ones(3), tmp_path / "tensor.pth")
    torch.save(weights(net()), tmp_path / "four.pth", pickle_protocol=4)
    np.savez(tmp_path / "arrays.pth", a=np.zeros(1))
    (tmp_path / "arrays.pth.npz").rename(tmp_path / "arrays.pth")
    for name, words in (
        ("script.pt", "a TorchScript program"),
        ("tensor.pth", "contains a Tensor, not weights by name"),
        ("arrays.pth", "an archive, not a weight file"),
        ("four.pth", "pickle protocol 4"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(UserError) as error:
                Checkpointer(net()).load(str(tmp_path / name))
        text = str(error.value)
        assert words in text and name in text and "weights_only" not in text


def test_a_file_that_is_not_there_is_said_not_to_be(tmp_path):
    file = tmp_path / "nowhere.pth"
    with pytest.raises(UserError) as error:
        read_weights(file, WeightsSource(file, "--input"))
    assert str(error.value) == f"weights {file} do not exist; name another file with --input"


@pytest.mark.parametrize("suffix", ["pkl", "pth"])
def test_weights_that_contain_themselves_are_rejected(tmp_path, suffix):
    content: dict = {}
    content["model"] = content
    file = tmp_path / f"w.{suffix}"
    if suffix == "pth":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(UserError, match=f"{file} cannot be loaded .it contains itself"):
        Checkpointer(net()).load(str(file))


def test_small_files_cannot_fill_the_memory(tmp_path):
    pickled, expanded = tmp_path / "w.pkl", tmp_path / "w.pth"
    pickled.write_bytes(b"\x80\x02}r\x00\x00\x00\x20.")  # the memo would have 2**29 entries
    with pytest.raises(UserError, match="damaged"):
        read_weights(pickled)
    torch.save({"model": {"a": torch.zeros(1).expand(2**20, 2**14)}}, expanded)
    with pytest.raises(UserError, match=r"a has shape \(1048576, 16384\), but fewer values"):
        read_weights(expanded)
    many = {str(i): torch.zeros(1).expand(2**12, 2**12) for i in range(10)}  # 640 MiB together
    torch.save({"model": many}, expanded)
    with pytest.raises(UserError, match=r"4 has shape \(4096, 4096\), but fewer values"):
        read_weights(expanded)


def flip(file, position):
    """Change one bit of a file."""
    content = bytearray(file.read_bytes())
    content[position] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("crc32", [True, False])
def test_a_flipped_bit_is_found_if_there_is_a_checksum(tmp_path, crc32):
    """``torch.save`` can omit them, which is not an error."""
    file, weights = tmp_path / "w.pth", torch.arange(1000.0)
    torch.serialization.set_crc32_options(crc32)
    try:
        torch.save({"weight": weights}, file)
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(read_weights(file)["weight"], weights)
    flip(file, file.read_bytes().index(weights[500:502].numpy().tobytes()))
    if crc32:
        with pytest.raises(UserError, match="w/data/0 does not match its checksum"):
            read_weights(file)
    else:
        assert not torch.equal(read_weights(file)["weight"], weights)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["0.weight", "1.running_var"])
def test_values_that_are_not_finite_are_rejected(tmp_path, name, value):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model.register_buffer("mask", torch.tensor([0.0, -float("inf")]))  # as in attention
    file = tmp_path / "w.pth"
    state = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    torch.save({"model": state}, file)
    Checkpointer(model).load(str(file))
    state[name].flatten()[0] = value
    torch.save({"model": state}, file)
    with pytest.raises(UserError, match=f"1 of its tensors has NaN or infinity: {name}"):
        Checkpointer(model).load(str(file))
    state.pop("mask")
    with pytest.raises(UserError, match=f"1 of its tensors has NaN or infinity: {name}"):
        convert_state_dict(state, "ccsa")


def test_values_beyond_float32_are_rejected():
    state = {"weight": torch.full((2, 2), 1e300, dtype=torch.float64)}
    with pytest.raises(UserError, match="1 of its tensors has NaN or infinity: weight"):
        convert_state_dict(state, "ccsa")


def test_negative_variances_are_rejected(tmp_path):
    model, file = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), tmp_path / "w.pth"
    state = model.state_dict() | {"1.running_var": torch.tensor([1.0, -1e-9])}
    torch.save({"model": state}, file)
    with pytest.raises(UserError, match=r"1 of its tensors has negative variances: 1.running_var"):
        Checkpointer(model).load(str(file))
    with pytest.raises(UserError, match=r"negative variances: 1.running_var"):
        convert_state_dict(state, "ccsa")
    torch.save({"model": state | {"1.running_var": torch.zeros(2)}}, file)
    Checkpointer(model).load(str(file))


def test_tensors_without_values_are_rejected(tmp_path):
    model, file = nn.Linear(2, 2), tmp_path / "w.pth"
    torch.save({"model": {"weight": torch.empty(2, 2, device="meta")}}, file)
    with pytest.raises(UserError, match="weight has no values"):
        Checkpointer(model).load(str(file))
    with pytest.raises(UserError, match="weight has no values"):
        convert_state_dict(read_weights(file), "ccsa")


@pytest.mark.parametrize("kind", ["sparse", "quantized"])
def test_sparse_and_quantized_tensors_are_rejected(tmp_path, kind):
    model, file = nn.Linear(2, 2), tmp_path / "w.pth"
    weight = torch.eye(2)
    if kind == "sparse":
        weight = weight.to_sparse()
    else:
        weight = torch.quantize_per_tensor(weight, 0.1, 0, torch.qint8)
    torch.save({"model": {"weight": weight, "bias": torch.zeros(2)}}, file)
    with pytest.raises(UserError, match=f"weight is {kind}; save it as an ordinary tensor"):
        Checkpointer(model).load(str(file))


@pytest.mark.parametrize("suffix", ["pth", "pkl", "safetensors"])
def test_complex_numbers_are_rejected(tmp_path, suffix):
    file, weight = tmp_path / f"w.{suffix}", torch.ones(2, 2, dtype=torch.complex64)
    if suffix == "pkl":
        file.write_bytes(pickle.dumps({"weight": weight.numpy()}, protocol=2))
    elif suffix == "pth":
        torch.save({"weight": weight}, file)
    else:
        save_file({"weight": weight}, file)
    with pytest.raises(UserError, match="weight has complex numbers"):
        Checkpointer(nn.Linear(2, 2)).load(str(file))


@pytest.mark.parametrize(
    "build",
    [
        lambda: [[]],
        lambda: {"a": {"b": {1, 2}}, "c": ({}, [])},
        lambda: {"a": (shared := [1]), "b": shared},  # the same one twice is not a cycle
    ],
)
def test_containers_without_cycles(build):
    assert not contains_itself(build())


def test_cycles_through_every_kind_of_container():
    inner: list = []
    content = {"a": ({"b": inner},)}
    inner.append(content)
    assert contains_itself(content) and contains_itself([1, content])
