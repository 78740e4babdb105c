"""Compare attention maps with the dense definition of criss-cross attention."""

import pytest
import torch
from detectron2.layers import ShapeSpec
from torch import nn

from ccsa import CrissCross, SqueezeAttention
from ccsa.analysis import attended_by, attending_to, attention_maps, dense_matrix
from ccsa.errors import UserError
from ccsa.modeling.semantic_heads.ccnet import CCNetHead
from ccsa.modeling.semantic_heads.sanet import SANetHead
from ccsa.modeling.semantic_heads.video_ccnet import VideoCCNetHead
from ccsa.ops.criss_cross.reference import cross_mask

SIZES = [(4, 6), (1, 5), (5, 1), (3, 2, 4)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def random_block(size, recurrence=2, channels=8):
    block = CrissCross(channels, recurrence=recurrence, reduction=2, dims=len(size))
    nn.init.constant_(block.gamma, 0.7)
    return block


def dense(block, x):
    """Return the dense matrices (B, N, N) and inputs (B, C, N) of every application."""
    mask, matrices, inputs = cross_mask(tuple(x.shape[2:])), [], [x.flatten(2)]
    for _ in range(block.recurrence):
        y = inputs[-1]
        q, k, v = (
            conv.weight.flatten(1) @ y + conv.bias[:, None]
            for conv in (block.query_conv, block.key_conv, block.value_conv)
        )
        scores = (q.transpose(1, 2) @ k).masked_fill(~mask, -torch.inf)
        matrices.append(scores.softmax(-1))
        inputs.append(y + block.gamma * v @ matrices[-1].transpose(1, 2))
    return matrices, inputs


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("recurrence", [0, 1, 2, 3])
def test_weights_and_norms_equal_the_dense_definition(size, recurrence):
    block, x = random_block(size, recurrence), torch.randn(2, 8, *size)
    with torch.no_grad():
        matrices, inputs = dense(block, x)
    maps = attention_maps(nn.Sequential(nn.Identity(), block), x)
    (found,) = maps.criss_cross["1"]
    assert len(found.weights) == recurrence and found.gamma == pytest.approx(0.7)
    for weights, matrix in zip(found.weights, matrices, strict=True):
        assert weights.shape == (2, *size, sum(size))
        torch.testing.assert_close(dense_matrix(weights), matrix)
    for step in range(recurrence):
        added = inputs[step + 1] - inputs[step]
        assert_norm(found.input_norms[step], inputs[step])
        assert_norm(found.added_norms[step], added)
    assert_norm(found.contribution_norm, inputs[-1] - inputs[0])
    torch.testing.assert_close(maps.outputs, inputs[-1].reshape(x.shape))


def assert_norm(found, x):
    expected = x.square().sum(1).sqrt().reshape(found.shape)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gamma", [None, 0.7, -2.0])
def test_composition_equals_dense_products(size, gamma):
    x = torch.randn(2, 8, *size)
    weights = attention_maps(random_block(size), x).criss_cross[""][0].weights
    first, second = (dense_matrix(w) for w in weights)
    if gamma is not None:
        identity = torch.eye(first.shape[-1])
        first, second = (identity + gamma * a for a in (first, second))
    product = second @ first  # the first application is next to the input
    vector = torch.randn(2, *size)
    row = (vector.reshape(2, 1, -1) @ product).reshape(vector.shape)
    column = (product @ vector.reshape(2, -1, 1)).reshape(vector.shape)
    torch.testing.assert_close(attended_by(weights, vector, gamma), row, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attending_to(weights, vector, gamma), column, rtol=1e-4, atol=1e-5)


def test_positions_of_another_size_are_rejected():
    weights = attention_maps(random_block((4, 6)), torch.randn(1, 8, 4, 6)).criss_cross[""][0]
    with pytest.raises(UserError, match="same sizes"):
        attended_by(weights.weights, torch.zeros(1, 6, 4))


def test_a_block_that_runs_twice_has_two_maps():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = random_block((4, 6))

        def forward(self, x):
            return self.block(self.block(x)[..., :3])

    found = attention_maps(Twice(), torch.randn(1, 8, 4, 6)).criss_cross["block"]
    assert [m.weights[0].shape for m in found] == [(1, 4, 6, 10), (1, 4, 3, 7)]


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(random_block((4, 6)), nn.Dropout())
    attention_maps(model, torch.randn(1, 8, 4, 6))
    assert model.training and model[1].training
    assert not model[0]._forward_hooks
    assert model[0].gamma.grad is None


@pytest.mark.parametrize("residual", [True, False])
def test_the_branches_of_squeeze_and_attention_give_its_output(residual):
    block = SqueezeAttention(8, residual=residual)
    if residual:
        nn.init.constant_(block.gamma, 0.7)
    x = torch.randn(2, 8, 5, 7)
    maps = attention_maps(block, x)
    (found,) = maps.squeeze_attention[""]
    torch.testing.assert_close(found.product, found.attention * found.main)
    context = found.attention * found.main + found.attention
    expected = x + 0.7 * context if residual else context
    torch.testing.assert_close(maps.outputs, expected)
    assert (found.gamma is None) != residual
    assert_norm(found.contribution_norm, expected - x if residual else expected)
    assert_norm(found.input_norm, x)


class Segmentor(nn.Module):
    """A head that is called as DenseSegmentor calls it."""

    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, features):
        return self.head.layers(features)


