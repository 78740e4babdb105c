"""The configuration, weights and device that a tool for trained models uses."""

import argparse

import pytest
import torch
import yaml

from ccsa.engine import setup, trained_cfg
from ccsa.errors import UserError

CONFIG = "far_cue/any_plain.yaml"


@pytest.fixture
def run(make_run):
    """Return the folder of a run from a machine with a GPU."""
    folder = make_run("run", None, config=CONFIG)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    config["MODEL"]["DEVICE"] = "cuda"
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    torch.save({}, folder / "model_final.pth")
    return folder


@pytest.fixture
def config(root):
    return str(root / "configs" / CONFIG)


def named(*opts, weights=None, config_file="", **keywords):
    """Return the weights and device of the configuration."""
    args = argparse.Namespace(weights=weights, config_file=config_file, opts=list(opts))
    model = trained_cfg(args, **keywords).MODEL
    return model.WEIGHTS, model.DEVICE


def test_a_run_names_everything_but_the_device(run):
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert named(weights=str(run)) == (str(run / "model_final.pth"), device)


def test_a_device_is_that_of_the_command_line_the_tool_or_the_file(run, monkeypatch):
    monkeypatch.setattr(setup, "resolve_device", lambda name: name)
    weights = str(run / "model_final.pth")
    assert named(weights=weights)[1] == "auto"
    assert named(weights=weights, config_file=str(run / "config.yaml"))[1] == "cuda"
    assert named(weights=weights, device="cpu")[1] == "cpu"
    assert named("MODEL.DEVICE", "cuda:1", weights=weights, device="cpu")[1] == "cuda:1"


def test_weights_are_those_named_and_random_ones_are_asked_for(run, config):
    file = str(run / "model_final.pth")
    assert named("MODEL.WEIGHTS", file, config_file=config)[0] == file
    assert named("MODEL.WEIGHTS", "other.pth", weights=file, config_file=config)[0] == file
    assert named("MODEL.WEIGHTS", "", config_file=config)[0] == ""
    with pytest.raises(
        UserError, match=r"does not name any weights; .* MODEL\.WEIGHTS \"\" for random"
    ):
        named(config_file=config)
    with pytest.raises(UserError, match="add --weights"):
        named()
    near = run.with_name("runn")
    reason = rf"--weights {near} does not exist in {run.parent}; did you mean run\? Available: run"
    with pytest.raises(UserError, match=reason):
        named(weights=str(near))


def test_overlays_belong_to_a_configuration_and_not_to_a_run(run, config):
    args = argparse.Namespace(
        weights=None, config_file=config, overlays=["ohem"], opts=["MODEL.WEIGHTS", ""]
    )
    assert trained_cfg(args).MODEL.SEM_SEG_HEAD.OHEM.ENABLED
    args = argparse.Namespace(weights=str(run), config_file="", overlays=["ohem"], opts=[])
    with pytest.raises(UserError, match=r"--with ohem needs --config-file: .* its overlays"):
        trained_cfg(args)
