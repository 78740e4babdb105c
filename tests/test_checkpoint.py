"""Checkpoints: the old one stays in force until the new one is whole, and what did not load is
said."""

import argparse
import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.checkpoint import DetectionCheckpointer
from safetensors.torch import load_file, save_file
from torch import nn

from ccsa.checkpoint import Checkpointer, save_weights
from ccsa.errors import UserError
from ccsa.insertion import insert_blocks


def net(width=4, seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))


def weights(model):
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(a, b):
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def logged(caplog, monkeypatch):
    """Warnings of every logger, also where a test before this one has set up logging."""
    for name in ("ccsa", "fvcore", "detectron2"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    caplog.set_level(logging.WARNING)
    return caplog


def test_save_and_resume(tmp_path):
    model, optimizer = net(), None
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.ones(2, 3, 4, 4)).sum().backward()
    optimizer.step()
    Checkpointer(model, str(tmp_path), optimizer=optimizer).save("model_0000009", iteration=9)
    assert {p.name for p in tmp_path.iterdir()} == {"model_0000009.pth", "last_checkpoint"}
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000009.pth"

    for cls in (Checkpointer, DetectionCheckpointer):  # Detectron2's own reads it as well
        other = net(seed=1)
        steps = torch.optim.SGD(other.parameters(), 0.1, momentum=0.9)
        checkpointer = cls(other, str(tmp_path), optimizer=steps)
        rest = checkpointer.resume_or_load("not used", resume=True)
        assert rest["iteration"] == 9
        assert same(weights(other), weights(model))
        got, wanted = steps.state_dict()["state"], optimizer.state_dict()["state"]
        assert all(
            torch.equal(got[i]["momentum_buffer"], wanted[i]["momentum_buffer"]) for i in wanted
        )


