"""What a block adds to a training step of a whole detector."""

import argparse

import torch
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import nn

from ccsa.benchmark.attention import Options
from ccsa.benchmark.report import Section
from ccsa.engine.setup import setup_cfg

CONFIGS = ("mask_rcnn.yaml", "ccnet_mask_rcnn.yaml")
OBJECTS = 8


def whole_model(options: Options, configs, size: tuple[int, int] = (800, 1333)) -> Section:
    """A training step, forward, backward and update, of Mask R-CNN R50-FPN without and with RCCA in
    res4.

    Args:
        configs: folder of the configurations.
        size: of the one image, which is noise with a few objects on it.
    """
    calls = {}
    batch = [_image(size)]
    for file in CONFIGS:
        words = ["MODEL.DEVICE", str(options.device), "OUTPUT_DIR", "unused"]
        cfg = setup_cfg(argparse.Namespace(config_file=str(configs / file), opts=words))
        calls[file] = _step(cfg, batch)
    options.say("whole model")
    times = options.times(calls)
    plain, with_block = (times[file] for file in CONFIGS)
    ratio = with_block.median / plain.median
    rows = [
        [f"configs/{file}", f"{t.median:.2f} ± {t.spread:.2f} s", f"{t.median / plain.median:.3f}"]
        for file, t in times.items()
    ]
    notes = [
        f"one image of {size[0]} x {size[1]}, {OBJECTS} objects, float32, SGD; random weights"
        " under frozen norms, as ImageNet weights cost the same",
        f"RCCA (R = 2, right before the last block of res4) makes a step {ratio:.3f} times as long",
    ]
    records = [{"config": file, **t._asdict()} for file, t in times.items()]
    return Section(
        "model", "Mask R-CNN, a training step", ["", "step", "ratio"], rows, notes, records
    )


def _step(cfg, batch: list[dict]):
    torch.manual_seed(0)
    model = build_model(cfg).train()
    if cfg.MODEL.CHANNELS_LAST:
        model.to(memory_format=torch.channels_last)
    _tame(model)
    optimizer = torch.optim.SGD((p for p in model.parameters() if p.requires_grad), lr=1e-6)

    def call() -> None:
        with EventStorage():
            loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return call


def _tame(model: nn.Module) -> None:
    """Random weights under norms that do not normalise grow from block to block: the last norm of
    each residual branch is closed. That changes values alone, not the work."""
    for name, module in model.named_modules():
        if name.endswith("conv3.norm") and isinstance(module, FrozenBatchNorm2d):
            module.weight.zero_()


def _image(size: tuple[int, int]) -> dict:
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
