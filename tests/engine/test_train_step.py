"""One training step against plain PyTorch, and losses and gradients that are not finite."""

import copy

import pytest
import torch
from detectron2.utils.comm import create_local_process_group
from detectron2.utils.events import EventStorage
from torch import nn

from ccsa.engine.train_step import MAX_SKIPPED, TrainStep, divide, not_finite_message
from ccsa.errors import UserError


class Net(nn.Module):
    """A model whose loss is a mean over images, with batch norm if ``norm`` is set."""

    def __init__(self, norm=False):
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.norm = nn.BatchNorm1d(2) if norm else nn.Identity()
        self.dtypes = []

    def forward(self, batch):
        out = self.layer(torch.stack([item["x"] for item in batch]))
        self.dtypes.append(out.dtype)
        out = self.norm(out).float()
        return {"loss_a": out.square().mean(), "loss_b": out.abs().mean()}


def batch_of(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        {"x": torch.randn(4, generator=generator), "file_name": f"{i}.jpg"} for i in range(count)
    ]


def run(model, batches, lr=0.1, **options):
    """Take one step for each batch; return the step and the values that were logged."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    step = TrainStep(model, batches, optimizer, **options)
    with EventStorage(0) as storage:
        for step.iter in range(len(batches)):
            storage.iter = step.iter
            step.run_step()
    return step, storage


def reference(model, batches, lr=0.1):
    """The weights after the same steps, written out."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    for batch in batches:
        optimizer.zero_grad()
        sum(model(batch).values()).backward()
        norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        optimizer.step()
    return norm.item()


def same(first, second, tolerance=0.0):
    values = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    return all(torch.allclose(a, b, rtol=tolerance, atol=tolerance) for a, b in values)


def test_a_step_is_that_of_plain_pytorch_and_logs_the_gradient_norm():
    torch.manual_seed(0)
    model = Net(norm=True)
    expected = copy.deepcopy(model)
    batches = [batch_of(6, seed) for seed in range(3)]
    _, storage = run(model, batches)
    norm = reference(expected, batches)
    assert same(model, expected)
    assert storage.latest()["grad_norm"] == (pytest.approx(norm, rel=1e-6), 2)
    assert {"total_loss", "loss_a", "loss_b"} <= set(storage.latest())


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_accumulated_gradients_equal_those_of_the_whole_batch(parts):
    """Also for parts of different sizes."""
    torch.manual_seed(0)
    model = Net().double()
    expected = copy.deepcopy(model)
    batches = [
        [{**item, "x": item["x"].double()} for item in batch_of(5, seed)] for seed in range(3)
    ]
    whole = run(expected, batches)[1].latest()
    logged = run(model, batches, parts=parts)[1].latest()
    assert same(model, expected, 1e-12)
    assert logged["loss_a"][0] == pytest.approx(whole["loss_a"][0], rel=1e-6)
    assert logged["grad_norm"][0] == pytest.approx(whole["grad_norm"][0], rel=1e-6)


def test_a_batch_is_divided_into_parts_that_are_not_empty():
    assert divide([1, 2, 3], 5) == [[1], [2], [3]]
    assert [len(part) for part in divide(list(range(11)), 4)] == [2, 3, 3, 3]


def test_mixed_precision_on_the_cpu_is_bfloat16():
    torch.manual_seed(0)
    model = Net()
    expected = copy.deepcopy(model)
    batches = [batch_of(8)]
    run(model, batches, precision=torch.bfloat16)
    reference(expected, batches)
    assert model.dtypes == [torch.bfloat16] and model.layer.weight.dtype == torch.float32
    assert same(model, expected, 5e-3) and not same(model, expected)


