"""Slow computations of the context blocks from their own weights, for comparison in tests."""

import itertools
import math

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
    """Return the block with weights that make each of its parts matter."""
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
    """Build a block of ``FORMS``."""
    name, keywords, _ = FORMS[form]
    return filled(build_block(name, C, **keywords), gamma).to(dtype)


def image(size, batch=2, channels=C, dtype=torch.float64, seed=0):
    """Return random features (batch, channels, *size)."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64)
    return x.to(dtype)


def image_for(form, batch=2, dtype=torch.float64):
    """Return random features for a block of ``FORMS``."""
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
    """Compute attention of each position u to the positions p with ``sees(u, p)``, one by one."""
    positions = list(itertools.product(*(range(n) for n in q.shape[2:])))
    out = torch.zeros_like(v)
    for u in positions:
        seen = [p for p in positions if sees(u, p)]
        scores = torch.stack([(q[(..., *u)] * k[(..., *p)]).sum(1) for p in seen], -1)  # (B, P)
        values = torch.stack([v[(..., *p)] for p in seen], -1)  # (B, C, P)
        out[(..., *u)] = (scores.softmax(-1)[:, None] * values).sum(-1)
    return out


def on_cross(u, p):
    """Return whether p is on the cross of u."""
    return sum(a != b for a, b in zip(u, p, strict=True)) <= 1


def slow_pool(x, factor):
    """Return the means over squares of side ``factor``; those at the border cover fewer pixels."""
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
    """Resize to ``size`` with aligned pixel centers."""
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
