import copy
import io
import pickle

import pytest
import torch
from torch import nn

from ccsa.blocks import CONTEXT_BLOCK_REGISTRY, build_block
from ccsa.errors import UserError
from ccsa.insertion import PlacementError, context_blocks, insert_blocks, placement_table


class Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.out_channels = channels

    def forward(self, x):
        return x + self.conv1(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.res3 = nn.Sequential(*(Residual(8) for _ in range(3)))
        self.res4 = nn.Sequential(*(Residual(8) for _ in range(4)))
        self.fpn_output3 = nn.Conv2d(8, 4, 1)
        self.fpn_output4 = nn.Conv2d(8, 4, 1)

    def forward(self, x):
        x = self.res3(self.stem(x))
        return self.fpn_output3(x), self.fpn_output4(self.res4(x))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def image():
    return torch.randn(2, 3, 7, 5, generator=torch.Generator().manual_seed(1))


def set_gamma(model, value=0.5):
    for i, (_, block) in enumerate(context_blocks(model)):
        nn.init.constant_(block.gamma, value + 0.1 * i)


def paths(placements):
    return [p.path for p in placements]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("res4.-2", ["res4.2"]),
        ("res4.1", ["res4.1"]),
        ("res4", ["res4.3"]),
        ("res4.0.conv1", ["res4.0.conv1"]),
        ("fpn_output*", ["fpn_output3", "fpn_output4"]),
        ("res*.-1", ["res3.2", "res4.3"]),
        ("res4.*", ["res4.0", "res4.1", "res4.2", "res4.3"]),
    ],
)
def test_paths_resolve(net, at, expected):
    placements = insert_blocks(net, [{"at": at, "block": "CrissCross"}])
    assert paths(placements) == expected
    new = {k for k in net.state_dict() if ".context." in k}
    assert {k.split(".context.")[0] for k in new} == set(expected)


def test_keys_of_the_model_do_not_move(net):
    before = set(net.state_dict())
    insert_blocks(net, [{"at": "res4.-2", "block": "CrissCross"}])
    added = set(net.state_dict()) - before
    assert before <= set(net.state_dict())
    assert added and all(key.startswith("res4.2.context.") for key in added)


def test_the_block_takes_the_output_of_its_place(net, image):
    insert_blocks(net, [{"at": "res4.-2", "block": "CrissCross", "recurrence": 2}])
    set_gamma(net)
    block = net.res4[2].context
    x = net.res3(net.stem(image))
    for i in range(3):
        x = Residual.forward(net.res4[i], x)
    expected = net.fpn_output4(net.res4[3](block(x)))
    torch.testing.assert_close(net(image)[1], expected, rtol=0, atol=0)
    assert not torch.equal(block(x), x)


def test_a_stage_means_its_last_block_once(net, image):
    insert_blocks(net, [{"at": "res4", "block": "SqueezeExcitation", "residual": False}])
    plain = copy.deepcopy(net)
    del plain.res4[3].context
    plain.res4[3]._forward_hooks.clear()
    x = plain.res4(plain.res3(plain.stem(image)))
    torch.testing.assert_close(net(image)[1], net.fpn_output4(net.res4[3].context(x)))


def test_several_blocks_at_one_place_run_in_the_order_listed(net, image):
    insert_blocks(
        net,
        [
            {"at": "res4.-1", "block": "SqueezeExcitation", "reduction": 2},
            {"at": "res4", "block": "CrissCross", "recurrence": 1},
            {"at": "res4.3", "block": "NonLocal"},
        ],
    )
    set_gamma(net)
    first, second, third = net.res4[3].context
    assert [type(b).__name__ for b in (first, second, third)] == [
        *("SqueezeExcitation", "CrissCross", "NonLocal")
    ]
    x = net.res4[:3](net.res3(net.stem(image)))
    x = Residual.forward(net.res4[3], x)
    expected = third(second(first(x)))
    torch.testing.assert_close(net(image)[1], net.fpn_output4(expected))
    swapped = first(second(third(x)))
    assert not torch.allclose(expected, swapped)
    assert [path for path, _ in context_blocks(net)] == [f"res4.3.context.{i}" for i in range(3)]


def test_gamma_zero_and_no_block_change_no_bit(net, image):
    expected = net(image)
    for blocks in ([], [{"at": "res*.*", "block": b} for b in ("CrissCross", "NonLocal")]):
        other = copy.deepcopy(net)
        insert_blocks(other, blocks)
        for a, b in zip(other(image), expected, strict=True):
            assert torch.equal(a, b)


def test_deep_copy_and_pickle_use_their_own_block(net, image):
    insert_blocks(net, [{"at": "res4.-2", "block": "CrissCross"}])
    set_gamma(net)
    expected = net(image)[1]
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert torch.equal(other(image)[1], expected)
        nn.init.zeros_(other.res4[2].context.gamma)
        assert not torch.equal(other(image)[1], expected)
        assert torch.equal(net(image)[1], expected)


def test_state_dict_round_trip(net, image):
    spec = [{"at": "res4.-2", "block": "CrissCross"}]
    insert_blocks(net, spec)
    set_gamma(net)
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    other = Net()
    insert_blocks(other, spec)
    other.load_state_dict(torch.load(file))
    assert torch.equal(other(image)[1], net(image)[1])


def test_tracing_keeps_the_block(net, image):
    insert_blocks(net, [{"at": "res4.-2", "block": "CrissCross"}])
    set_gamma(net)
    traced = torch.jit.trace(net, image, check_trace=False)
    torch.testing.assert_close(traced(image)[1], net(image)[1])


