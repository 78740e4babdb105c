"""Every block against a slow computation from its own weights, with gamma away from 0: at 0 any
block is an identity."""

import itertools
import json
import math

import pytest
import torch
from torch import nn

from ccsa.blocks import CrissCross, NonLocal, SqueezeAttention, SqueezeExcitation, build_block

C = 8
FORMS = {  # name: block, keywords, spatial axes
    "cc": ("CrissCross", {"reduction": 2}, 2),
    "cc_once": ("CrissCross", {"recurrence": 1, "reduction": 4}, 2),
    "cc_3d": ("CrissCross", {"reduction": 2, "dims": 3}, 3),
    "sa": ("SqueezeAttention", {}, 2),
    "sa_bare": ("SqueezeAttention", {"residual": False}, 2),
    "se": ("SqueezeExcitation", {"reduction": 4}, 2),
    "se_3d": ("SqueezeExcitation", {"reduction": 4}, 3),
    "se_bare": ("SqueezeExcitation", {"reduction": 4, "residual": False}, 2),
    "nl": ("NonLocal", {}, 2),
    "nl_3d": ("NonLocal", {"value_reduction": 4, "dims": 3}, 3),
    "nl_ccnet": ("NonLocal", {"reduction": 4, "value_reduction": 1, "out_conv": False}, 2),
    "nl_bare": ("NonLocal", {"residual": False}, 2),
    "nl_ccnet_bare": (
        "NonLocal",
        {"reduction": 4, "value_reduction": 1, "out_conv": False, "residual": False},
        2,
    ),
}
GATED = [form for form in FORMS if "bare" not in form]
SIZES = {
    2: [(5, 7), (6, 4), (1, 6), (6, 1), (1, 1)],
    3: [(3, 4, 5), (1, 4, 1), (2, 1, 3), (1, 1, 1)],
}


