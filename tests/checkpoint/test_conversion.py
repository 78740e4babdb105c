"""Conversion of checkpoints of MMSegmentation and the official code, and the outputs of the models
whose configurations they belong to."""

import argparse
import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from detectron2.modeling import build_model
from support import mmseg_network, official_ccnet
from torch import nn

from ccsa.checkpoint.conversion import convert_state_dict, model_options
from ccsa.checkpoint.conversion.rules import to_ccsa_key, to_source_key
from ccsa.checkpoint.conversion.validation import size_keys
from ccsa.engine.setup import setup_cfg
from ccsa.errors import UserError
from ccsa.modeling import CCNetHead, dilated_resnet

# MMSegmentation, and the packages it imports that are not installed already.
MMSEGMENTATION = ("mmsegmentation==1.2.2", "ftfy", "prettytable", "regex", "wcwidth")


# Every weight that determines a size, the type of block, or the type of stem.
SIZE_KEYS = {
    "mmseg": [
        *(f"backbone.layer1.0.conv{i}.weight" for i in (1, 2, 3)),
        *(f"backbone.stem.{i}.weight" for i in (0, 3, 6)),
        *(f"decode_head.{name}.weight" for name in ("convs.0.conv", "conv_seg")),
        "auxiliary_head.convs.0.conv.weight",
    ],
    "ccnet": [
        *(f"layer1.0.conv{i}.weight" for i in (1, 2, 3)),
        *(f"conv{i}.weight" for i in (1, 2, 3)),
        *("head.conva.0.weight", "head.bottleneck.3.weight", "dsn.0.weight"),
    ],
}