def test_nothing_is_written_where_nothing_shall_be(tmp_path):
    Checkpointer(net(), "").save("model")
    Checkpointer(net(), str(tmp_path), save_to_disk=False).save("model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError("No space left on device"), UserError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_save_that_breaks_leaves_the_old_one_in_force(tmp_path, monkeypatch, error, raised):
    model = net()
    checkpointer = Checkpointer(model, str(tmp_path))
    checkpointer.save("model_final", iteration=1)
    old, whole = weights(model), (tmp_path / "model_final.pth").read_bytes()
    nn.init.ones_(model[0].weight)

    def broken(content, file):
        with open(file, "wb") as f:
            f.write(whole[:100])
        raise error

    for name in ("model_final", "model_0000002"):  # over the old one, and beside it
        with monkeypatch.context() as patch:
            patch.setattr(torch, "save", broken)
            with pytest.raises(raised):
                checkpointer.save(name, iteration=2)
        assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
        assert not (tmp_path / "model_0000002.pth").exists()
        other = net(seed=1)
        rest = Checkpointer(other, str(tmp_path)).resume_or_load("", resume=True)
        assert rest["iteration"] == 1 and same(weights(other), old)

    checkpointer.save("model_final", iteration=2)  # and what the broken one left is no hindrance
    other = net(seed=1)
    assert Checkpointer(other, str(tmp_path)).resume_or_load("", resume=True)["iteration"] == 2
    assert same(weights(other), weights(model))
    assert [p.name for p in tmp_path.glob("*.pth")] == ["model_final.pth"]


def test_the_tag_names_a_file_that_is_whole(tmp_path, monkeypatch):
    """The tag is moved last: a stop between the two leaves the old tag and its file."""
    checkpointer = Checkpointer(net(), str(tmp_path))
    checkpointer.save("first")

    def stopped(self, name):
        assert torch.load(tmp_path / name, weights_only=True)["iteration"] == 7
        raise KeyboardInterrupt

    monkeypatch.setattr(Checkpointer, "tag_last_checkpoint", stopped)
    with pytest.raises(KeyboardInterrupt):
        checkpointer.save("second", iteration=7)
    assert (tmp_path / "last_checkpoint").read_text() == "first.pth"
    assert (tmp_path / "first.pth").exists()


def test_what_does_not_load_is_said_in_one_line_a_kind(tmp_path, logged):
    state = weights(net(seed=1))
    state["0.weight"] = torch.zeros(5, 3, 1, 1)
    del state["2.weight"], state["2.bias"]
    state["old.weight"], state["old.bias"], state["lone"] = (torch.zeros(1) for _ in range(3))
    torch.save({"model": state}, tmp_path / "file.pth")
    model = net()
    before = weights(model)
    logged.set_level(logging.INFO)
    checkpointer = Checkpointer(model, training=True)
    checkpointer.load(str(tmp_path / "file.pth"))

    lines = checkpointer.report.lines
    assert lines == [r.getMessage() for r in logged.records if r.name == "ccsa.checkpoint"]
    warned = [r.getMessage() for r in logged.records if r.levelno >= logging.WARNING]
    assert warned == lines[1:3] and not any("\n" in line for line in lines)
    loaded, missing, shape, unexpected = lines
    assert "5 of the model's 8" in loaded
    assert "missing in the file" in missing and "2.{weight,bias}" in missing and " 2: " in missing
    assert "not in the model" in unexpected and " 3: " in unexpected
    assert "old.{weight,bias}" in unexpected and "lone" in unexpected
    assert "another shape" in shape and "0.weight" in shape and " 1: " in shape
    assert "(5, 3, 1, 1)" in shape and "(4, 3, 1, 1)" in shape
    after = weights(model)
    for key in before:
        kept = key in ("0.weight", "2.weight", "2.bias")
        assert torch.equal(after[key], before[key] if kept else state[key]), key


def test_a_long_list_is_cut_but_its_count_is_right(tmp_path, logged):
    torch.save({"model": weights(nn.Sequential(nn.Linear(1, 1)))}, tmp_path / "file.pth")
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(31)))
    Checkpointer(model, training=True).load(str(tmp_path / "file.pth"))
    (line,) = (r.getMessage() for r in logged.records if r.levelno >= logging.WARNING)
    assert " 60: " in line and "1.{weight,bias}" in line and line.endswith("...")
    assert len(line) < 400


def test_what_loads_whole_is_not_warned_of(tmp_path, logged):
    torch.save({"model": weights(net(seed=1))}, tmp_path / "file.pth")
    torch.save(weights(net(seed=1)), tmp_path / "bare.pth")  # a state dict alone
    for file in ("file.pth", "bare.pth"):
        model = net()
        Checkpointer(model).load(str(tmp_path / file))
        assert same(weights(model), weights(net(seed=1)))
    assert not [r for r in logged.records if r.levelno >= logging.WARNING]


def test_a_model_with_a_block_loads_its_own_checkpoint(tmp_path, logged):
    spec = [{"at": "0", "block": "CrissCross"}]
    model, other = net(), net(seed=1)
    for m in (model, other):
        insert_blocks(m, spec)
    nn.init.constant_(model[0].context.gamma, 0.7)
    Checkpointer(model, str(tmp_path)).save("model")
    Checkpointer(other).load(str(tmp_path / "model.pth"))
    assert same(weights(other), weights(model)) and not logged.records


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
    checkpointer.load(str(tmp_path / "good.pth"))  # an error leaves it ready for another file
    assert same(weights(model), weights(net(seed=1)))


def test_no_weights_is_no_error():
    model = net()
    before = weights(model)
    assert Checkpointer(model).load("") == {}
    assert same(weights(model), before)


class Runs:
    """Makes a file when it is unpickled."""

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
        assert name in text and "state dict alone" in text
    assert str(file) in text and "MODEL.WEIGHTS" in text and "\n" not in text
    assert [p.name for p in tmp_path.iterdir()] == [file.name]


