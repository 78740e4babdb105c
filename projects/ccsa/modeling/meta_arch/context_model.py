"""ContextModel: any registered meta-architecture, with context blocks attached."""

import logging

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY
from torch import nn

from ccsa.errors import UserError
from ccsa.insertion import insert_blocks, placement_table
from ccsa.modeling.pixels import with_pixel_constants

logger = logging.getLogger(__name__)


@META_ARCH_REGISTRY.register()
def ContextModel(cfg: CfgNode) -> nn.Module:  # named like the meta-architectures beside it
    """Build ``MODEL.CONTEXT.META_ARCHITECTURE`` and attach ``MODEL.CONTEXT.BLOCKS`` to it.

    The model itself is returned, not a wrapper, so its keys and methods are those of plain
    Detectron2. It scales pixels as :func:`ccsa.modeling.pixels.pixel_constants` says. The blocks
    come after it is built: ``FREEZE_AT`` and frozen norms of the backbone do not reach them.

    Raises:
        UserError: an unknown meta-architecture, pixels that nothing says how to scale.
        ValueError: a line of ``BLOCKS`` that does not fit the model.
    """
    name = cfg.MODEL.CONTEXT.META_ARCHITECTURE
    if name == "ContextModel" or name not in META_ARCH_REGISTRY:
        known = sorted(n for n, _ in META_ARCH_REGISTRY if n != "ContextModel")
        raise UserError(
            f"MODEL.CONTEXT.META_ARCHITECTURE '{name}' is not one of {', '.join(known)}"
        )
    model = META_ARCH_REGISTRY.get(name)(with_pixel_constants(cfg))
    placements = insert_blocks(model, cfg.MODEL.CONTEXT.BLOCKS)
    if placements:
        logger.info("Context blocks:\n%s", placement_table(placements))
    return model
