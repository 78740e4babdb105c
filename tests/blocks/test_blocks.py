"""Every block compared with a slow computation from its own weights, with gamma != 0, because with
gamma = 0 any block is an identity."""

import json

import pytest
import torch
from support.slow_blocks import FORMS, GATED, SIZES, C, filled, image, image_for, make, slow
from torch import nn

from ccsa.blocks import (
    CrissCross,
    GatedBlock,
    NonLocal,
    SqueezeAttention,
    SqueezeExcitation,
    build_block,
)
from ccsa.ops import use_backend

WITH_GRADIENTS_OR_WITHOUT = pytest.mark.parametrize("gradients", [True, False])


def assert_near(got, wanted, tolerance):
    """Check that the largest error is small relative to the largest value."""
    assert got.shape == wanted.shape
    error = (got.detach().double() - wanted).abs().max() / wanted.abs().max()
    assert error <= tolerance, error.item()


# Values.


@pytest.mark.parametrize(("form", "size"), [(f, s) for f in FORMS for s in SIZES[FORMS[f][2]]])
@WITH_GRADIENTS_OR_WITHOUT
def test_values(form, size, gradients):
    block, x = make(form), image(size)
    with torch.set_grad_enabled(gradients):
        y = block(x)
    assert_near(y, slow(block, x), 1e-12)
    assert not torch.allclose(y, x, atol=1e-2)


@pytest.mark.parametrize("form", FORMS)
def test_a_single_image_in_training_and_in_evaluation(form):
    block, x = make(form), image_for(form, batch=1)
    expected = slow(block, x)
    assert_near(block.train()(x), expected, 1e-12)
    assert_near(block.eval()(x), expected, 1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("batch", [0, 2])
def test_an_empty_batch_trains(form, batch):
    block, x = make(form).train(), image_for(form, batch).requires_grad_()
    with torch.no_grad():
        assert block(x).shape == x.shape
    y = block(x)
    y.sum().backward()
    assert y.shape == x.shape and x.grad.shape == x.shape
    grads = [p.grad for p in block.parameters() if p.grad is not None]
    assert all(torch.isfinite(g).all() for g in grads)
    if batch == 0:
        assert grads and all((g == 0).all() for g in grads)
    else:
        assert len(grads) == len(list(block.parameters()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 4e-2), (torch.float16, 5e-3)],
    ids=str,
)
@WITH_GRADIENTS_OR_WITHOUT
def test_types(form, dtype, tolerance, gradients):
    block = make(form)
    block = block.half() if dtype == torch.float16 else block.to(dtype)
    x = image_for(form, dtype=dtype)
    with torch.set_grad_enabled(gradients):
        y = block(x)
    assert y.dtype == dtype
    assert_near(y, slow(block, x), tolerance)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("half_input", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.bfloat16, 4e-2), (torch.float16, 5e-3)], ids=str
)
def test_autocast_keeps_the_type_of_the_input(form, half_input, dtype, tolerance):
    input_type = dtype if half_input else torch.float32
    block, x = make(form, dtype=torch.float32), image_for(form, dtype=input_type)
    for gradients in (False, True):
        with torch.autocast("cpu", dtype), torch.set_grad_enabled(gradients):
            y = block(x)
        assert y.dtype == input_type
        assert_near(y, slow(block, x), tolerance)
    y.float().sum().backward()
    for name, p in block.named_parameters():
        assert p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all(), name


@pytest.mark.parametrize("form", GATED)
@pytest.mark.parametrize("channels_last", [False, True])
@WITH_GRADIENTS_OR_WITHOUT
def test_memory_format_is_kept(form, channels_last, gradients):
    block, x = make(form), image_for(form)
    kind = torch.contiguous_format
    if channels_last:
        kind = torch.channels_last_3d if FORMS[form][2] == 3 else torch.channels_last
    with torch.set_grad_enabled(gradients):
        y = block.to(memory_format=kind)(x.contiguous(memory_format=kind))
    assert y.is_contiguous(memory_format=kind)
    assert_near(y, slow(block, x), 1e-12)


@pytest.mark.parametrize("form", FORMS)
@WITH_GRADIENTS_OR_WITHOUT
def test_every_block_keeps_the_contract_of_its_base_class(form, gradients):
    """The output is x + gamma * context(x), or context(x) without gamma, ``recurrence`` times."""
    block, x = make(form), image_for(form)
    assert isinstance(block, GatedBlock) and isinstance(block.recurrence, int)
    with torch.set_grad_enabled(gradients):
        context = block.context(x)
        expected = context if block.gamma is None else x + block.gamma * context
        assert_near(block.gate(x), expected, 1e-12)
        for _ in range(block.recurrence - 1):
            expected = expected + block.gamma * block.context(expected)
        assert_near(block(x), expected, 1e-12)


def test_a_block_without_context_is_reported_by_name():
    class Nothing(GatedBlock):
        pass

    with pytest.raises(NotImplementedError, match="Nothing must implement"):
        Nothing()(image((2, 3)))


@pytest.mark.parametrize("form", [f for f in FORMS if f not in GATED])
def test_bare_forms_take_channels_last_maps(form):
    block, x = make(form), image_for(form)
    y = block.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    assert_near(y, slow(block, x), 1e-12)


