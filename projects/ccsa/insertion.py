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

from ccsa.blocks.spec import parse_block_spec
from ccsa.errors import UserError, suggestion

CHILD = "context"
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
        output: its output (B, C, *spatial).

    Raises:
        PlacementError: the output is not a feature map, or has another number of channels.
    """
    if not isinstance(output, Tensor) or output.dim() < 3:
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise PlacementError(
            f"a context block was inserted after a {type(module).__name__} that returns {shape}; "
            "it needs one feature map (B, C, *spatial): name a convolution, a residual block or a "
            "stage"
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
        blocks: one mapping per entry, with these keys:

            * ``at``: the dotted path of the module whose output the block receives. Integers may
              be negative, and ``*``, ``?`` and ``[...]`` match within one level. A container, such
              as a stage of a ResNet, means its last module.
            * ``block``: a name in :data:`ccsa.blocks.CONTEXT_BLOCK_REGISTRY`.
            * ``channels`` (optional): the number of channels, if the module does not show it.
            * the keywords of the block.

            Several blocks at one location run in the order listed.

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
            f"blocks must be a list of mappings {{at: ..., block: ...}}, not {blocks!r}"
        )
    # By path: the module, its number of channels, and its blocks.
    built: dict[str, tuple[nn.Module, int, list[nn.Module]]] = {}
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
                    f"a block is already attached to {path}; pass all blocks of one location to "
                    "one call of insert_blocks"
                )
            width = spec.channels or channels
            if width is None:
                raise UserError(
                    f"{path} ({type(target).__name__}) does not show how many channels it returns; "
                    "add 'channels: N' to its entry"
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


def _targets(model: nn.Module, at: str) -> list[tuple[str, nn.Module, int | None]]:
    """Return (path, module, channels or None) of every module that ``at`` names.

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
        channels = _channels(module)
        while isinstance(
            module, _CONTAINERS
        ):  # it would run the block twice: as a child, and by the hook
            if not len(module):
                raise UserError(f"{path}, named by '{at}', is empty: no module to attach to")
            name, module = list(module.named_children())[-1]
            path = f"{path}.{name}"
        resolved.append((path, module, channels))
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


def _channels(module: nn.Module) -> int | None:
    """Return the output channels of a module, or None.

    They are what the module declares, or else those of its last submodule that declares any.
    """
    for attribute in ("out_channels", "num_features", "num_channels"):
        value = getattr(module, attribute, None)
        if isinstance(value, int):
            return value
    for child in reversed(list(module.children())):
        value = _channels(child)
        if value is not None:
            return value
    return None
