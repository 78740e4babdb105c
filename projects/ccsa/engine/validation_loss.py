"""The losses of a model on validation sets, without augmentation and without an update."""

import contextlib
from collections import defaultdict
from collections.abc import Iterator

import torch
from detectron2.config import CfgNode
from detectron2.data import build_detection_test_loader
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ccsa.data.loaders import build_validation_mapper, load_records
from ccsa.inference.precision import autocast
from ccsa.utils.random_states import preserved_random_states

TASK = "validation_loss"
_SEED = 0  # of the regions that a detector samples


@torch.no_grad()
def validation_losses(cfg: CfgNode, model: nn.Module, name: str) -> dict[str, float]:
    """Return the mean of every loss over the images of a dataset, and their sum as ``total``.

    The losses are those of training, but images are resized as in evaluation, batch norm uses its
    running statistics, and nothing is dropped. A detector samples the same regions in each call.
    Each image is a batch of its own, so that the value does not depend on ``IMS_PER_BATCH``. Every
    process of a job reads its share of the images, and all of them return the same values.

    Args:
        cfg: the configuration of the run.
        model: the model, which may be in training mode or not; its mode is restored.
        name: a registered dataset with annotations.

    Example:
        >>> validation_losses(cfg, model, "digits_val")["total"]  # doctest: +SKIP
        0.8231
    """
    mapper = build_validation_mapper(cfg)
    loader = build_detection_test_loader(
        load_records(cfg, name), mapper=mapper, num_workers=cfg.DATALOADER.NUM_WORKERS
    )
    sums: dict[str, float] = defaultdict(float)
    images = 0
    # Heads record statistics of their samples, which must not be mixed with those of training.
    with preserved_random_states(), _training_without_updates(model), EventStorage(), autocast(cfg):
        torch.manual_seed(_SEED)
        for batch in loader:
            for loss, value in model(batch).items():
                sums[loss] += float(value)
            images += len(batch)
    shares = comm.all_gather((dict(sums), images))
    count = sum(images for _, images in shares)
    names = dict.fromkeys(name for values, _ in shares for name in values)
    means = {key: sum(values.get(key, 0.0) for values, _ in shares) / count for key in names}
    return {"total": sum(means.values()), **means}


@contextlib.contextmanager
def _training_without_updates(model: nn.Module) -> Iterator[None]:
    """Set the training mode, in which a model returns losses, but keep batch norm and dropout in
    evaluation mode."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.train()
        for module in modes:
            if isinstance(module, _BatchNorm | _DropoutNd):
                module.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
