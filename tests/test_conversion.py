"""Checkpoints of MMSegmentation (keys, shapes, values) and of the official code (keys, shapes)."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from ccsa.conversion import convert_state_dict
from ccsa.errors import UserError
from ccsa.modeling import CCNetHead, dilated_resnet


@pytest.fixture
def mmseg(vectors):
    """The arrays of MMSegmentation's network, and ours of the same sizes."""
    data = np.load(vectors / "mmseg_ccnet_r50_small.npz")
    base, channels = int(data["base_channels"]), int(data["head_channels"])
    backbone = dilated_resnet(
        int(data["depth"]),
        contract_dilation=True,
        stem_channels=int(data["stem_channels"]),
        bottleneck_channels=base,
        res2_channels=4 * base,
        norm="BN",
    )
    head = CCNetHead(
        backbone.output_shape(),
        num_classes=int(data["num_classes"]),
        channels=channels,
        aux_channels=channels // 2,
        norm="BN",
        context=[{"block": "CrissCross", "recurrence": int(data["recurrence"])}],
    )
    model = nn.ModuleDict({"backbone": backbone, "sem_seg_head": head}).eval()
    prefix = "state_dict/"
    state = {
        key.removeprefix(prefix): torch.from_numpy(data[key])
        for key in data.files
        if key.startswith(prefix)
    }
    return data, state, model


def test_mmseg_network_computes_the_same(mmseg):
    data, state, model = mmseg
    model.load_state_dict(convert_state_dict(state, "mmseg"), strict=True)
    with torch.no_grad():
        features = model["backbone"](torch.from_numpy(data["input"]))
        head = model["sem_seg_head"]
        found = {
            "res5": features["res5"],
            "logits": head.layers(features),
            "aux_logits": head.auxiliary(features["res4"]),
        }
    for name, value in found.items():
        np.testing.assert_allclose(value.numpy(), data[name], atol=2e-6, rtol=2e-5, err_msg=name)


def test_whole_checkpoint_files_and_data_parallel_keys(mmseg):
    _, state, model = mmseg
    wrapped = {"meta": {}, "state_dict": {f"module.{k}": v for k, v in state.items()}}
    model.load_state_dict(convert_state_dict(wrapped, "mmseg"), strict=True)


def test_plain_stem_of_mmseg():
    found = convert_state_dict(
        {"backbone.conv1.weight": torch.zeros(1), "backbone.bn1.bias": torch.ones(1)}, "mmseg"
    )
    assert set(found) == {"backbone.stem.conv1.weight", "backbone.stem.conv1.norm.bias"}


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


def test_in_place_norm_scales_by_the_absolute_weight():
    names = ("weight", "bias", "running_mean", "running_var")
    norm = {f"bn1.{name}": torch.tensor([-2.0, 3.0]) for name in names}
    found = convert_state_dict(norm, "ccnet")
    assert found["backbone.stem.conv1.norm.weight"].tolist() == pytest.approx([2.00001, 3.00001])
    assert found["backbone.stem.conv1.norm.bias"].tolist() == [-2, 3]
    batch_norm = {**norm, "bn1.num_batches_tracked": torch.tensor(4)}
    found = convert_state_dict(batch_norm, "ccnet")
    assert found["backbone.stem.conv1.norm.weight"].tolist() == [-2, 3]


@pytest.mark.parametrize(
    ("state", "source", "message"),
    [
        ({}, "paddle", "mmseg, ccnet"),
        ({"decode_head.psp.0.weight": torch.zeros(1)}, "mmseg", "decode_head.psp.0.weight"),
        ({"backbone.stem.0.weight": torch.zeros(1)}, "ccnet", "1 of 1 keys"),
    ],
)
def test_what_cannot_be_converted_is_named(state, source, message):
    with pytest.raises(UserError, match=message):
        convert_state_dict(state, source)
