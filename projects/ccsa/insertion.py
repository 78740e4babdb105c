"""Insertion of any context block after any module of any model.

    insert_blocks(model, [{"at": "layer3.-2", "block": "CrissCross", "recurrence": 2}])

A block becomes the child ``context`` of the module that it follows, and a forward hook passes the
output of that module through it. No key of the model changes (``...res4.4.conv1.weight`` stays),
the new keys are exactly ``<path>.context.*``, and copying, pickling, DDP and tracing keep working.
The hook is a module-level function that looks up the block on the module it is called with: a
closure would keep the old block alive in a deep copy.
"""

import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from ccsa.blocks.channels import CHILD, channels_advice, declared_channels, last_axis_advice
from ccsa.blocks.layout import Layout
from ccsa.blocks.spec import parse_block_spec
from ccsa.errors import UserError, shown, suggestion

_CONTAINERS = (nn.Sequential, nn.ModuleList)


class Placement(NamedTuple):
    """An inserted block.

    Attributes:
        path: path of the module whose output the block receives.
        block: name of the block.
        channels: number of channels the block is built for.
        parameters: number of parameters of the block.
    """

    path: str
    block: str
    channels: int
    parameters: int


class PlacementError(UserError):
    """Raised if a module does not return a feature map with the channels of the block after it.

    Only a forward pass can detect this.
    """


def apply_context(module: nn.Module, args: Any, output: Any) -> Tensor:
    """Forward hook: return the output of ``module`` passed through its child ``context``.

    Args:
        module: a module with a child ``context``.
        args: the arguments of its forward; not used.
        output: its output: (B, C, *spatial), or in the layout of the entry.

    Raises:
        PlacementError: the output is not a feature map, or has another number of channels, or
            another layout.
    """
    name = f"a {type(module).__name__}"
    if not isinstance(output, Tensor) or output.dim() < 3:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise PlacementError(
            f"a context block was inserted after {name} that returns {shape}; "
            "it needs one feature map (B, C, *spatial): name a convolution, a residual block or a "
            "stage (for tokens (B, N, C) or (B, H, W, C), a block with 'layout')"
        )
    expected: Any = module.context_channels
    layout = getattr(module, "context_layout", Layout())
    if output.shape[layout.channel_axis] != expected:
        raise PlacementError(
            f"the context block after {name} was built for {expected} channels, "
            f"but the module returns {tuple(output.shape)}; "
            f"{channels_advice(module, output, layout, expected)}"
        )
    axes, width = getattr(module, "context_doubt", (0, 0))
    if output.dim() <= axes and output.shape[-1] == width:
        raise PlacementError(
            f"a context block was inserted after {name} that returns {tuple(output.shape)}, whose "
            f"channels seem to be on the last axis: {last_axis_advice(output)}, or 'layout: nchw' "
            "if they are on axis 1"
        )
    try:
        prefix, feature_map = layout.separate(output)
    except UserError as error:
        raise PlacementError(f"the context block after {name} does not fit: {error}") from None
    feature_map = module.get_submodule(CHILD)(feature_map)
    if prefix is not None and feature_map.shape[1] != expected:
        raise PlacementError(
            f"the context block after {name} returns {feature_map.shape[1]} channels, but its "
            f"{layout.prefix} prefix tokens have {expected}: use a block that keeps the number"
        )
    # A block may compute in float32 under autocast; what follows expects the module's own dtype.
    return layout.merge(prefix, feature_map.to(output.dtype))


