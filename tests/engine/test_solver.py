"""Values of the poly schedule and of the learning rates inside and outside the backbone."""

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.projects.deeplab.lr_scheduler import WarmupPolyLR
from detectron2.solver import build_optimizer as build_detectron2_optimizer
from torch import nn

from ccsa import add_ccsa_config
from ccsa.engine import Trainer
from ccsa.engine.solver import build_lr_scheduler, build_optimizer, check_solver
from ccsa.errors import UserError


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupPolyLR"
    cfg.SOLVER.BASE_LR = 0.01
    cfg.SOLVER.MAX_ITER = 100
    cfg.SOLVER.WARMUP_ITERS = 0
    return cfg


@pytest.fixture
def model():
    layers = {"backbone": nn.Conv2d(3, 4, 1), "sem_seg_head": nn.Conv2d(4, 5, 1)}
    layers["sem_seg_head"] = nn.Sequential(layers["sem_seg_head"], nn.BatchNorm2d(5))
    return nn.ModuleDict(layers)


def rates(cfg, model):
    """Return the learning rate of the first group in each iteration, and after the last one."""
    optimizer = Trainer.build_optimizer(cfg, model)
    scheduler = Trainer.build_lr_scheduler(cfg, optimizer)
    values = []
    for _ in range(cfg.SOLVER.MAX_ITER):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return [*values, optimizer.param_groups[0]["lr"]]


def test_poly_falls_by_its_power(cfg, model):
    wanted = [0.01 * (1 - i / 100) ** 0.9 for i in range(101)]
    assert rates(cfg, model) == pytest.approx(wanted)
    cfg.SOLVER.POLY_LR_POWER = 2.0
    assert rates(cfg, model)[50] == pytest.approx(0.01 * 0.25)


def test_warm_up_and_constant_ending(cfg, model):
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_FACTOR = 10, 0.1
    cfg.SOLVER.POLY_LR_CONSTANT_ENDING = 0.05
    values = rates(cfg, model)
    assert values[0] == pytest.approx(0.001)
    assert values[5] == pytest.approx(0.01 * (0.1 * 0.5 + 0.5) * 0.95**0.9)
    assert values[99] == values[100] == pytest.approx(0.0005)


def test_detectron2s_schedules_stay(cfg, model):
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR"
    cfg.SOLVER.STEPS = (60,)
    values = rates(cfg, model)
    assert not isinstance(build_lr_scheduler(cfg, build_optimizer(cfg, model)), WarmupPolyLR)
    assert values[59] == pytest.approx(0.01) and values[60] == pytest.approx(0.001)


def test_a_longer_schedule_takes_over_on_resume(cfg, model):
    optimizer = build_optimizer(cfg, model)
    first = build_lr_scheduler(cfg, optimizer)
    for _ in range(100):
        optimizer.step()
        first.step()
    cfg.SOLVER.MAX_ITER = 200
    optimizer = build_optimizer(cfg, model)
    second = build_lr_scheduler(cfg, optimizer)
    second.load_state_dict(first.state_dict())
    optimizer.step()
    second.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01 * (1 - 101 / 200) ** 0.9)


def by_name(cfg, model, build=build_optimizer):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (group["lr"], group["weight_decay"])
        for group in build(cfg, model).param_groups
        for parameter in group["params"]
    }


def test_a_factor_of_one_is_detectron2s_optimizer(cfg, model):
    assert by_name(cfg, model) == by_name(cfg, model, build_detectron2_optimizer)
    (group,) = {lr for lr, _ in by_name(cfg, model).values()}
    assert group == 0.01


