"""Weights of the attention explorer: compression and reduction."""

import pytest
import torch

from ccsa.analysis import attended_by, attending_to, dense_matrix
from ccsa.errors import UserError
from ccsa.ops import criss_cross_weights
from ccsa.report.explorer_data import (
    decoded_weights,
    encoded_map,
    encoded_weights,
    reduced_map,
    reduced_weights,
    reduction_factor,
)


def random_weights(height, width, sharpness=3.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query, key = sharpness * torch.randn(2, 1, 4, height, width, generator=generator)
    return criss_cross_weights(query, key)[0]


@pytest.mark.parametrize("size", [(9, 13), (1, 5), (32, 32)])
@pytest.mark.parametrize("sharpness", [0.0, 3.0])
def test_stored_weights_compose_to_the_dense_product(size, sharpness):
    weights = [random_weights(*size, sharpness, seed).double() for seed in (0, 1)]
    stored = [decoded_weights(encoded_weights(w), w.shape) for w in weights]
    first, second = (dense_matrix(w[None])[0] for w in weights)
    exact = second @ first
    positions = torch.eye(len(exact), dtype=torch.float64).reshape(-1, *size)
    expanded = [w.expand(len(exact), *w.shape) for w in stored]
    torch.testing.assert_close(
        attended_by(expanded, positions).flatten(1), exact, atol=1e-3, rtol=0
    )
    torch.testing.assert_close(
        attending_to(expanded, positions).flatten(1), exact.T, atol=1e-3, rtol=0
    )


def test_the_error_of_a_stored_value_is_half_a_step():
    values = torch.rand(1000, dtype=torch.float64)
    error = (decoded_weights(encoded_weights(values), (1000,)) - values).abs().max()
    assert 0 < error <= 0.5 / 65535 + 1e-12


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan"), float("inf")])
def test_values_that_are_no_weights_are_rejected(bad):
    with pytest.raises(UserError, match="between 0 and 1"):
        encoded_weights(torch.tensor([0.5, bad]))


@pytest.mark.parametrize("values", [torch.tensor([[0.0, 7.0]]), torch.zeros(2, 3)])
def test_a_map_keeps_its_scale(values):
    stored = encoded_map(values)
    decoded = decoded_weights(stored["values"], values.shape) * stored["scale"]
    torch.testing.assert_close(decoded.float(), values)


@pytest.mark.parametrize(("size", "factor"), [((6, 8), 2), ((7, 5), 3), ((4, 4), 1), ((5, 9), 9)])
def test_reduced_weights_equal_the_reduction_of_the_dense_matrix(size, factor):
    weights = random_weights(*size).double()
    matrix = dense_matrix(weights[None])[0].reshape(*size, *size)
    expected = torch.zeros(*(-(-n // factor) for n in size * 2), dtype=torch.float64)
    counts = expected[..., 0, 0] * 0
    for y in range(size[0]):
        for x in range(size[1]):
            counts[y // factor, x // factor] += 1
            for i in range(size[0]):
                for j in range(size[1]):
                    cell = y // factor, x // factor, i // factor, j // factor
                    expected[cell] += matrix[y, x, i, j]
    expected /= counts[..., None, None]
    small = reduced_weights(weights, factor)
    assert small.shape[:2] == counts.shape
    dense = dense_matrix(small[None])[0].reshape(expected.shape)
    torch.testing.assert_close(dense, expected)
    torch.testing.assert_close(small.sum(-1), torch.ones_like(counts))


def test_a_reduced_map_holds_means():
    values = torch.arange(6.0).reshape(2, 3)
    assert reduced_map(values, 2).tolist() == [[2.0, 3.5]]


@pytest.mark.parametrize(("size", "factor"), [((97, 97), 1), ((98, 10), 2), ((128, 256), 3)])
def test_the_reduction_factor_keeps_both_sides_within_the_limit(size, factor):
    assert reduction_factor(size, 97) == factor