def insert_blocks(model: nn.Module, blocks: Iterable[Mapping[str, Any]]) -> list[Placement]:
    """Attach context blocks to ``model``, in place.

    Args:
        model: any module; no Detectron2 config is needed.
        blocks: one mapping per entry, with these keys:

            * ``at``: the dotted path of the module whose output the block receives. Integers may
              be negative, and ``*``, ``?`` and ``[...]`` match within one level. A container, such
              as a stage of a ResNet, means its last module.
            * ``block``: a name in :data:`ccsa.blocks.CONTEXT_BLOCK_REGISTRY`.
            * ``channels`` (optional): the number of channels, if the module does not show it.
            * ``layout`` (optional): the layout of the output of the module, for transformers:
              ``tokens`` (B, N, C), ``nhwc`` (B, H, W, C), or ``nchw``, the default. The block
              itself always gets (B, C, H, W).
            * ``grid`` (optional, with ``tokens``): [h, w], the token grid; by default a square.
            * ``prefix`` (optional, with ``tokens``): the number of tokens before the grid, such as
              class tokens, which pass unchanged; by default 0.
            * the keywords of the block.

            Several blocks at one location run in the order listed, in one layout.

    Returns:
        One :class:`Placement` per block and location.

    Raises:
        UserError: ``model`` is not a module, ``blocks`` is not a list of mappings, a path matches
            nothing, a block or keyword is unknown, a value is invalid, or a location already has a
            ``context``. The model is then unchanged.

    Example:
        >>> from torch import nn
        >>> from ccsa import insert_blocks
        >>> model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 1))
        >>> insert_blocks(model, [{"at": "0", "block": "CrissCross", "recurrence": 2}])
        [Placement(path='0', block='CrissCross', channels=16, parameters=341)]
        >>> [name for name in model.state_dict() if "gamma" in name]
        ['0.context.gamma']
        >>> insert_blocks(model, [{"at": "3", "block": "CrissCross"}])
        Traceback (most recent call last):
            ...
        ccsa.errors.UserError: no module '3': the model (Sequential) has no '3'; available: 0, 1, 2
    """
    if not isinstance(model, nn.Module):
        raise UserError(f"blocks are inserted into an nn.Module, not into {model!r}")
    if isinstance(blocks, str | Mapping) or not isinstance(blocks, Iterable):
        raise UserError(
            f"blocks must be a list of mappings {{at: ..., block: ...}}, not {shown(blocks)}"
        )
    # By path: the module, its number of channels, its layout, and its blocks.
    built: dict[str, tuple[nn.Module, int, Layout, list[nn.Module]]] = {}
    paths: dict[int, str] = {}  # one module may have several names; the first one found is its path
    placements = []
    for mapping in blocks:
        spec = parse_block_spec(mapping, placed=True)
        seen: set[int] = set()
        for path, target, named in _targets(model, spec.at):
            if id(target) in seen:
                continue
            seen.add(id(target))
            if hasattr(target, CHILD):
                raise UserError(
                    f"a block is already attached to {path}; pass all blocks of one location to "
                    "one call of insert_blocks"
                )
            width = spec.channels or declared_channels(named, spec.layout.channel_axis == -1)
            if width is None:
                raise UserError(_no_channels(path, target, spec.layout))
            block = spec.build(width).train(target.training)
            like = next((p for p in target.parameters() if p.is_floating_point()), None)
            if like is not None:
                block.to(like.device, like.dtype)
            path = paths.setdefault(id(target), path)
            _, _, layout, chain = built.setdefault(path, (target, width, spec.layout, []))
            if layout != spec.layout:
                raise UserError(
                    f"the blocks after {path} have different layouts; give all of them the same "
                    "'layout', 'grid' and 'prefix'"
                )
            chain.append(block)
            count = sum(p.numel() for p in block.parameters())
            placements.append(Placement(path, spec.block, width, count))

    for target, width, layout, chain in built.values():
        target.context_doubt = _doubt(target, width, layout)  # type: ignore[assignment]
        target.add_module(CHILD, chain[0] if len(chain) == 1 else nn.Sequential(*chain))
        target.context_channels = width  # type: ignore[assignment]
        target.context_layout = layout  # type: ignore[assignment]
        target.register_forward_hook(apply_context)
    return placements