def filled(block, gamma=0.6):
    """The block with weights that make every one of its parts count."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, p in block.named_parameters():
            if name == "gamma":
                p.fill_(gamma)
            elif p.dim() > 1:
                p.normal_(0, 1.5 / math.sqrt(p[0].numel()), generator=generator)
            else:
                p.uniform_(-0.5, 1.0, generator=generator)
    return block


def make(form, gamma=0.6, dtype=torch.float64):
    name, keywords, _ = FORMS[form]
    return filled(build_block(name, C, **keywords), gamma).to(dtype)


def image(size, batch=2, channels=C, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)
    return x.to(dtype)


def image_for(form, batch=2, dtype=torch.float64):
    return image(SIZES[FORMS[form][2]][0], batch, dtype=dtype)


# The slow computations. All are float64; x is (B, C, *S).


def slow_conv(layer, x):
    w = layer.weight.detach().double()
    out = torch.zeros(x.shape[0], w.shape[0], *x.shape[2:], dtype=torch.float64)
    reach = w.shape[-1] // 2
    size = x.shape[2:]
    for tap in itertools.product(*(range(k) for k in w.shape[2:])):
        for u in itertools.product(*(range(n) for n in size)):
            p = tuple(a + t - reach for a, t in zip(u, tap, strict=True))
            if all(0 <= a < n for a, n in zip(p, size, strict=True)):
                weights = w[(..., *tap)]
                out[(..., *u)] += x[(..., *p)] @ weights.T
    if layer.bias is not None:
        out += layer.bias.detach().double().reshape(-1, *[1] * len(size))
    return out


def slow_attention(q, k, v, sees):
    """Softmax of q.k over the positions that ``sees(u, p)`` lets u see, position by position."""
    positions = list(itertools.product(*(range(n) for n in q.shape[2:])))
    out = torch.zeros_like(v)
    for u in positions:
        seen = [p for p in positions if sees(u, p)]
        scores = torch.stack([(q[(..., *u)] * k[(..., *p)]).sum(1) for p in seen], -1)  # (B, P)
        values = torch.stack([v[(..., *p)] for p in seen], -1)  # (B, C, P)
        out[(..., *u)] = (scores.softmax(-1)[:, None] * values).sum(-1)
    return out


def on_cross(u, p):
    return sum(a != b for a, b in zip(u, p, strict=True)) <= 1


def slow_pool(x, factor):
    """Means over squares of ``factor``, those at the edge over what is there of them."""
    h, w = (math.ceil(n / factor) for n in x.shape[2:])
    cells = [
        [
            x[:, :, i * factor : (i + 1) * factor, j * factor : (j + 1) * factor].mean((2, 3))
            for j in range(w)
        ]
        for i in range(h)
    ]
    return torch.stack([torch.stack(row, -1) for row in cells], -2)


def slow_resize(x, size, mode):
    """To ``size``, pixel centres on pixel centres."""
    out = torch.zeros(*x.shape[:2], *size, dtype=x.dtype)
    for u in itertools.product(*(range(n) for n in size)):
        corners = []  # per axis: [(index, weight), ...]
        for i, new, old in zip(u, size, x.shape[2:], strict=True):
            if mode == "nearest":
                corners.append([(i * old // new, 1.0)])
                continue
            at = max(0.0, (i + 0.5) * old / new - 0.5)
            low = int(at)
            corners.append([(low, 1 - (at - low)), (min(low + 1, old - 1), at - low)])
        for (i, a), (j, b) in itertools.product(*corners):
            out[:, :, u[0], u[1]] += a * b * x[:, :, i, j]
    return out


def slow_norm(layer, x):
    if isinstance(layer, nn.Identity):
        return x
    if isinstance(layer, nn.GroupNorm):
        y = x.reshape(x.shape[0], layer.num_groups, -1)
    else:  # statistics of the batch, per channel
        y = x.transpose(0, 1).flatten(1)
    y = (y - y.mean(-1, keepdim=True)) / (y.var(-1, keepdim=True, correction=0) + layer.eps).sqrt()
    if not isinstance(layer, nn.GroupNorm):
        y = y.reshape(x.shape[1], x.shape[0], *x.shape[2:]).transpose(0, 1)
    scale, shift = (p.detach().double().reshape(-1, 1, 1) for p in (layer.weight, layer.bias))
    return y.reshape(x.shape) * scale + shift


def slow_activation(layer, x):
    sigmoid = 1 / (1 + torch.exp(-x))
    return {
        nn.Identity: x,
        nn.ReLU: x.clamp(min=0),
        nn.LeakyReLU: torch.where(x > 0, x, 0.01 * x),
        nn.SiLU: x * sigmoid,
        nn.Sigmoid: sigmoid,
    }[type(layer)]


def slow_context(block, x):
    if isinstance(block, CrissCross):
        q, k, v = (slow_conv(f, x) for f in (block.query_conv, block.key_conv, block.value_conv))
        return slow_attention(q, k, v, on_cross)
    if isinstance(block, NonLocal):
        q, k, v = (slow_conv(f, x) for f in (block.theta, block.phi, block.g))
        y = slow_attention(q, k, v, lambda u, p: True)
        return y if block.out is None else slow_conv(block.out, y)
    if isinstance(block, SqueezeExcitation):
        z = x.flatten(2).mean(-1)
        z = z @ block.fc1.weight.detach().double().T + block.fc1.bias.detach().double()
        z = z.clamp(min=0) @ block.fc2.weight.detach().double().T
        z = 1 / (1 + torch.exp(-(z + block.fc2.bias.detach().double())))
        return x * z.reshape(*z.shape, *[1] * (x.dim() - 2))
    assert isinstance(block, SqueezeAttention)

    def path(layers, y):
        y = slow_activation(layers[2], slow_norm(layers[1], slow_conv(layers[0], y)))
        return slow_activation(layers[5], slow_norm(layers[4], slow_conv(layers[3], y)))

    attention = path(block.attention, slow_pool(x, block.pool))
    attention = slow_resize(attention, x.shape[2:], block.upsample)
    return attention * path(block.main, x) + attention


def slow(block, x):
    x = x.detach().double()
    if block.gamma is None:
        return slow_context(block, x)
    gamma = block.gamma.detach().double()
    for _ in range(getattr(block, "recurrence", 1)):
        x = x + gamma * slow_context(block, x)
    return x


def assert_near(got, wanted, tolerance):
    """Errors are measured against the largest value."""
    assert got.shape == wanted.shape
    error = (got.detach().double() - wanted).abs().max() / wanted.abs().max()
    assert error <= tolerance, error.item()


# Values.


@pytest.mark.parametrize(("form", "size"), [(f, s) for f in FORMS for s in SIZES[FORMS[f][2]]])
def test_values(form, size):
    block, x = make(form), image(size)
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
def test_types(form, dtype, tolerance):
    block = make(form)
    block = block.half() if dtype == torch.float16 else block.to(dtype)
    x = image_for(form, dtype=dtype)
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
    with torch.autocast("cpu", dtype):
        y = block(x)
    assert y.dtype == input_type
    assert_near(y, slow(block, x), tolerance)
    y.float().sum().backward()
    for name, p in block.named_parameters():
        assert p.grad.dtype == torch.float32 and torch.isfinite(p.grad).all(), name


@pytest.mark.parametrize("form", GATED)
@pytest.mark.parametrize("channels_last", [False, True])
def test_memory_format_is_kept(form, channels_last):
    block, x = make(form), image_for(form)
    kind = torch.contiguous_format
    if channels_last:
        kind = torch.channels_last_3d if FORMS[form][2] == 3 else torch.channels_last
    y = block.to(memory_format=kind)(x.contiguous(memory_format=kind))
    assert y.is_contiguous(memory_format=kind)
    assert_near(y, slow(block, x), 1e-12)


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
