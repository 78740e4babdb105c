"""The load report: tensors that did not load are listed, and too many of them are an error."""

import logging

import pytest
import torch
from support.small_nets import net, same, weights
from torch import nn

from ccsa.checkpoint import Checkpointer
from ccsa.errors import UserError
from ccsa.insertion import insert_blocks
from ccsa.modeling.backbones.timm_backbone import TimmBackbone


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
    assert lines == [
        r.getMessage() for r in logged.records if r.name == "ccsa.checkpoint.checkpointer"
    ]
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
    torch.save(weights(net(seed=1)), tmp_path / "bare.pth")  # only the state dict
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


def test_a_trained_block_that_is_left_out_is_a_warning(tmp_path, logged):
    model = net()
    insert_blocks(model, [{"at": "0", "block": "CrissCross"}])
    Checkpointer(model, str(tmp_path)).save("model")
    Checkpointer(net()).load(str(tmp_path / "model.pth"))
    (record,) = (r for r in logged.records if "in the file, not in the model" in r.getMessage())
    assert record.levelno == logging.WARNING and "0.context.*" in record.getMessage()


def test_the_report_says_how_much_was_loaded(tmp_path, logged):
    logged.set_level(logging.INFO)
    state = weights(net(seed=1))
    del state["2.bias"], state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "file.pth")
    Checkpointer(net(), training=True).load(str(tmp_path / "file.pth"))
    lines = [r.getMessage() for r in logged.records if r.name == "ccsa.checkpoint.checkpointer"]
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
    # Training may start from it.
    Checkpointer(net(), training=True).load(str(tmp_path / "file.pth"))


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


OFFICIAL = [f"module.{key}" for key in ("conv2.weight", "head.cca.gamma", "dsn.0.bias")]
MMSEG = ["backbone.stem.0.weight", "decode_head.conv_seg.bias", "auxiliary_head.conv_seg.bias"]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("keys", "command"),
    [
        (MMSEG, "tools/convert_weights.py --source mmseg --input"),
        (OFFICIAL, "tools/convert_weights.py --source ccnet --input"),
        (["layer1.0.conv1.weight", "bn1.bias"], "--source mmseg"),  # an ImageNet ResNet
        (["blocks.0.weight", "norm.bias"], ""),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_weights_of_other_programs_get_the_command_that_converts_them(
    tmp_path, keys, command, wrapped, training
):
    state = {key: torch.ones(1) for key in keys}
    file = tmp_path / "file.pth"
    torch.save({"state_dict": state, "meta": {"epoch": 3}} if wrapped else state, file)
    with pytest.raises(UserError, match="another model") as error:
        Checkpointer(net(), training=training).load(str(file))
    assert command in str(error.value) and (command or "convert" not in str(error.value))


def test_weights_of_timm_get_their_address(tmp_path):
    torch.save({"blocks.0.weight": torch.ones(1)}, tmp_path / "file.pth")
    with pytest.raises(UserError, match=r"MODEL\.WEIGHTS timm://FILE"):
        Checkpointer(TimmBackbone("test_resnet")).load(str(tmp_path / "file.pth"))


def test_a_state_dict_under_its_name_is_loaded(tmp_path):
    torch.save({"state_dict": weights(net(seed=1)), "epoch": 3}, tmp_path / "file.pth")
    model = net()
    Checkpointer(model).load(str(tmp_path / "file.pth"))
    assert same(weights(model), weights(net(seed=1)))