def test_the_block_follows_dtype_and_mode(net):
    net.double().eval()
    insert_blocks(net, [{"at": "res4", "block": "SqueezeAttention"}])
    block = net.res4[3].context
    assert not block.training
    assert {p.dtype for p in block.parameters()} == {torch.float64}


def test_channels_are_told_from_the_last_layer_that_has_any():
    layers = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU())
    model = nn.Sequential(layers)
    assert insert_blocks(model, [{"at": "0", "block": "CrissCross"}])[0].channels == 6
    assert (
        insert_blocks(
            nn.Sequential(nn.Conv2d(3, 6, 1), nn.ReLU()),
            [{"at": "-1", "block": "CrissCross", "channels": 6}],
        )[0].path
        == "1"
    )


def test_placement_table_lists_every_place(net):
    table = placement_table(insert_blocks(net, [{"at": "fpn_output*", "block": "CrissCross"}]))
    block = build_block("CrissCross", 4)
    count = sum(p.numel() for p in block.parameters())
    assert "fpn_output3" in table and "fpn_output4" in table and str(count) in table


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"at": "res5.-2", "block": "CrissCross"}, ["res5", "did you mean", "res4"]),
        ({"at": "res4.9", "block": "CrissCross"}, ["res4", "'9'"]),
        ({"at": "res4.-5", "block": "CrissCross"}, ["res4", "'-5'"]),
        ({"at": "fpn_out*x", "block": "CrissCross"}, ["fpn_out*x"]),
        ({"at": "res4", "block": "CrisCross"}, ["CrisCross", "CrissCross"]),
        ({"at": "res4", "block": "CrissCross", "recurence": 2}, ["recurence", "recurrence"]),
        ({"at": "res4"}, ["block"]),
        ({"block": "CrissCross"}, ["at"]),
        ("res4", ["at", "block"]),
        ({"at": "res4", "block": "CrissCross", "channels": 0}, ["channels"]),
    ],
)
def test_mistakes_are_named_and_leave_the_model_alone(net, spec, words):
    before = list(net.state_dict())
    with pytest.raises(ValueError) as error:
        insert_blocks(net, [{"at": "res3", "block": "CrissCross"}, spec])
    assert all(word in str(error.value) for word in words), error.value
    assert list(net.state_dict()) == before


def test_a_second_call_at_the_same_place_is_refused(net):
    insert_blocks(net, [{"at": "res4", "block": "CrissCross"}])
    with pytest.raises(ValueError, match="to one call of insert_blocks"):
        insert_blocks(net, [{"at": "res4.3", "block": "CrissCross"}])


def test_unknown_channels_and_empty_containers_are_refused():
    model = nn.ModuleDict({"act": nn.ReLU(), "empty": nn.Sequential()})
    with pytest.raises(ValueError, match="channels: N"):
        insert_blocks(model, [{"at": "act", "block": "CrissCross"}])
    with pytest.raises(ValueError, match="empty"):
        insert_blocks(model, [{"at": "empty", "block": "CrissCross", "channels": 4}])


def test_an_output_that_is_no_map_or_of_other_width_is_named():
    model = nn.Sequential(nn.Linear(4, 4))
    insert_blocks(model, [{"at": "0", "block": "CrissCross", "channels": 4}])
    with pytest.raises(ValueError, match="Linear"):
        model(torch.zeros(2, 4))
    model = nn.Sequential(nn.Conv2d(3, 6, 1))
    insert_blocks(model, [{"at": "0", "block": "CrissCross", "channels": 4}])
    with pytest.raises(ValueError, match="channels: 6"):
        model(torch.zeros(1, 3, 2, 2))


def test_a_placement_that_only_a_forward_can_refuse_is_the_users_to_cure():
    assert issubclass(PlacementError, UserError)  # so that the tools end with one message


def test_torchvision_models_work_without_detectron2():
    from torchvision.models import resnet18

    model = resnet18().eval()
    placements = insert_blocks(model, [{"at": "layer3.-2", "block": "CrissCross"}])
    assert [(p.path, p.channels) for p in placements] == [("layer3.0", 256)]
    with torch.no_grad():
        model(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize(
    ("model", "blocks", "said"),
    [
        (3, [], "into an nn.Module, not into 3"),
        (None, [], "into an nn.Module"),
        (nn.Conv2d, [], "into an nn.Module"),
        *((nn.Conv2d(3, 4, 1), b, "blocks must be a list of mappings") for b in (3, None, "x", {})),
    ],
)
def test_arguments_of_other_types_are_refused(model, blocks, said):
    with pytest.raises(UserError, match=said):
        insert_blocks(model, blocks)


def test_a_block_that_changes_the_dtype_does_not_change_the_dtype_of_the_module():
    class Mean(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.gamma = nn.Parameter(torch.ones(()))

        def forward(self, x):
            return x.float() + self.gamma * x.float().mean()

    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    CONTEXT_BLOCK_REGISTRY.register(Mean)
    try:
        insert_blocks(model, [{"at": "0", "block": "Mean"}])
    finally:
        CONTEXT_BLOCK_REGISTRY._classes.pop("Mean")
    with torch.autocast("cpu", torch.bfloat16):
        assert model(torch.ones(1, 3, 2, 2)).dtype == torch.bfloat16


def test_a_second_call_at_one_location_says_how_to_attach_both():
    model = nn.Sequential(nn.Conv2d(3, 4, 1))
    entry = {"at": "0", "block": "CrissCross"}
    insert_blocks(model, [entry])
    message = (
        "^a block is already attached to 0; pass all blocks of one location to one call of "
        "insert_blocks$"
    )
    with pytest.raises(UserError, match=message):
        insert_blocks(model, [entry])
