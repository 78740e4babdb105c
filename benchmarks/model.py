"""The cost that a block adds to a training step of a whole detector."""

import argparse
from functools import partial
from pathlib import Path

import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn

from benchmarks.attention import Options
from benchmarks.cases import Call, step
from benchmarks.report import Section
from ccsa.analysis import count_flops
from ccsa.engine.setup import setup_cfg
from ccsa.engine.trainer import Trainer
from ccsa.insertion import context_blocks

CONFIGS = ("mask_rcnn.yaml", "ccnet_mask_rcnn.yaml", "nonlocal_mask_rcnn.yaml")
OBJECTS = 8


def whole_model(options: Options, configs: Path, size: tuple[int, int] = (800, 1333)) -> Section:
    """Measure a training step (forward, backward and update) of Mask R-CNN R50-FPN without a block,
    with RCCA, and with a non-local block in res4.

    Args:
        options: how to measure.
        configs: folder of the configurations.
        size: height and width of the single image, which is noise with a few objects.
    """
    options.log("whole model")
    batch = [noise_image(size)]
    models = {file: _model(configs / file, options) for file in CONFIGS}
    inputs = {file: _block_inputs(model) for file, model in models.items()}
    calls = {file: training_step(model, batch) for file, model in models.items()}
    work: dict[str, int] = {}

    def turn(file: str) -> None:
        if file in work:
            calls[file]()
        else:
            work[file] = count_flops(calls[file], ())

    times, memory = options.times_and_peaks({file: partial(turn, file) for file in calls})
    baseline = times[CONFIGS[0]].median
    block_times = {
        file: options.times({"": _block_step(block, x, options)})[""]
        for file, inputs_of in inputs.items()
        for block, x in inputs_of.items()
    }
    rows, records = [], []
    for file, timing in times.items():
        block = block_times.get(file)
        rows.append(
            [
                *(f"configs/{file}", f"{timing.median:.2f} ± {timing.spread:.2f} s"),
                f"{timing.median / baseline:.3f}",
                f"{block.median:.2f} ± {block.spread:.2f} s" if block else "-",
                f"{1 + block.median / baseline:.3f}" if block else "-",
                *(f"{memory[file] / 2**30:.2f} GiB", f"{work[file] / 1e9:.0f}"),
            ]
        )
        record = {"config": file, "memory": memory[file], "multiply_adds": work[file]}
        record["block"] = block and block._asdict()
        records.append({**record, **timing._asdict()})
    notes = [
        f"one image of {size[0]} x {size[1]}, {OBJECTS} objects, float32, SGD; random weights with "
        "frozen norms, which cost the same as ImageNet weights",
        "ratio: step / step of the baseline; RCCA has R = 2; the blocks are located right before "
        "the last residual block of res4",
        "block: only its forward and backward pass, on a feature map of the size that it gets in "
        "the model; ratio with block: (baseline step + block) / baseline step, which other load on "
        "the machine affects less than the ratio of two long steps",
        "this non-local block uses PyTorch's fused attention, which keeps no weights in memory",
    ]
    headers = ["", "step", "ratio", "block", "ratio with block", "peak without weights"]
    headers.append("G multiply-adds")
    return Section("model", "Training step of Mask R-CNN", headers, rows, notes, records)


def _block_inputs(model: nn.Module) -> dict[nn.Module, Tensor]:
    """Return a dict that the first forward pass of the model fills: each block, and an empty tensor
    with the shape and the layout of its input."""
    inputs_of: dict[nn.Module, Tensor] = {}

    def record(block: nn.Module, inputs: tuple[Tensor]) -> None:
        if block not in inputs_of:
            inputs_of[block] = torch.empty_like(inputs[0], device="meta")

    for _, block in context_blocks(model):
        block.register_forward_pre_hook(record)
    return inputs_of


def _block_step(block: nn.Module, template: Tensor, options: Options) -> Call:
    x, grad = (torch.randn_like(template, device=options.device) for _ in range(2))
    return step(block, grad, x)


def _model(config: Path, options: Options) -> nn.Module:
    words = ["MODEL.DEVICE", str(options.device), "OUTPUT_DIR", "unused"]
    cfg = setup_cfg(argparse.Namespace(config_file=str(config), opts=words))
    torch.manual_seed(0)
    model = Trainer.build_model(cfg).train()
    _close_residual_branches(model)
    return model


def training_step(model: nn.Module, batch: list[dict]) -> Call:
    """Return a call of a forward and backward pass and an update."""
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1e-6)

    def call() -> None:
        with EventStorage():
            loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return call


def _close_residual_branches(model: nn.Module) -> None:
    """Set the last norm of each residual branch to 0.

    With random weights and frozen norms, activations would grow from block to block. This changes
    only values, not the amount of work.
    """
    for name, module in model.named_modules():
        if name.endswith("conv3.norm") and isinstance(module, FrozenBatchNorm2d):
            module.weight.zero_()


def noise_image(size: tuple[int, int]) -> dict:
    """Return an input of noise with a few objects."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    image = torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)
    corner = torch.rand(OBJECTS, 2, generator=generator) * torch.tensor([width, height]) * 0.6
    boxes = torch.cat([corner, corner + torch.tensor([width, height]) * 0.3], 1)
    masks = torch.zeros(OBJECTS, height, width, dtype=torch.bool)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
        mask[y1:y2, x1:x2] = True
    instances = Instances(
        size, gt_boxes=Boxes(boxes), gt_classes=torch.arange(OBJECTS), gt_masks=BitMasks(masks)
    )
    return {"image": image, "height": height, "width": width, "instances": instances}