STAGES = {f"res{i}": ShapeSpec(channels=8, stride=2 ** (i - 1)) for i in (2, 3, 4, 5)}


def features(batch=2):
    return {n: torch.randn(batch, 8, 64 // s.stride, 48 // s.stride) for n, s in STAGES.items()}


def test_stages_of_sanet_that_inference_skips_are_recorded():
    head = SANetHead(
        STAGES, num_classes=5, channels=16, stage_channels=16, norm="BN", predictor_std=0.5
    )
    model, x = Segmentor(head).eval(), features()
    expected = model(x)
    calls = []
    handle = head.stages["res2"].register_forward_hook(lambda *_: calls.append(1))
    model(x)
    assert not calls  # inference skips it
    handle.remove()
    maps = attention_maps(model, x)
    assert sorted(maps.squeeze_attention) == [f"head.stages.{name}.1" for name in sorted(STAGES)]
    for name, (found,) in zip(sorted(STAGES), maps.squeeze_attention.values(), strict=True):
        assert found.attention.shape == (2, 16, *x[name].shape[2:])
    scores = maps.class_scores["head"]
    assert set(scores) == {"prediction", "mask", "dense", "category", *STAGES}
    torch.testing.assert_close(maps.outputs, expected)
    torch.testing.assert_close(scores["prediction"], scores["dense"])
    stages = sum(scores[name] for name in STAGES) + head.mask.bias[:, None, None]
    torch.testing.assert_close(scores["mask"], stages.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.layers(x), expected)
    assert "layers" not in vars(head)


def test_the_auxiliary_scores_of_ccnet():
    head = CCNetHead(STAGES, num_classes=5, channels=16, norm="BN", aux_channels=8)
    x = features()
    scores = attention_maps(Segmentor(head), x).class_scores["head"]
    head.eval()
    torch.testing.assert_close(scores["prediction"], head.layers(x).detach())
    torch.testing.assert_close(scores["auxiliary"], head.auxiliary(x["res4"]).detach())


def test_clips_have_weights_over_frames_and_scores_of_the_labeled_frame():
    head = VideoCCNetHead(
        STAGES, num_classes=5, channels=16, norm="BN", aux_channels=8, frames=3, labelled=1
    )
    maps = attention_maps(Segmentor(head), features(2 * 3))
    (found,) = maps.criss_cross["head.attention"]
    height, width = 64 // 16, 48 // 16
    assert [w.shape for w in found.weights] == 2 * [(2, 3, height, width, 3 + height + width)]
    assert maps.class_scores["head"]["auxiliary"].shape[0] == 2
