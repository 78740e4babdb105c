"""Insertion: any context block, after any module of any model, by one line.

    insert_blocks(model, [{"at": "layer3.-2", "block": "CrissCross", "recurrence": 2}])

A block becomes the child ``context`` of the module it follows, and a forward hook passes that
module's output through it. So no key of the model moves (``...res4.4.conv1.weight`` stays), the new
keys are exactly ``<path>.context.*``, and copying, pickling, DDP and tracing keep working. The hook
is a plain module-level function that looks the block up on the module it is called with: a closure
would keep the old block alive in a deep copy.
"""

import fnmatch
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from ccsa.blocks.spec import parse_block_spec
from ccsa.errors import UserError, suggestion

CHILD = "context"
_CONTAINERS = (nn.Sequential, nn.ModuleList)


class Placement(NamedTuple):
    """Where a block went: resolved path, block, channels, number of parameters."""

    path: str
    block: str
    channels: int
    parameters: int


class PlacementError(UserError):
    """A block stands where no map of its width comes out; only a forward can tell."""


def apply_context(module: nn.Module, args: Any, output: Any) -> Tensor:
    """Forward hook: the module's output, (B, C, *spatial), through its child ``context``."""
    if not isinstance(output, Tensor) or output.dim() < 3:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise PlacementError(
            f"a context block was placed after a {type(module).__name__} that returns {shape}; "
            "it needs one (B, C, *spatial) map: name a convolution, a residual block or a stage"
        )
    expected = module.context_channels
    if output.shape[1] != expected:
        raise PlacementError(
            f"the context block after a {type(module).__name__} was built for {expected} channels, "
            f"but the module returns {output.shape[1]}; add 'channels: {output.shape[1]}'"
        )
    return module.get_submodule(CHILD)(output)


def insert_blocks(model: nn.Module, blocks: Iterable[Mapping[str, Any]]) -> list[Placement]:
    """Attach context blocks to ``model``, in place.

    Args:
        model: any module; no Detectron2 config is needed.
        blocks: one mapping each, with
            ``at``, the dotted path of the module whose output the block takes. Integers may be
            negative, ``*`` globs within one level; a container (a ResNet stage) means its last
            module;
            ``block``, a name in :data:`ccsa.blocks.CONTEXT_BLOCK_REGISTRY`;
            ``channels`` (optional), where they cannot be told from the module;
            and the block's own keywords. Several blocks at one place run in the order listed.

    Returns:
        One :class:`Placement` for each block and place.

    Raises:
        ValueError: a path that matches nothing, an unknown block, a bad keyword or a place that
            already has a ``context``; the model is then left as it was.
    """
    built: dict[
        str, tuple[nn.Module, int, list[nn.Module]]
    ] = {}  # by path: target, channels, blocks
    paths: dict[int, str] = {}  # one module may have several names; the first one found is its path
    placements = []
    for mapping in blocks:
        spec = parse_block_spec(mapping, placed=True)
        seen: set[int] = set()
        for path, target, channels in _targets(model, spec.at):
            if id(target) in seen:
                continue
            seen.add(id(target))
            if hasattr(target, CHILD):
                raise UserError(
                    f"{path} already has a '{CHILD}'; list all blocks of one place in one call"
                )
            width = spec.channels or channels
            if width is None:
                raise UserError(
                    f"cannot tell how many channels {path} ({type(target).__name__}) returns; "
                    "add 'channels: N' to its line"
                )
            block = spec.build(width).train(target.training)
            like = next((p for p in target.parameters() if p.is_floating_point()), None)
            if like is not None:
                block.to(like.device, like.dtype)
            path = paths.setdefault(id(target), path)
            built.setdefault(path, (target, width, []))[2].append(block)
            count = sum(p.numel() for p in block.parameters())
            placements.append(Placement(path, spec.block, width, count))

    for target, width, chain in built.values():
        target.add_module(CHILD, chain[0] if len(chain) == 1 else nn.Sequential(*chain))
        target.context_channels = width  # type: ignore[assignment]
        target.register_forward_hook(apply_context)
    return placements


def context_blocks(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The attached blocks with their paths, ``<place>.context`` or, for several at one place,
    ``<place>.context.<i>``."""
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
    cells = [Placement._fields]
    cells += [(path, block, f"{c:,}", f"{count:,}") for path, block, c, count in placements]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rows = [
        (path.ljust(widths[0]), block.ljust(widths[1]), c.rjust(widths[2]), count.rjust(widths[3]))
        for path, block, c, count in cells
    ]
    rows.insert(1, tuple("-" * width for width in widths))
    text = [f"| {' | '.join(row)} |" for row in rows]
    text[1] = text[1].replace(" ", "-")
    return "\n".join(text)


def _targets(model: nn.Module, at: str) -> list[tuple[str, nn.Module, int | None]]:
    """(path, module, channels or None) for every module that ``at`` names."""
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
        channels = _channels(module)
        while isinstance(module, _CONTAINERS):  # a block inside would run twice
            if not len(module):
                raise UserError(f"{path}, named by '{at}', is empty: nothing there to attach to")
            name, module = list(module.named_children())[-1]
            path = f"{path}.{name}"
        resolved.append((path, module, channels))
    return resolved


def _children(module: nn.Module, part: str) -> list[tuple[str, nn.Module]]:
    children = list(module.named_children())
    if part.lstrip("-").isdigit() and part not in dict(children):
        index = int(part)
        return [children[index]] if -len(children) <= index < len(children) else []
    return [(name, child) for name, child in children if fnmatch.fnmatchcase(name, part)]


def _no_such_module(at: str, part: str, found: list[tuple[str, nn.Module]]) -> str:
    path, module = found[0]
    names = [name for name, _ in module.named_children()]
    where = path or f"the model ({type(module).__name__})"
    hint = suggestion(part, names) or "; it has no submodules"
    return f"no module '{at}': {where} has no '{part}'{hint}"


def _channels(module: nn.Module) -> int | None:
    """Channels of a module's output: what it declares, or those of its last layer that has any."""
    for attribute in ("out_channels", "num_features", "num_channels"):
        value = getattr(module, attribute, None)
        if isinstance(value, int):
            return value
    for child in reversed(list(module.children())):
        value = _channels(child)
        if value is not None:
            return value
    return None
