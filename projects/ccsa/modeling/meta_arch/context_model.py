"""ContextModel: any registered meta-architecture with context blocks attached."""

import logging

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

from ccsa.errors import UserError
from ccsa.insertion import insert_blocks, placement_table
from ccsa.modeling.pixel_normalization import resolve_pixel_constants

logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
def ContextModel(cfg: CfgNode) -> nn.Module:  # named like a class, because it is used like one
    """Build ``MODEL.CONTEXT.META_ARCHITECTURE`` and attach ``MODEL.CONTEXT.BLOCKS`` to it.

    The returned model is not a wrapper, so its keys and methods are those of plain Detectron2. Its
    pixel constants are those of :func:`ccsa.modeling.pixel_normalization.pixel_constants`. The
    blocks are attached after the model has been built, so ``FREEZE_AT`` and frozen norms of the
    backbone do not affect them.

    Raises:
        UserError: an unknown meta-architecture, an entry of ``BLOCKS`` that does not fit the model,
            or pixel constants that are not known.
    """
    name = cfg.MODEL.CONTEXT.META_ARCHITECTURE
    if name == "ContextModel" or name not in META_ARCH_REGISTRY:
        known = sorted(n for n, _ in META_ARCH_REGISTRY if n != "ContextModel")
        raise UserError(
            f"MODEL.CONTEXT.META_ARCHITECTURE '{name}' is not one of {', '.join(known)}"
        )
    model = META_ARCH_REGISTRY.get(name)(resolve_pixel_constants(cfg))
    placements = insert_blocks(model, cfg.MODEL.CONTEXT.BLOCKS)
    if placements:
        logger.info("Context blocks:\n%s", placement_table(placements))
    return model