def build(root, name, converted):
    """Return the model of a configuration with the sizes and values of converted weights."""
    options = [str(x) for pair in model_options(converted).items() for x in pair]
    options += ["MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "BN", "MODEL.SEM_SEG_HEAD.NORM", "BN"]
    file = str(root / "configs" / "cityscapes" / f"{name}.yaml")
    model = build_model(setup_cfg(argparse.Namespace(config_file=file, opts=options)))
    model.to(converted["backbone.stem.conv1.weight"].dtype)
    model.load_state_dict(converted, strict=True)
    return model.eval()


def outputs(model, x):
    with torch.no_grad():
        features = model.backbone(x)
        head = model.sem_seg_head
        return {
            "res5": features["res5"],
            "logits": head.layers(features),
            "aux_logits": head.auxiliary(features["res4"]),
        }


@pytest.fixture(scope="module")
def mmseg(vectors):
    """Return the recorded arrays of MMSegmentation's network, and its state dict."""
    data = np.load(vectors / "mmseg_ccnet_r50_small.npz")
    prefix = "state_dict/"
    state = {k.removeprefix(prefix): torch.from_numpy(data[k]) for k in data if prefix in k}
    return data, state


@pytest.fixture(scope="module")
def official(vectors):
    """Return a state dict of the official code's network, with fewer channels."""
    return official_ccnet.narrow_state(vectors / "ccnet_official_keys.json")


def test_mmseg_network_computes_the_same(mmseg, root):
    data, state = mmseg
    model = build(root, "ccnet_R_50_mmseg", convert_state_dict(state, "mmseg"))
    for name, value in outputs(model, torch.from_numpy(data["input"])).items():
        np.testing.assert_allclose(value.numpy(), data[name], atol=2e-6, rtol=2e-5, err_msg=name)


@pytest.fixture(scope="module")
def mmsegmentation(tmp_path_factory):
    """Install MMSegmentation from PyPI into its own folder, or skip with the reason."""
    site = tmp_path_factory.mktemp("mmsegmentation")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--retries", "1"]
    done = subprocess.run(
        [*pip, "install", "-q", "--no-deps", "--target", site, *MMSEGMENTATION],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        pytest.skip(f"pip cannot install {MMSEGMENTATION[0]}: {done.stderr.strip()[-200:]}")
    return site


@pytest.mark.slow
def test_mmsegmentation_itself_computes_the_same(mmsegmentation, root, tmp_path):
    """Use a ResNet-101 with random weights in float64."""
    file = tmp_path / "network.pth"
    done = subprocess.run(
        [sys.executable, root / "tests" / "support" / "mmseg_network.py", file],
        env={**os.environ, "PYTHONPATH": str(mmsegmentation)},
        capture_output=True,
        text=True,
    )
    if done.returncode == mmseg_network.NO_MMSEG:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr
    theirs = torch.load(file, weights_only=True)
    model = build(root, "ccnet_R_101_mmseg", convert_state_dict(theirs, "mmseg"))
    for name, value in outputs(model, theirs["input"]).items():
        torch.testing.assert_close(value, theirs["outputs"][name], rtol=1e-9, atol=1e-9)


def test_official_network_computes_the_same(official, root):
    """Compare BGR pixels to logits at the image size, for even sizes, where the rounding of the
    max-pooling matters."""
    model = build(root, "ccnet_R_101_official", convert_state_dict(official, "ccnet"))
    image = 255 * torch.rand(3, 64, 98, generator=torch.Generator().manual_seed(1)).double()
    mean = torch.tensor([104.00698793, 116.66876762, 122.67891434])[:, None, None]
    wanted = official_ccnet.forward(official, (image - mean)[None])
    for name, value in outputs(model, (image - mean)[None]).items():
        assert value.shape[-2:] == (9, 13)
        torch.testing.assert_close(value, wanted[name], rtol=1e-9, atol=1e-9)
    with torch.no_grad():
        (result,) = model([{"image": image}])
    whole = nn.functional.interpolate(
        wanted["logits"], (64, 98), mode="bilinear", align_corners=True
    )
    torch.testing.assert_close(result["sem_seg"], whole[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("source", ["mmseg", "ccnet"])
def test_whole_checkpoint_files_and_data_parallel_keys(request, source):
    state = request.getfixturevalue("mmseg")[1] if source == "mmseg" else None
    state = state or request.getfixturevalue("official")
    wrapped = {"meta": {}, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    wanted, found = convert_state_dict(state, source), convert_state_dict(wrapped, source)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[key], wanted[key]) for key in wanted)


def test_every_official_key_has_its_place(vectors):
    keys = json.loads((vectors / "ccnet_official_keys.json").read_text())
    with torch.device("meta"):
        backbone = dilated_resnet(101, stem_channels=128)
        head = CCNetHead(backbone.output_shape(), num_classes=19, aux_channels=512)
        model = nn.ModuleDict({"backbone": backbone, "sem_seg_head": head})
        official = {key: torch.empty(shape) for key, shape in keys}
    converted = convert_state_dict(official, "ccnet")
    assert len(converted) == len(official)
    ours = {k: v.shape for k, v in model.state_dict().items() if "num_batches" not in k}
    assert {k: v.shape for k, v in converted.items()} == ours
    assert all(to_source_key(to_ccsa_key(key, "ccnet"), "ccnet") == key for key in official)


def test_in_place_norm_scales_by_the_absolute_weight(official):
    weight = official["bn1.weight"]
    assert (weight < 0).any() and (weight > 0).any()
    found = convert_state_dict(official, "ccnet")["backbone.stem.conv1.norm.weight"]
    assert torch.equal(found, weight.abs() + 1e-5)
    counted = {**official, "bn1.num_batches_tracked": torch.tensor(4)}  # then it is a batch norm
    found = convert_state_dict(counted, "ccnet")["backbone.stem.conv1.norm.weight"]
    assert torch.equal(found, weight)


def test_models_with_less(mmseg):
    """Convert a model without an auxiliary head whose head is not CCHead."""
    state = {k: v for k, v in mmseg[1].items() if "auxiliary" not in k and ".cca." not in k}
    options = model_options(convert_state_dict(state, "mmseg"))
    assert options["MODEL.SEM_SEG_HEAD.AUX.WEIGHT"] == 0
    assert options["MODEL.SEM_SEG_HEAD.BLOCKS"] == []


@pytest.mark.parametrize("prefix", ["", "backbone."])
@pytest.mark.parametrize(("depth", "res2"), [(18, 64), (50, 256)])
def test_plain_resnets_compute_the_same(depth, res2, prefix):
    """Use torchvision's ResNet, which has the keys, layers and classifier of MMSegmentation's."""
    torch.manual_seed(depth)
    theirs = getattr(torchvision.models, f"resnet{depth}")().eval()
    state = {prefix * ("fc" not in k) + k: v for k, v in theirs.state_dict().items()}
    converted = convert_state_dict(state, "mmseg")
    ours = dilated_resnet(
        depth, output_stride=32, stem="basic", stem_channels=64, res2_channels=res2, norm="BN"
    )
    ours.load_state_dict({k.removeprefix("backbone."): v for k, v in converted.items()})
    children = dict(theirs.named_children())
    layers = [v for k, v in children.items() if k not in ("avgpool", "fc")]
    x = torch.randn(1, 3, 65, 97)
    with torch.no_grad():
        wanted = nn.Sequential(*layers)(x)
        torch.testing.assert_close(ours.eval()(x)["res5"], wanted, rtol=1e-4, atol=1e-4)


def cut(*words):
    return lambda state: {k: v for k, v in state.items() if not any(w in k for w in words)}


def added(key, value=None):
    return lambda state: {**state, key: torch.zeros(2) if value is None else value}


def every_trouble(state):
    cca = "decode_head.cca.query_conv"
    state = cut("decode_head.conv_seg.bias")(state) | {
        f"{cca}.weight": torch.ones(1),
        f"{cca}.bias": torch.ones(1),
    }
    return state | {"decode_head.psp.0.weight": torch.ones(1), "backbone.conv1.bias": torch.ones(1)}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (added("decode_head.psp.0.weight"), ["1 not among mmseg's", "decode_head.psp.0.weight"]),
        (
            added("backbone.layer4.2.conv1.bias"),
            ["without a counterpart", "backbone.layer4.2.conv1.bias"],
        ),
        (added("conv1.weight"), ["conv1.weight"]),  # present with and without the prefix
        (added("iteration", 3), ["iteration"]),
        (added("fc.weight"), ["fc.weight"]),  # accepted only without a head
        (added("decode_head.conv_seg.bias"), ["shape", "decode_head.conv_seg.bias"]),
        (cut("decode_head.conv_seg."), ["2 missing", "decode_head.conv_seg.{}", "predictor.{}"]),
        (cut("decode_head.convs.1.bn.bias"), ["1 missing", "refine.norm.bias"]),
        (cut("running_var"), ["missing", "layer1.0.bn1.running_var", "layer4.2.bn3.running_var"]),
        (cut("layer4.2."), ["15 missing", "ResNet-50", "backbone.layer4.2.conv3.weight"]),
        (
            added("backbone.layer1.9.conv1.weight"),
            ["1 without a counterpart", "ResNet-50", "layer1.9.conv1"],
        ),
        (
            every_trouble,
            ["1 not among", "psp.0", "1 missing", "conv_seg.bias", "1 without", "2 of a shape"],
        ),
        (cut(""), ["none of 0 keys"]),
    ],
)
def test_what_is_left_over_on_either_side_is_listed(mmseg, change, named):
    with pytest.raises(UserError) as error:
        convert_state_dict(change(mmseg[1]), "mmseg")
    for words in named:
        for leaf in ("weight", "bias") if "{}" in words else ("",):
            assert words.format(leaf) in str(error.value)


@pytest.mark.parametrize("key", SIZE_KEYS["mmseg"])
def test_a_weight_that_gives_a_size_is_missed(mmseg, key):
    check_missed(mmseg[1], "mmseg", key)


@pytest.mark.parametrize("key", SIZE_KEYS["ccnet"])
def test_an_official_weight_that_gives_a_size_is_missed(official, key):
    check_missed(official, "ccnet", key)


def check_missed(state, source, key):
    sizes = size_keys(convert_state_dict(state, source)).values()
    assert {to_source_key(k, source) for k in sizes} <= set(SIZE_KEYS[source])
    with pytest.raises(UserError, match=rf"1 missing: {re.escape(key)} \(here [\w.]+\)$"):
        convert_state_dict({k: v for k, v in state.items() if k != key}, source)


@pytest.mark.parametrize("names", [["model"], ["state_dict", "model"], ["model", "state_dict"]])
def test_state_dicts_are_found_in_checkpoints(mmseg, names):
    wrapped = mmseg[1]
    for name in names:
        wrapped = {name: wrapped, "epoch": 3}
    assert (
        convert_state_dict(wrapped, "mmseg").keys() == convert_state_dict(mmseg[1], "mmseg").keys()
    )


def test_what_cannot_be_converted_is_said(mmseg):
    for state, source, words in (
        (mmseg[1], "paddle", "mmseg, ccnet"),
        (mmseg[1], "ccnet", "none of 359 keys is one of ccnet"),
        ([1, 2], "mmseg", "a list"),
        (torchvision.models.resnet152().state_dict(), "mmseg", "18, 34, 50, 101"),
    ):
        with pytest.raises(UserError, match=words):
            convert_state_dict(state, source)
