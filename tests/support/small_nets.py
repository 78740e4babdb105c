"""A network of three layers for tests of checkpoints."""

import torch
from torch import nn


def net(width=4, seed=0):
    """Return the network with random weights."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, width, 1), nn.BatchNorm2d(width), nn.Conv2d(width, 2, 1))


def weights(model):
    """Return a copy of the state dict."""
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(a, b):
    """Return whether two state dicts are equal."""
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)
