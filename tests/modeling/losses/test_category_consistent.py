"""The category consistent loss compared with loops over pixels and classes; its gradient."""

import pytest
import torch

from ccsa.modeling.losses.category_consistent import CategoryConsistentLoss, consistency_terms

IGNORE = 255


def slow_terms(rows, labels, delta_v=0.5, delta_d=1.5):
    """Return l_var, l_dis and l_reg, computed with loops as the equations are printed."""
    classes = sorted(set(labels.tolist()))
    means = {c: torch.stack([h for h, y in zip(rows, labels, strict=True) if y == c]).mean(0)
             for c in classes}  # fmt: skip
    l_var = 0.0
    for c in classes:
        members = [h for h, y in zip(rows, labels, strict=True) if y == c]
        inner = 0.0
        for h in members:
            d = (means[c] - h).norm().item()
            if d > delta_d:
                inner += d - delta_d + (delta_d - delta_v) ** 2
            elif d > delta_v:
                inner += (d - delta_v) ** 2
        l_var += inner / len(members)
    l_dis = 0.0
    for a in classes:
        for b in classes:
            gap = (means[a] - means[b]).norm().item()
            if a != b and gap <= 2 * delta_d:
                l_dis += (2 * delta_d - gap) ** 2
    number = len(classes)
    l_dis = l_dis / (number * (number - 1)) if number > 1 else 0.0
    return l_var / number, l_dis, sum(m.norm().item() for m in means.values()) / number


def sample(number=4, points=60, width=3, seed=0, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    # The labels are not consecutive.
    labels = torch.randint(0, number, (points,), generator=generator) * 7
    centres = torch.randn(number * 7, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(points, width, generator=generator, dtype=torch.float64)
    return centres[labels] + spread * noise, labels


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0])
def test_terms_are_the_loops(number, spread):
    rows, labels = sample(number, spread=spread)
    found = [term.item() for term in consistency_terms(rows, labels)]
    assert found == pytest.approx(slow_terms(rows, labels), rel=1e-12)


def test_every_piece_of_phi_occurs():
    rows, labels = sample(3, spread=1.0)
    means = torch.stack([rows[labels == c].mean(0) for c in labels])
    d = (means - rows).norm(dim=1)
    assert (d < 0.5).any()
    assert ((d > 0.5) & (d < 1.5)).any()
    assert (d > 1.5).any()


def test_gradients():
    rows, labels = sample(3, points=20)
    rows.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: consistency_terms(x, labels), (rows,))


def test_a_class_of_one_pixel_and_equal_means_have_finite_gradients():
    rows = torch.zeros(3, 2, requires_grad=True)  # all distances are 0
    sum(consistency_terms(rows, torch.tensor([0, 1, 2]))).backward()
    assert torch.isfinite(rows.grad).all()


def image_sample():
    torch.manual_seed(1)
    labels = torch.randint(0, 3, (2, 12, 20))
    labels[0, :, :7] = IGNORE
    labels[1, :6] = 9  # only in one image
    return torch.randn(2, 6, 3, 5) * 2, labels


def loss_and_rows(scope, features, labels):
    loss = CategoryConsistentLoss(6, channels=0, weights=(1, 1, 1), scope=scope)
    small = labels[:, 2::4, 2::4]  # the center of each 4x4 cell
    rows, flat = features.permute(0, 2, 3, 1).reshape(2, -1, 6), small.reshape(2, -1)
    return loss(features, labels), rows, flat


def test_scope_batch():
    losses, rows, labels = loss_and_rows("batch", *image_sample())
    valid = labels != IGNORE
    wanted = slow_terms(rows[valid], labels[valid])
    assert [v.item() for v in losses.values()] == pytest.approx(wanted, rel=1e-5)
    assert list(losses) == ["loss_ccl_var", "loss_ccl_dis", "loss_ccl_reg"]


def test_scope_image():
    losses, rows, labels = loss_and_rows("image", *image_sample())
    each = []
    for n in range(2):
        valid = labels[n] != IGNORE
        each.append(slow_terms(rows[n][valid], labels[n][valid]))
    wanted = [sum(terms) / 2 for terms in zip(*each, strict=True)]
    assert [v.item() for v in losses.values()] == pytest.approx(wanted, rel=1e-5)


def test_image_scope_leaves_out_unlabelled_images():
    features, labels = image_sample()
    labels[1] = IGNORE
    both = CategoryConsistentLoss(6, channels=0, scope="image")(features, labels)
    alone = CategoryConsistentLoss(6, channels=0, scope="image")(features[:1], labels[:1])
    for name in both:
        torch.testing.assert_close(both[name], alone[name])


def test_reduction_and_weights():
    features, labels = image_sample()
    loss = CategoryConsistentLoss(6, weights=(2.0, 3.0, 0.5))
    assert loss.reduction.out_channels == 16
    plain = CategoryConsistentLoss(6, channels=0, weights=(1.0, 1.0, 1.0))
    found, bare = loss(features, labels), plain(loss.reduction(features), labels)
    for name, weight in zip(bare, (2.0, 3.0, 0.5), strict=True):
        torch.testing.assert_close(found[name], weight * bare[name])


@pytest.mark.parametrize("scope", ["batch", "image"])
@pytest.mark.parametrize("batch", [0, 2])
def test_nothing_labelled_gives_zeros_with_zero_gradients(scope, batch):
    features = torch.randn(batch, 6, 3, 5, requires_grad=True)
    loss = CategoryConsistentLoss(6, scope=scope)
    losses = loss(features, torch.full((batch, 12, 20), IGNORE))
    sum(losses.values()).backward()
    assert [v.item() for v in losses.values()] == [0, 0, 0]
    assert torch.equal(features.grad, torch.zeros_like(features))
    assert not loss.reduction.weight.grad.any()


def test_one_class_has_no_distance_term():
    features = torch.randn(2, 6, 3, 5)
    losses = CategoryConsistentLoss(6)(features, torch.zeros(2, 12, 20, dtype=torch.long))
    assert losses["loss_ccl_dis"] == 0
    assert losses["loss_ccl_var"] > 0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weights": (1.0, 1.0)}, "three"),
        ({"weights": (1.0, -1.0, 0.0)}, "none below 0"),
        ({"deltas": (2.0, 1.0)}, "delta_v <= delta_d"),
        ({"scope": "dataset"}, "batch, image"),
        ({"channels": -1}, "channels"),
    ],
)
def test_wrong_settings(wrong, message):
    with pytest.raises(ValueError, match=message):
        CategoryConsistentLoss(6, **wrong)
