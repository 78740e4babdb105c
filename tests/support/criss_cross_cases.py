"""Operands of criss-cross attention, and the results to compare it with."""

import torch

from ccsa.ops import criss_cross_attention, criss_cross_weights


def operands(size, batch=2, ck=3, cv=4, dtype=torch.float64, scale=1.0, seed=0, device="cpu"):
    """Return query, key and value that require gradients."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(batch, c, *size, generator=generator, dtype=torch.float64) * scale)
        .to(device, dtype)
        .requires_grad_()
        for c in (ck, ck, cv)
    ]


def gradients(operands, backend=None, scale=1.0, attention=criss_cross_attention):
    """Return the output and the gradients of a weighted sum of it."""
    out = attention(*operands, **({"backend": backend} if backend else {}))
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    return out, torch.autograd.grad(out, operands, (grad * scale).to(out))


def exact(operands, scale=1.0):
    """Return the result of :func:`gradients` for these operands by the reference in float64."""
    exact = [x.detach().double().requires_grad_() for x in operands]
    return gradients(exact, "reference", scale)


def errors(got, expected):
    """Return the largest error of output and gradients, each relative to its largest value."""
    pairs = zip((got[0], *got[1]), (expected[0], *expected[1]), strict=True)
    return [((g.double() - e).abs().max() / e.abs().max()).item() for g, e in pairs]


def as_layout(x, layout):
    """Return the same values in another memory layout."""
    if layout == "channels_last":
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    elif layout == "transposed":
        x = x.transpose(-1, -2).contiguous().transpose(-1, -2)
    elif layout == "sliced":
        x = torch.cat([x, x], 1)[:, : x.shape[1]]
    elif layout == "sliced channels_last":
        x = as_layout(torch.cat([x, x], 1), "channels_last")[:, : x.shape[1]]
    return x.detach().requires_grad_()


def line_wise_gradients(q, k, v, grad):
    """Return wrong dQ and dK of feature maps (B, C, H, W).

    They treat the log-sum-exp of the other axis as a constant: the mistake of a backward that sums
    P * dP over one axis instead of the cross.
    """
    weights = criss_cross_weights(q, k)
    h = q.shape[2]
    along = {  # axis: weights, their einsum letters, the position met
        3: (weights[..., h:], "bhwj", "bchj"),
        2: (weights[..., :h], "bhwi", "bciw"),
    }
    dq, dk = torch.zeros_like(q), torch.zeros_like(k)
    for w, pair, met in along.values():
        dp = torch.einsum(f"bchw,{met}->{pair}", grad, v)
        ds = w * (dp - (w * dp).sum(-1, keepdim=True))
        dq += torch.einsum(f"{pair},{met}->bchw", ds, k)
        dk += torch.einsum(f"{pair},bchw->{met}", ds, q)
    return dq, dk
