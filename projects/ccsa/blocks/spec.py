"""Block specifications: the ``{block: name, **keywords}`` mappings of configurations.

This is the only parser of such mappings. Semantic heads and :func:`ccsa.insertion.insert_blocks`
use it, so a mistake gives the same message everywhere.
"""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from torch import nn

from ccsa.blocks.layout import Layout, parse_layout
from ccsa.blocks.registry import CONTEXT_BLOCK_REGISTRY, build_block
from ccsa.errors import UserError, shown


class BlockSpec(NamedTuple):
    """A parsed block specification.

    Attributes:
        block: the name of the block in :data:`ccsa.blocks.CONTEXT_BLOCK_REGISTRY`.
        keywords: the block's own keywords.
        at: the dotted path of the module after which the block runs; empty inside a head.
        channels: the number of channels the block is built for, if the specification states it.
        layout: the layout of the output of the module after which the block runs.
    """

    block: str
    keywords: dict[str, Any]
    at: str = ""
    channels: int | None = None
    layout: Layout = Layout()

    def build(self, channels: int) -> nn.Module:
        """Return a new block for feature maps of ``channels`` channels.

        Raises:
            UserError: an unknown block, an unknown keyword, or a value that the block rejects.
        """
        return build_block(self.block, channels, **self.keywords)


def parse_block_spec(spec: Any, *, placed: bool = False) -> BlockSpec:
    """Parse one block specification.

    Args:
        spec: a mapping with ``block`` (a registered name) and the block's own keywords. A
            :class:`BlockSpec` is returned unchanged.
        placed: whether the mapping also has ``at`` (required), ``channels``, ``layout``, ``grid``
            and ``prefix`` (optional), as :func:`ccsa.insertion.insert_blocks` takes them.

    Returns:
        The parsed specification. Whether the block and its keywords exist is checked when the block
        is built.

    Raises:
        UserError: ``spec`` is not a mapping of this form.

    Example:
        >>> spec = parse_block_spec({"block": "CrissCross", "recurrence": 3})
        >>> spec.block, spec.keywords
        ('CrissCross', {'recurrence': 3})
    """
    if isinstance(spec, BlockSpec):
        return spec
    form = "{at: module path, block: name, ...}" if placed else "{block: name, ...}"
    if not (isinstance(spec, Mapping) and all(isinstance(key, str) for key in spec)):
        raise UserError(f"a context block is a mapping {form}, not {shown(spec)}")
    keywords = dict(spec)
    block = keywords.pop("block", None)
    at = keywords.pop("at", "") if placed else ""
    channels = keywords.pop("channels", None) if placed else None
    if not isinstance(block, str) or (placed and not (isinstance(at, str) and at)):
        needed = "'at' (a module path) and 'block' (a name)" if placed else "'block' (a name)"
        raise UserError(
            f"a context block is a mapping {form} and needs {needed}, not {shown(spec)}"
        )
    if channels is not None and (
        isinstance(channels, bool) or not isinstance(channels, int) or channels < 1
    ):
        raise UserError(
            f"'channels' must be a positive integer, not {shown(channels)}: {shown(spec)}"
        )
    if "channels" in keywords:
        raise UserError(
            f"'channels' is set by the head that contains the block: remove it from {shown(spec)}"
        )
    layout = parse_layout(keywords, spec, _own_keywords(block)) if placed else Layout()
    return BlockSpec(block, keywords, at, channels, layout)


def _own_keywords(block: str) -> list[str]:
    """Return the keywords of a registered block; none for an unknown one."""
    if block not in CONTEXT_BLOCK_REGISTRY:
        return []
    return list(inspect.signature(CONTEXT_BLOCK_REGISTRY.get(block)).parameters)[1:]


def build_blocks(channels: int, specs: Iterable[Any]) -> nn.Module:
    """Build the listed blocks as one module that runs them in order.

    Args:
        channels: C of the feature maps, (B, C, *spatial).
        specs: block specifications; see :func:`parse_block_spec`.

    Returns:
        The block itself for one specification, an ``nn.Sequential`` for several, and an
        ``nn.Identity`` for none.

    Raises:
        UserError: a specification that cannot be parsed or built.

    Example:
        >>> build_blocks(64, [{"block": "SqueezeExcitation"}])
        SqueezeExcitation(
          (fc1): Linear(in_features=64, out_features=4, bias=True)
          (fc2): Linear(in_features=4, out_features=64, bias=True)
        )
    """
    blocks = [parse_block_spec(spec).build(channels) for spec in specs]
    if len(blocks) == 1:
        return blocks[0]
    return nn.Sequential(*blocks) if blocks else nn.Identity()
