"""The official CCNet network as functions of its state dict: the reference for converted models.

Its in-place norm is (x - mean) / sqrt(var + 1e-5) * (|weight| + 1e-5) + bias. It has no
activation in the backbone, and leaky ReLU 0.01 in the head.
"""

import json

import torch
import torch.nn.functional as F

from ccsa.ops.criss_cross.reference import reference_attention

STAGES = {1: (3, 1, 1), 2: (4, 2, 1), 3: (23, 1, 2), 4: (3, 1, 4)}  # blocks, stride, dilation


def narrow_state(file, factor=16, seed=0):
    """Return random float64 weights with the official keys and ``factor`` times fewer channels."""
    generator = torch.Generator().manual_seed(seed)

    def values(key, shape):
        size = [n // factor if n >= 64 else n for n in shape]
        x = torch.randn(size, generator=generator, dtype=torch.float64)
        if key.endswith("running_var"):
            return x.abs() + 0.5
        if len(size) == 4:
            return x / x[0].numel() ** 0.5
        return 0.5 * x  # weights of norms have both signs

    return {key: values(key, shape) for key, shape in json.loads(file.read_text())}


def conv(state, key, x, **keywords):
    weight = state[f"{key}.weight"]
    return F.conv2d(x, weight, state.get(f"{key}.bias"), **keywords)


def norm(state, key, x):
    mean, var, weight, bias = (
        state[f"{key}.{name}"][:, None, None]
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * (weight.abs() + 1e-5) + bias


def block(state, key, x, stride, dilation):
    y = norm(state, f"{key}.bn1", conv(state, f"{key}.conv1", x)).relu()
    keywords = {"stride": stride, "padding": dilation, "dilation": dilation}
    y = norm(state, f"{key}.bn2", conv(state, f"{key}.conv2", y, **keywords)).relu()
    y = norm(state, f"{key}.bn3", conv(state, f"{key}.conv3", y))
    if f"{key}.downsample.0.weight" in state:
        x = conv(state, f"{key}.downsample.0", x, stride=stride)
        x = norm(state, f"{key}.downsample.1", x)
    return (x + y).relu()


def layer(state, key, x):
    """Apply a 3x3 convolution and the in-place norm with its default activation."""
    x = norm(state, f"{key}.1", conv(state, f"{key}.0", x, padding=1))
    return F.leaky_relu(x, 0.01)


def forward(state, x, recurrence=2):
    """Return res5, logits and auxiliary logits of normalized images (N, 3, H, W)."""
    for i in (1, 2, 3):
        x = conv(state, f"conv{i}", x, stride=2 if i == 1 else 1, padding=1)
        x = norm(state, f"bn{i}", x).relu()
    x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    for stage, (blocks, stride, dilation) in STAGES.items():
        for i in range(blocks):
            x = block(state, f"layer{stage}.{i}", x, stride if i == 0 else 1, dilation)
        if stage == 3:
            auxiliary = conv(state, "dsn.3", layer(state, "dsn", x))
    y = layer(state, "head.conva", x)
    for _ in range(recurrence):
        maps = (conv(state, f"head.cca.{name}_conv", y) for name in ("query", "key", "value"))
        y = state["head.cca.gamma"] * reference_attention(*maps) + y
    y = layer(state, "head.bottleneck", torch.cat([x, layer(state, "head.convb", y)], 1))
    return {"res5": x, "logits": conv(state, "head.bottleneck.3", y), "aux_logits": auxiliary}