def context_blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the path and the module of each block that :func:`insert_blocks` attached.

    The path is ``<path>.context``, or ``<path>.context.<i>`` for several blocks at one location.

    Example:
        >>> from torch import nn
        >>> model = nn.Sequential(nn.Conv2d(3, 16, 3))
        >>> names = ("CrissCross", "SqueezeExcitation")
        >>> _ = insert_blocks(model, [{"at": "0", "block": name} for name in names])
        >>> [(path, type(block).__name__) for path, block in context_blocks(model)]
        [('0.context.0', 'CrissCross'), ('0.context.1', 'SqueezeExcitation')]
    """
    for name, module in model.named_modules():
        if hasattr(module, "context_channels"):
            path, child = f"{name}.{CHILD}".lstrip("."), module.get_submodule(CHILD)
            if type(child) is nn.Sequential:
                yield from ((f"{path}.{i}", block) for i, block in enumerate(child))
            else:
                yield path, child


def placement_table(placements: Iterable[Placement]) -> str:
    """Return the placements as a Markdown table, for the log: one row per placement.

    Example:
        >>> print(placement_table([Placement("layer3.0", "CrissCross", 256, 1536)]))
        | path     | block      | channels | parameters |
        |----------|------------|----------|------------|
        | layer3.0 | CrissCross |      256 |      1,536 |
    """
    rows: list[tuple[str, ...]] = [Placement._fields]
    rows += [(path, block, f"{c:,}", f"{count:,}") for path, block, c, count in placements]
    path_width, block_width, *number_widths = (max(map(len, c)) for c in zip(*rows, strict=True))
    lines = []
    for path, block, *numbers in rows:
        cells = [path.ljust(path_width), block.ljust(block_width)]
        cells += [number.rjust(w) for number, w in zip(numbers, number_widths, strict=True)]
        lines.append(f"| {' | '.join(cells)} |")
    widths = (path_width, block_width, *number_widths)
    lines.insert(1, f"|{'|'.join('-' * (width + 2) for width in widths)}|")
    return "\n".join(lines)


def _targets(model: nn.Module, at: str) -> list[tuple[str, nn.Module, nn.Module]]:
    """Return (path, module, named module) of every module that ``at`` names.

    The module is the named one, or the last module of a named container.

    Raises:
        UserError: there is none, or it is an empty container.
    """
    found: list[tuple[str, nn.Module]] = [("", model)]
    for part in at.split("."):
        step = [
            (f"{path}.{name}".lstrip("."), child)
            for path, module in found
            for name, child in _children(module, part)
        ]
        if not step:
            raise UserError(_no_such_module(at, part, found))
        found = step
    resolved = []
    for path, module in found:
        named = module
        # A block in a container would run twice: as a child, and by the hook.
        while isinstance(module, _CONTAINERS):
            if not len(module):
                raise UserError(f"{path}, named by '{at}', is empty: no module to attach to")
            name, module = list(module.named_children())[-1]
            path = f"{path}.{name}"
        resolved.append((path, module, named))
    return resolved


def _children(module: nn.Module, part: str) -> list[tuple[str, nn.Module]]:
    """Return the names and modules of the children that one part of a path matches."""
    children = list(module.named_children())
    if part.lstrip("-").isdigit() and part not in dict(children):
        index = int(part)
        return [children[index]] if -len(children) <= index < len(children) else []
    return [(name, child) for name, child in children if fnmatch.fnmatchcase(name, part)]


def _no_such_module(at: str, part: str, found: list[tuple[str, nn.Module]]) -> str:
    """Return the message for a path whose ``part`` matches no child of the modules found so far."""
    path, module = found[0]
    names = [name for name, _ in module.named_children()]
    where = path or f"the model ({type(module).__name__})"
    hint = suggestion(part, names) or "; it has no submodules"
    return f"no module '{at}': {where} has no '{part}'{hint}"


def _no_channels(path: str, module: nn.Module, layout: Layout) -> str:
    """Return the message for a module that does not show its channels in the given layout."""
    start = f"{path} ({type(module).__name__}) does not show how many channels it returns; "
    if layout.name == "" and declared_channels(module, channels_last=True):
        return start + (
            "its layers work on the last axis, so it may return tokens (B, N, C) or a feature map "
            "(B, H, W, C): add 'layout: tokens' or 'layout: nhwc' to its entry; if it returns "
            "(B, C, H, W), add 'channels: N'"
        )
    return start + "add 'channels: N' to its entry"


def _doubt(module: nn.Module, channels: int, layout: Layout) -> tuple[int, int]:
    """Return up to how many axes an output is rejected if its last axis has which size.

    That size is the number of channels that the layers of the module show, so an output like that
    probably has its channels on the last axis, although no layout was stated and its axis 1 has
    the expected size by chance or because the number of positions was taken for channels.
    """
    if layout.name:
        return 0, 0
    first = declared_channels(module)
    if first is None:
        return 5, declared_channels(module, channels_last=True) or 0
    return (3, first) if first != channels else (0, 0)
