"""Cross entropy, OHEM and the categorical loss compared with loops and with SciPy, which the
official OHEM uses."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ccsa.modeling.layers import resize_labels
from ccsa.modeling.losses.cross_entropy import (
    CrossEntropy,
    OhemCrossEntropy,
    cross_entropy,
    presence_loss,
)

IGNORE = 255


def sample(n=2, c=4, h=45, w=70, seed=0, scale=3.0):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, c, h, w, generator=generator) * scale
    # The logits are smooth, like upsampled ones.
    logits = F.avg_pool2d(logits, 5, 1, 2, count_include_pad=False) * 4
    labels = torch.randint(0, c, (n, h, w), generator=generator)
    labels[torch.rand(n, h, w, generator=generator) < 0.2] = IGNORE
    return logits, labels


def scipy_bar(probabilities, labels, threshold, min_kept):
    """Return the cutoff of the official code: scipy.ndimage.zoom, then the k-th smallest."""
    from scipy.ndimage import zoom

    probabilities = zoom(probabilities.numpy(), (1, 1, 1 / 8, 1 / 8), order=1)
    labels = zoom(labels.numpy(), (1, 1 / 8, 1 / 8), order=0)
    own = sorted(
        float(probabilities[n, labels[n, i, j], i, j])
        for n, i, j in np.ndindex(*labels.shape)
        if labels[n, i, j] != IGNORE
    )
    kept = min_kept // 64
    if kept >= len(own):
        return 1.0
    return max(threshold, own[kept - 1]) if kept else threshold


@pytest.mark.parametrize("size", [(1, 1), (3, 9), (12, 20), (33, 65), (97, 64), (129, 257)])
def test_labels_are_sampled_as_scipy_does(size):
    from scipy.ndimage import zoom

    labels = torch.arange(size[0] * size[1]).reshape(1, *size)
    wanted = zoom(labels.numpy(), (1, 1 / 8, 1 / 8), order=0)
    if wanted.size:
        found = resize_labels(labels, wanted.shape[1:], align_corners=True)
        assert torch.equal(found, torch.from_numpy(wanted))


def test_labels_without_aligned_corners_come_from_the_middle():
    labels = torch.arange(9).reshape(1, 1, 9)
    assert resize_labels(labels, (1, 3), align_corners=False).tolist() == [[[1, 4, 7]]]


@pytest.mark.parametrize("min_kept", [0, 64, 1500, 4000, 10**6])
@pytest.mark.parametrize("threshold", [0.05, 0.7])
def test_ohem_is_the_official_one(min_kept, threshold):
    logits, labels = sample()
    probabilities = logits.softmax(1)
    bar = scipy_bar(probabilities, labels, threshold, min_kept)
    loss = OhemCrossEntropy(IGNORE, threshold, min_kept)
    assert loss.cutoff(probabilities, labels).item() == pytest.approx(bar, abs=1e-6)
    terms = []
    for n, i, j in np.ndindex(*labels.shape):
        if labels[n, i, j] != IGNORE:
            p = probabilities[n, labels[n, i, j], i, j].item()
            if p <= bar:
                terms.append(-math.log(p))
    assert terms
    assert loss(logits, labels).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_ohem_bar_lies_between():
    """Use a setting in which the k-th smallest probability is the cutoff."""
    logits, labels = sample()
    bar = OhemCrossEntropy(IGNORE, 0.05, 4000).cutoff(logits.softmax(1), labels)
    assert 0.06 < bar < 0.99


def test_ohem_gradient_reaches_hard_pixels_only():
    logits, labels = sample()
    logits.requires_grad_()
    OhemCrossEntropy(IGNORE, 0.5, 0)(logits, labels).backward()
    own = logits.softmax(1).gather(1, labels.where(labels != IGNORE, 0)[:, None])[:, 0]
    hard = (own <= 0.5) & (labels != IGNORE)
    assert torch.equal(logits.grad.abs().sum(1) > 0, hard)


def test_cross_entropy_is_torchs():
    logits, labels = sample()
    wanted = F.cross_entropy(logits, labels, ignore_index=IGNORE)
    torch.testing.assert_close(CrossEntropy(IGNORE)(logits, labels), wanted)


def test_class_weights_are_torchs_and_keep_the_choice_of_hard_pixels():
    logits, labels = sample()
    weights = [5, 1, 0.5, 2]
    tensor = torch.tensor(weights)
    wanted = F.cross_entropy(logits, labels, tensor, ignore_index=IGNORE)
    torch.testing.assert_close(CrossEntropy(IGNORE, weights)(logits, labels), wanted)
    plain, weighted = (OhemCrossEntropy(IGNORE, 0.5, 0, w) for w in ((), weights))
    own = logits.softmax(1).gather(1, labels.clamp(max=3)[:, None])[:, 0]
    hard = labels.masked_fill(own > 0.5, IGNORE)
    assert 0 < (hard == IGNORE).sum() < hard.numel()
    wanted = F.cross_entropy(logits, hard, tensor, ignore_index=IGNORE)
    torch.testing.assert_close(weighted(logits, labels), wanted)
    assert plain(logits, labels) != weighted(logits, labels)
    assert not weighted.state_dict()  # older checkpoints still load


@pytest.mark.parametrize(
    "criterion",
    [CrossEntropy(IGNORE), OhemCrossEntropy(IGNORE), CrossEntropy(IGNORE, [5, 1, 1])],
)
@pytest.mark.parametrize("batch", [0, 2])
def test_nothing_labelled_gives_zero_with_zero_gradient(criterion, batch):
    logits = torch.randn(batch, 3, 16, 16, requires_grad=True)
    loss = criterion(logits, torch.full((batch, 16, 16), IGNORE))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_one_class():
    logits = torch.randn(1, 1, 16, 16)
    assert OhemCrossEntropy(IGNORE)(logits, torch.zeros(1, 16, 16, dtype=torch.long)) == 0


def test_half_precision_is_summed_in_float32():
    logits, labels = sample(scale=20.0)
    half = cross_entropy(logits.bfloat16(), labels, IGNORE)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, cross_entropy(logits.bfloat16().float(), labels, IGNORE))


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_presence_loss_is_a_loop(reduction):
    logits = torch.randn(3, 5)
    labels = torch.randint(0, 3, (3, 6, 7))
    labels[0, :3] = IGNORE
    labels[2] = IGNORE  # an image without labels
    total = 0.0
    for n in range(2):
        for c in range(5):
            p = torch.sigmoid(logits[n, c]).item()
            total -= math.log(p if (labels[n] == c).any() else 1 - p)
    total /= 2 * (5 if reduction == "mean" else 1)
    assert presence_loss(logits, labels, IGNORE, reduction).item() == pytest.approx(total, rel=1e-5)


def test_presence_loss_with_nothing_labelled():
    logits = torch.randn(2, 5, requires_grad=True)
    loss = presence_loss(logits, torch.full((2, 4, 4), IGNORE), IGNORE)
    loss.backward()
    assert loss.item() == 0
    assert not logits.grad.any()


def test_wrong_settings():
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        OhemCrossEntropy(threshold=1.2)
    with pytest.raises(ValueError, match="min_kept"):
        OhemCrossEntropy(min_kept=-1)
    with pytest.raises(ValueError, match="above 0"):
        CrossEntropy(class_weights=[1, 0])
