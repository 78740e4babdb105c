"""The moving average of the weights."""

import copy
from types import SimpleNamespace

import torch
from torch import nn

from ccsa.checkpoint import Checkpointer
from ccsa.engine.model_average import FILE, MovingAverage


def hook_for(model, folder, decay):
    hook = MovingAverage(decay)
    checkpointer = Checkpointer(model, str(folder))
    hook.trainer = SimpleNamespace(checkpointer=checkpointer, iter=4, max_iter=4)
    return hook


def train(model, hook, seeds):
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += torch.randn(parameter.shape, generator=generator)
            model[1].running_mean += seed
            model[1].num_batches_tracked += 1
        hook.after_step()


def test_the_average_follows_its_definition_and_is_written(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    hook = hook_for(model, tmp_path, 0.25)
    hook.before_train()
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    for update, seed in enumerate(range(4)):
        train(model, hook, [seed])
        # torch's AveragedModel copies the weights in the first update.
        decay = 0 if update == 0 else min(0.25, (1 + update) / (10 + update))
        for key, value in model.state_dict().items():
            if value.is_floating_point():
                expected[key] = decay * expected[key] + (1 - decay) * value
    averaged = hook.model.state_dict()
    for key, value in expected.items():
        if value.is_floating_point():
            assert torch.allclose(averaged[key], value, atol=1e-6)
    assert averaged["1.num_batches_tracked"] == model[1].num_batches_tracked == 4
    assert not torch.allclose(averaged["0.weight"], model[0].weight)
    hook.after_train()
    other = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    Checkpointer(other).load(str(tmp_path / f"{FILE}.pth"))
    assert all(torch.equal(other.state_dict()[key], averaged[key]) for key in averaged)
    assert not (tmp_path / "last_checkpoint").exists()  # --resume continues from the weights


def test_a_resumed_average_equals_an_uninterrupted_one(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    resumed_model = copy.deepcopy(model)
    whole = hook_for(model, tmp_path, 0.9)
    train(model, whole, range(6))
    first = hook_for(resumed_model, tmp_path, 0.9)
    train(resumed_model, first, range(3))
    second = hook_for(resumed_model, tmp_path, 0.9)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    second.before_train()
    train(resumed_model, second, range(3, 6))
    states = whole.model.state_dict(), second.model.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