@pytest.mark.parametrize("form", GATED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gamma_zero_changes_no_bit(form, dtype):
    assert build_block(FORMS[form][0], C).gamma.item() == 0
    block, x = make(form, gamma=0.0, dtype=dtype), image_for(form, dtype=dtype)
    assert torch.equal(block(x), x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(block(x.float()), x.float())


@pytest.mark.parametrize("form", FORMS)
def test_the_input_is_not_written_to(form):
    block, x = make(form), image_for(form)
    before = x.clone()
    block(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("form", GATED)
def test_the_gate_learns_from_zero_and_alone(form):
    block, x = make(form, gamma=0.0), image_for(form)
    weights = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
    (block(x) * weights).sum().backward()
    assert block.gamma.grad.abs() > 1e-3
    others = [p.grad for name, p in block.named_parameters() if name != "gamma"]
    assert all(grad is None or (grad == 0).all() for grad in others)


@pytest.mark.parametrize("form", FORMS)
def test_every_parameter_learns(form):
    block, x = make(form), image_for(form)
    weights = torch.linspace(-1, 1, x.numel(), dtype=x.dtype).reshape(x.shape)
    (block(x) * weights).sum().backward()
    for name, p in block.named_parameters():
        # A bias of the keys moves all scores of a position alike: softmax does not see it.
        if name in ("key_conv.bias", "phi.bias"):
            assert p.grad.abs().max() < 1e-12, name
        else:
            assert p.grad.abs().max() > 1e-6, name


@pytest.mark.parametrize("form", ["cc", "sa", "se", "nl"])
def test_gradients_are_those_of_finite_differences(form):
    block, x = make(form), image((3, 2), batch=1).requires_grad_()
    parameters = dict(block.named_parameters())

    def run(x, *values):
        return torch.func.functional_call(block, dict(zip(parameters, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(run, (x, *parameters.values()), fast_mode=True)


@pytest.mark.parametrize("form", ["cc", "cc_3d"])
def test_trace_with_gradients_or_without(form):
    block, x = make(form).eval(), image_for(form)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            traced = torch.jit.trace(block, x)
            assert_near(traced(x), slow(block, x), 1e-12)


@pytest.mark.parametrize("form", ["cc", "cc_3d", "sa", "sa_bare", "se", "nl", "nl_ccnet"])
def test_compile_without_graph_breaks(form):
    block, x = make(form), image_for(form).requires_grad_()
    torch._dynamo.reset()
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    results = []
    for run in (compiled, block):
        block.zero_grad()
        y = run(x)
        grads = torch.autograd.grad(y.square().sum(), [x, *block.parameters()])
        results.append((y, *grads))
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


# CrissCross.


def test_criss_cross_has_the_keys_and_the_size_of_the_official_module():
    state = CrissCross(512).state_dict()
    convs = ("query_conv", "key_conv", "value_conv")
    assert set(state) == {f"{c}.{leaf}" for c in convs for leaf in ("weight", "bias")} | {"gamma"}
    assert sum(value.numel() for value in state.values()) == 328_321


def test_the_official_attention_module_loads(vectors):
    keys = dict(json.loads((vectors / "ccnet_official_keys.json").read_text()))
    prefix = "head.cca."
    official = {k.removeprefix(prefix): shape for k, shape in keys.items() if k.startswith(prefix)}
    generator = torch.Generator().manual_seed(0)
    state = {k: torch.randn(shape, generator=generator) for k, shape in official.items()}
    block = CrissCross(512)
    block.load_state_dict(state, strict=True)
    assert {k: list(v.shape) for k, v in block.state_dict().items()} == official
    assert all(torch.equal(v, state[k]) for k, v in block.state_dict().items())


@pytest.mark.parametrize("dims", [2, 3])
def test_loops_of_criss_cross_share_their_weights(dims):
    x = image(SIZES[dims][0])
    once = filled(CrissCross(C, recurrence=1, reduction=2, dims=dims)).double()
    blocks = {r: CrissCross(C, recurrence=r, reduction=2, dims=dims).double() for r in (0, 2, 3)}
    for block in blocks.values():
        block.load_state_dict(once.state_dict())
    assert torch.equal(blocks[0](x), x)
    assert torch.equal(blocks[2](x), once(once(x)))
    assert torch.equal(blocks[3](x), once(once(once(x))))
    assert not torch.allclose(once(x), once(once(x)))


def test_loops_computed_again_give_the_same_gradients_and_keep_less():
    kept = {}
    grads = {}
    for checkpoint in (False, True):
        block = filled(CrissCross(C, recurrence=2, reduction=2, checkpoint=checkpoint)).double()
        x = image((5, 7)).requires_grad_()
        saved = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda t, to=saved: to.append(t) or t, lambda t: t
        ):
            y = block(x)
        y.square().sum().backward()
        kept[checkpoint] = sum(t.numel() for t in saved)
        grads[checkpoint] = [x.grad, *(p.grad for p in block.parameters())]
    assert all(map(torch.equal, grads[True], grads[False]))
    assert kept[True] <= 2 * x.numel() + 1 < kept[False]


def test_loops_computed_again_take_the_backend_of_the_first_time():
    block = filled(CrissCross(C, recurrence=2, reduction=2, checkpoint=True)).double()
    x = image((5, 7)).requires_grad_()
    with use_backend("reference"):
        y = block(x)
    (got,) = torch.autograd.grad(y.square().sum(), x)
    (wanted,) = torch.autograd.grad(block(x).square().sum(), x)
    torch.testing.assert_close(got, wanted)


def test_two_loops_reach_the_whole_map_and_one_only_the_cross():
    for recurrence, reached in ((1, 5 + 7 - 1), (2, 5 * 7)):
        x = image((5, 7), batch=1).requires_grad_()
        block = filled(CrissCross(C, recurrence=recurrence, reduction=2)).double()
        block(x)[0, :, 1, 2].sum().backward()
        assert (x.grad.abs().sum(1) > 0).sum() == reached


def test_reduction_beyond_the_channels_leaves_one():
    assert CrissCross(4, reduction=8).query_conv.out_channels == 1
    assert NonLocal(4, reduction=8).theta.out_channels == 1
    assert SqueezeExcitation(4, reduction=16).fc1.out_features == 1
    block = filled(SqueezeAttention(2, reduction=4)).double()
    assert block.main[0].out_channels == 1
    x = image((3, 4), channels=2)
    assert_near(block(x), slow(block, x), 1e-12)


# NonLocal.


def test_non_local_in_the_form_of_ccnet_has_as_many_parameters_as_criss_cross():
    block = NonLocal(512, reduction=8, value_reduction=1, out_conv=False)
    assert sum(p.numel() for p in block.parameters()) == 328_321
    assert {key.split(".")[0] for key in block.state_dict()} == {"theta", "phi", "g", "gamma"}


def test_non_local_reductions_set_the_widths():
    block = NonLocal(16, reduction=4)
    assert (block.theta.out_channels, block.phi.out_channels, block.g.out_channels) == (4, 4, 4)
    block = NonLocal(16, reduction=8, value_reduction=2)
    assert (block.theta.out_channels, block.g.out_channels) == (2, 8)
    assert (block.out.in_channels, block.out.out_channels) == (8, 16)


# SqueezeAttention, keyword by keyword.


@pytest.mark.parametrize(
    "keywords",
    [
        {"pool": 1},
        {"pool": 3},
        {"pool": 8},  # beyond the map: one mean of all
        {"reduction": 1},
        {"reduction": 8},
        {"kernel_size": 1},
        {"kernel_size": 5},
        {"norm": "BN"},
        {"norm": "none"},
        {"activation": "none"},
        {"activation": "leaky_relu"},
        {"activation": "silu"},
        {"activation": "sigmoid", "attention_activation": "silu"},
        {"attention_activation": "relu"},
        {"attention_activation": "sigmoid"},
        {"upsample": "nearest"},
        {"out_channels": 6, "residual": False},
        {"out_channels": 6, "residual": False, "pool": 4, "kernel_size": 1, "norm": "none"},
    ],
    ids=str,
)
def test_squeeze_attention_keywords(keywords):
    default = filled(SqueezeAttention(C)).double()
    for size in ((5, 7), (3, 4), (1, 2)):
        block, x = filled(SqueezeAttention(C, **keywords)).double(), image(size)
        y = block(x)
        assert y.shape[1] == keywords.get("out_channels", C)
        assert_near(y, slow(block, x), 1e-11)
        if size == (5, 7) and y.shape == x.shape:
            assert not torch.allclose(y, default(x), atol=1e-3)


def test_squeeze_attention_activations_are_those_asked_for():
    block = SqueezeAttention(C, activation="silu", attention_activation="sigmoid")
    kinds = [[type(path[i]) for i in (2, 5)] for path in (block.main, block.attention)]
    assert kinds == [[nn.SiLU, nn.SiLU], [nn.SiLU, nn.Sigmoid]]
    block = SqueezeAttention(C)
    kinds = [[type(path[i]) for i in (2, 5)] for path in (block.main, block.attention)]
    assert kinds == [[nn.ReLU, nn.ReLU], [nn.ReLU, nn.Identity]]


def test_squeeze_attention_layers_are_those_asked_for():
    block = SqueezeAttention(64, reduction=8, kernel_size=5, norm="SyncBN")
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in convs] == [(64, 8), (8, 64)] * 2
    assert {m.kernel_size for m in convs} == {(5, 5)} and {m.bias for m in convs} == {None}
    assert sum(isinstance(m, nn.SyncBatchNorm) for m in block.modules()) == 4
    plain = SqueezeAttention(64, norm="none")
    assert all(m.bias is not None for m in plain.modules() if isinstance(m, nn.Conv2d))


def test_group_norm_has_something_to_normalise_by_on_one_pixel():
    block, x = make("sa_bare"), image((1, 1), batch=1)
    assert block(x).std() > 1e-2  # groups of one value would give the same for every input
    assert not torch.allclose(block(x), block(image((1, 1), batch=1, seed=1)))