def test_the_head_learns_at_its_own_rate(cfg, model):
    cfg.SOLVER.HEAD_LR_FACTOR, cfg.SOLVER.BIAS_LR_FACTOR = 10.0, 2.0
    cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.WEIGHT_DECAY_NORM = 0.001, 0.0
    assert by_name(cfg, model) == {
        "backbone.weight": (pytest.approx(0.01), 0.001),
        "backbone.bias": (pytest.approx(0.02), 0.001),
        "sem_seg_head.0.weight": (pytest.approx(0.1), 0.001),
        "sem_seg_head.0.bias": (pytest.approx(0.2), 0.001),
        "sem_seg_head.1.weight": (pytest.approx(0.1), 0.0),
        "sem_seg_head.1.bias": (pytest.approx(0.2), 0.0),
    }


def test_the_factor_lasts_through_the_schedule(cfg, model):
    cfg.SOLVER.HEAD_LR_FACTOR = 10.0
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    for _ in range(50):
        optimizer.step()
        scheduler.step()
    rates = [group["lr"] for group in optimizer.param_groups]
    low, high = min(rates), max(rates)
    assert low == pytest.approx(0.01 * 0.5**0.9) and high == pytest.approx(0.1 * 0.5**0.9)


def test_gradients_are_clipped_as_detectron2_does(cfg, model):
    cfg.SOLVER.HEAD_LR_FACTOR = 10.0
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    optimizer = build_optimizer(cfg, model)
    before = model["backbone"].weight.detach().clone()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    optimizer.step()
    decayed = 0.01 * (0.5 + cfg.SOLVER.WEIGHT_DECAY * before)
    assert torch.allclose(model["backbone"].weight, before - decayed)


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [
        ("LR_SCHEDULER_NAME", "Poly", "WarmupPolyLR"),
        ("HEAD_LR_FACTOR", 0.0, "above 0"),
        ("POLY_LR_POWER", -1.0, "above 0"),
    ],
)
def test_a_wrong_setting_is_refused(cfg, key, value, word):
    cfg.SOLVER[key] = value
    with pytest.raises(UserError, match=f"SOLVER.{key}.*{word}"):
        check_solver(cfg)


def groups(optimizer):
    return [
        (group["lr"], group["weight_decay"], [id(p) for p in group["params"]])
        for group in optimizer.param_groups
    ]


@pytest.mark.parametrize("factor", [1.0, 10.0])
def test_adamw_has_the_groups_of_sgd(cfg, model, factor):
    """AdamW uses the learning rates and weight decays of SGD: no decay for norms, a factor for
    heads."""
    cfg.SOLVER.HEAD_LR_FACTOR, cfg.SOLVER.WEIGHT_DECAY_NORM = factor, 0.0
    sgd = build_optimizer(cfg, model)
    cfg.SOLVER.OPTIMIZER = "AdamW"
    adam = build_optimizer(cfg, model)
    assert isinstance(sgd, torch.optim.SGD) and isinstance(adam, torch.optim.AdamW)
    by_parameter = [
        {p: group[:2] for group in groups(optimizer) for p in group[2]} for optimizer in (sgd, adam)
    ]
    assert by_parameter[0] == by_parameter[1]
    assert {lr for lr, _ in by_parameter[1].values()} == {0.01, 0.01 * factor}
    assert {decay for _, decay in by_parameter[1].values()} == {0.0, 0.0001}


def test_unknown_optimizer_is_refused(cfg, model):
    cfg.SOLVER.OPTIMIZER = "Adam"
    for call in (lambda: check_solver(cfg), lambda: build_optimizer(cfg, model)):
        with pytest.raises(
            UserError, match=r"SOLVER.OPTIMIZER must be one of SGD, AdamW, not 'Adam'"
        ):
            call()


def test_more_steps_than_iterations_are_refused(cfg, model):
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupMultiStepLR"
    for end, steps in ((2, (1,)), (1, (60_000, 80_000))):
        cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = end, steps
        build_lr_scheduler(cfg, build_optimizer(cfg, model))
    cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS = 1, (1,)
    with pytest.raises(UserError, match=r"1 steps, too many for SOLVER\.MAX_ITER 1"):
        build_lr_scheduler(cfg, build_optimizer(cfg, model))