def test_an_old_torch_is_told_to_be_safe(tmp_path, monkeypatch):
    """Before 2.6 torch.load ran what it was given unless told otherwise."""
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
    state["2.bias"] = state["0.bias"][:2]  # neither contiguous nor alone in its memory is no matter
    model.load_state_dict(state)
    save_weights(state, tmp_path / "new" / "file.safetensors", source="test")
    Checkpointer(other).load(str(tmp_path / "new" / "file.safetensors"))
    assert same(weights(other), weights(model)) and not logged.records
    assert load_file(tmp_path / "new" / "file.safetensors").keys() == state.keys()
    (tmp_path / "plain").touch()
    modes = [p.stat().st_mode for p in (tmp_path / "plain", tmp_path / "new" / "file.safetensors")]
    assert modes[0] == modes[1]  # as readable as any file


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
    """As Detectron2 loads them, its own checkpointer being the measure."""

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


def test_the_report_says_how_much_was_loaded(tmp_path, logged):
    logged.set_level(logging.INFO)
    state = weights(net(seed=1))
    del state["2.bias"], state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "file.pth")
    Checkpointer(net(), training=True).load(str(tmp_path / "file.pth"))
    lines = [r.getMessage() for r in logged.records if r.name == "ccsa.checkpoint"]
    loaded, missing = lines
    assert loaded == "weights: 7 of the model's 8 tensors loaded" and "2.bias" in missing


def test_misfits_are_shown_by_the_first_of_each_module(tmp_path):
    model = nn.Sequential(*net(), nn.Sequential(*(nn.Linear(1, 1) for _ in range(9))))
    state = weights(model) | weights(net(width=5))
    torch.save(state, tmp_path / "file.pth")
    checkpointer = Checkpointer(model, training=True)
    checkpointer.load(str(tmp_path / "file.pth"))
    line = checkpointer.report.lines[1]
    assert " 7: 0.weight (5, 3, 1, 1) for (4, 3, 1, 1), 1.weight (5,) for (4,), 2.weight" in line
    assert "bias" not in line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"2.bias": None}, ["1 missing (2.bias)"]),
        ({"1.running_var": None, "1.weight": None}, ["2 missing (1.{weight,running_var})"]),
        ({"0.bias": torch.ones(9)}, ["1 of another shape (0.bias (9,) for (4,))"]),
        ({"0.bias": torch.ones(9), "2.bias": None}, ["1 missing", "and 1 of another shape"]),
    ],
)
def test_a_model_that_is_not_trained_takes_no_part_of_itself(tmp_path, change, words):
    state = {**weights(net(seed=1)), **change}
    torch.save({k: v for k, v in state.items() if v is not None}, tmp_path / "file.pth")
    with pytest.raises(UserError) as error:
        Checkpointer(net()).load(str(tmp_path / "file.pth"))
    for part in (*words, "configuration that it was trained with", "MODEL.WEIGHTS", "file.pth"):
        assert part in str(error.value)
    Checkpointer(net(), training=True).load(str(tmp_path / "file.pth"))  # but may start from it


def test_counters_and_more_in_the_file_are_no_lack(tmp_path):
    state = {**weights(net(seed=1)), "aux.weight": torch.ones(1)}
    del state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "file.pth")
    checkpointer = Checkpointer(net())
    checkpointer.load(str(tmp_path / "file.pth"))
    assert checkpointer.report == (8, [], ["aux.weight"], [])


def test_training_does_not_start_from_a_model_that_hardly_fits(tmp_path):
    state = {**weights(net()), **{f"other.{i}": torch.ones(1) for i in range(9)}}
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(UserError, match=r"another model: 9 of its 17 tensors .*other\.\{0,1"):
        Checkpointer(net(), training=True).load(str(tmp_path / "file.pth"))
    del state["other.0"]
    torch.save(state, tmp_path / "file.pth")
    Checkpointer(net(), training=True).load(str(tmp_path / "file.pth"))