@pytest.mark.parametrize("parts", [1, 2])
def test_a_loss_that_is_not_finite_changes_neither_weights_nor_buffers(parts):
    torch.manual_seed(0)
    model = Net(norm=True)
    good, bad = batch_of(4), batch_of(4, 1)
    bad[3]["x"] = torch.full((4,), float("nan"))
    expected = copy.deepcopy(model)
    run(expected, [good], parts=parts)
    with pytest.raises(UserError) as raised:
        run(model, [good, bad], parts=parts)
    assert same(model, expected)
    message = str(raised.value)
    assert "in iteration 1" in message and "loss_a nan" in message
    assert all(f"{i}.jpg" in message for i in range(4)) and "SOLVER.BASE_LR" in message


class Root(nn.Module):
    """A finite loss with an infinite gradient: the square root at 0."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        return {"loss": self.weight.abs().sqrt().sum()}


def test_a_gradient_that_is_not_finite_stops_as_well():
    model = Root()
    with pytest.raises(UserError, match=r"norm of the gradient is (nan|inf) in iteration 0"):
        run(model, [batch_of(1)])
    assert model.weight.item() == 0


def test_loss_scaling_may_skip_updates_but_not_twenty_in_a_row():
    model = Root()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)
    step, _ = run(model, [batch_of(1)] * (MAX_SKIPPED - 1), scaler=scaler)
    assert step.skipped == MAX_SKIPPED - 1 and model.weight.item() == 0
    restored = TrainStep(model, [], step.optimizer, scaler=torch.amp.GradScaler("cpu"))
    restored.load_state_dict({**step.state_dict(), "iteration": 0})
    assert restored.skipped == step.skipped
    assert restored.grad_scaler.get_scale() == scaler.get_scale()
    with pytest.raises(UserError, match=f"{MAX_SKIPPED} iterations in a row"):
        run(model, [batch_of(1)] * MAX_SKIPPED, scaler=torch.amp.GradScaler("cpu"))


def test_the_message_names_a_limited_number_of_images():
    reports = [({"loss": float("inf")}, [f"{i}.jpg" for i in range(20)])]
    message = not_finite_message(7, reports, 1.0)
    assert "7.jpg and 12 more" in message and "8.jpg" not in message


def _rank(rank, folder):
    """Take a good and a bad step in one of two processes; only one process has the bad image."""
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2
    )
    create_local_process_group(2)
    torch.manual_seed(0)
    model = torch.nn.parallel.DistributedDataParallel(Net())
    good, bad = batch_of(4, rank), batch_of(4, 2 + rank)
    if rank == 1:
        bad[0]["x"] = torch.full((4,), float("inf"))
    try:
        run(model, [good, bad], parts=2)
    except UserError as error:
        torch.save((str(error), model.module.state_dict()), f"{folder}/{rank}.pth")


def test_every_process_stops_in_the_same_iteration(tmp_path):
    torch.multiprocessing.spawn(_rank, (str(tmp_path),), nprocs=2)
    (first, weights), (second, others) = (torch.load(tmp_path / f"{r}.pth") for r in range(2))
    assert first == second and "iteration 1" in first and "loss_a" in first
    assert all(torch.equal(weights[key], others[key]) for key in weights)
    torch.manual_seed(0)
    expected = Net()
    reference(expected, [batch_of(4, 0) + batch_of(4, 1)])
    assert all(torch.allclose(weights[k], v, atol=1e-6) for k, v in expected.state_dict().items())


class DivergedNet(Net):
    """A model that finds out during the forward pass that it has diverged, as Detectron2's RPN."""

    def forward(self, batch):
        super().forward(batch)
        raise FloatingPointError("Predicted boxes or scores contain Inf/NaN.")


def test_a_model_that_diverges_in_the_forward_pass_names_the_images_and_keeps_its_buffers():
    model = DivergedNet(norm=True)
    before = copy.deepcopy(model)
    with pytest.raises(UserError, match=r"diverged.*iteration 0 .*0\.jpg, 1\.jpg.*BASE_LR"):
        run(model, [batch_of(2)])
    assert same(model, before)
