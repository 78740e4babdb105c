"""tools/convert_weights.py, run as users run it, with every possible mistake."""

import json
import subprocess
import sys
from pathlib import Path

import convert_weights as tool
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from ccsa.checkpoint.conversion import convert_state_dict

TOOL = Path(__file__).parents[2] / "tools" / "convert_weights.py"


@pytest.fixture(scope="module")
def state(vectors):
    data, prefix = np.load(vectors / "mmseg_ccnet_r50_small.npz"), "state_dict/"
    return {k.removeprefix(prefix): torch.from_numpy(data[k]) for k in data if prefix in k}


@pytest.fixture
def run(tmp_path, monkeypatch, run_tool):
    """Return a function that runs the tool in ``tmp_path``, by default with in.pth and
    out.safetensors, and returns its exit status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def start(**options):
        options = {"source": "mmseg", "input": "in.pth", "output": "out.safetensors", **options}
        words = [word for key, value in options.items() for word in (f"--{key}", str(value))]
        return run_tool(tool, *words)

    return start


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_checkpoint_becomes_safetensors(run, state, tmp_path, suffix):
    if suffix == "pth":
        meta = {"CLASSES": ("road",), "iter": 80000, "mmseg_version": "0.6.0"}
        torch.save({"meta": meta, "state_dict": state}, tmp_path / "in.pth")
    else:
        save_file(state, tmp_path / "in.safetensors")
    status, printed, err = run(input=f"in.{suffix}")
    assert (status, err) == (0, "")
    assert "360 tensors" in printed and "DEPTH 50" in printed and "CONVS_DIM 32" in printed
    wanted, found = convert_state_dict(state, "mmseg"), load_file(tmp_path / "out.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        assert file.metadata()["source"] == "mmseg"


def test_as_a_program_on_the_official_code(tmp_path, vectors):
    keys = json.loads((vectors / "ccnet_official_keys.json").read_text())
    narrow = {key: [n // 16 if n >= 64 else n for n in shape] for key, shape in keys}
    torch.save(
        {f"module.{key}": torch.rand(shape) for key, shape in narrow.items()},  # variances
        tmp_path / "CS_scenes.pth",
        _use_new_zipfile_serialization=False,  # the format of torch at that time
    )
    words = ["--source", "ccnet", "--input", "CS_scenes.pth", "--output", "new/r101.safetensors"]
    done = subprocess.run(
        [sys.executable, TOOL, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "562 tensors" in done.stdout and "DEPTH 101" in done.stdout
    assert len(load_file(tmp_path / "new" / "r101.safetensors")) == 562


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"input": "none.pth"}, "none.pth"),
        ({"input": "cut.pth"}, "truncated, damaged, or not a checkpoint"),
        ({"input": "page.pth"}, "truncated, damaged, or not a checkpoint"),
        ({"input": "unsafe.pth"}, "pathlib"),
        ({"input": "list.pth"}, "a list"),
        ({"input": "more.pth"}, "decode_head.more.weight"),
        ({"input": "less.pth"}, "decode_head.conv_seg.bias"),
        ({"source": "ccnet"}, "none of 359 keys is one of ccnet's"),
        ({"output": "out.pth"}, ".safetensors"),
        ({"output": "in.pth/out.safetensors"}, "cannot be written"),
        ({"output": "old.safetensors"}, "old.safetensors would be overwritten"),
    ],
)
def test_every_mistake_is_named_and_nothing_is_written(run, state, tmp_path, options, named):
    torch.save(state, tmp_path / "in.pth")
    whole = (tmp_path / "in.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html>404: Not Found</html>")
    (tmp_path / "old.safetensors").write_text("precious")
    torch.save({"state_dict": state, "meta": Path("x")}, tmp_path / "unsafe.pth")
    torch.save([1], tmp_path / "list.pth")
    torch.save({**state, "decode_head.more.weight": torch.ones(1)}, tmp_path / "more.pth")
    less = {key: value for key, value in state.items() if key != "decode_head.conv_seg.bias"}
    torch.save(less, tmp_path / "less.pth")
    before = {path.name for path in tmp_path.iterdir()}
    status, printed, err = run(**options)
    assert (status, printed) == (2, "")
    assert err.startswith("error: ") and named in err and err.count("\n") == 1
    assert "MODEL.WEIGHTS" not in err
    assert {path.name for path in tmp_path.iterdir()} == before
    assert (tmp_path / "old.safetensors").read_text() == "precious"


def test_the_checkpoint_of_a_run_becomes_safetensors(run, tmp_path):
    weights = {
        "backbone.conv.weight": torch.ones(2),
        "backbone.norm.num_batches_tracked": torch.tensor(3),
    }
    torch.save({"model": weights, "trainer": {}, "iteration": 9}, tmp_path / "in.pth")
    status, _, err = run(source="mmseg")
    assert status == 2 and "ccsa" in err  # the message lists the other sources
    status, printed, _ = run(source="ccsa")
    found = load_file(tmp_path / "out.safetensors")
    assert status == 0 and "2 tensors" in printed and found.keys() == weights.keys()
    assert all(torch.equal(found[key], weights[key]) for key in weights)
    torch.save({"model": {"a": 1}}, tmp_path / "in.pth")
    status, _, err = run(source="ccsa", output="other.safetensors")
    assert status == 2 and "a is a int" in err


def test_an_unknown_source_is_refused(run):
    status, _, err = run(source="paddle")
    assert status == 2 and "mmseg" in err and "ccnet" in err
