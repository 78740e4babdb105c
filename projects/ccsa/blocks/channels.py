"""How many channels a module returns, as far as its layers show, and advice if that is wrong.

A shape does not say which axis holds the channels: (2, 56, 56, 96) can be 56 channels or, in
channels-last order, 96. The advice therefore only states a number of channels that the layers of
the module confirm, and never one that may be a number of positions.
"""

from torch import Tensor, nn

from ccsa.blocks.layout import Layout, square_grid, token_hint

CHILD = "context"
"""The name of an inserted block, as a child of the module that it follows."""

_CHANNELS_FIRST = ("out_channels", "num_features", "num_channels")


def declared_channels(module: nn.Module, channels_last: bool = False) -> int | None:
    """Return the output channels of a module, or None.

    They are what the module declares, or else those of its last submodule that declares any.

    Args:
        module: any module.
        channels_last: whether layers on the last axis count as well: linear layers, layer norms
            and attention. They say nothing about a feature map (B, C, H, W).

    Example:
        >>> block = nn.Sequential(nn.LayerNorm(96), nn.Linear(96, 48))
        >>> declared_channels(block), declared_channels(block, channels_last=True)
        (None, 48)
    """
    for attribute in _CHANNELS_FIRST:
        value = getattr(module, attribute, None)
        if isinstance(value, int):
            return value
    if channels_last and (width := _last_width(module)):
        return width
    for child in reversed(list(module.children())):
        value = declared_channels(child, channels_last)
        if value is not None:
            return value
    return None


def channels_advice(module: nn.Module, output: Tensor, layout: Layout, expected: int) -> str:
    """Return how to correct the entry of a block whose number of channels is wrong.

    Args:
        module: the module that returned ``output``; its child ``context`` does not count.
        output: a tensor of at least 3 axes.
        layout: the layout of the entry.
        expected: the number of channels that the block was built for.
    """
    first, last = int(output.shape[1]), int(output.shape[-1])
    on_first, on_last = _widths(module)
    shows_first, shows_last = first in on_first, last in on_first | on_last
    if layout.channel_axis == -1:
        if first == expected or (shows_first and not shows_last):
            return f"it seems to be (B, C, *spatial): remove 'layout: {layout.name}'"
        if shows_last:
            return f"add 'channels: {last}'"
        return (
            "set 'channels' to the size of its last axis, or remove "
            f"'layout: {layout.name}' if its channels are on axis 1"
        )
    square = output.dim() == 4 and output.shape[2] == last != first
    if shows_first if shows_first != shows_last else square and last != expected:
        return f"add 'channels: {first}'"
    if shows_last and not shows_first:
        width = "" if last == expected else f" and 'channels: {last}'"
        return f"its channels seem to be on the last axis: {last_axis_advice(output)}{width}"
    return (
        "if its channels are on axis 1, set 'channels' to the size of that axis; if they are on "
        f"the last axis, {last_axis_advice(output)}"
    )


def last_axis_advice(output: Tensor) -> str:
    """Return which keys to add for an output whose last axis are the channels."""
    if output.dim() > 3:
        return "add 'layout: nhwc'"
    count = int(output.shape[1])
    is_square = square_grid(count)[0] ** 2 == count
    return "add 'layout: tokens'" + ("" if is_square else f"; also {token_hint(count)}")


def _last_width(module: nn.Module) -> int | None:
    """Return the size of the last axis of the output of one layer, if it is known."""
    if isinstance(module, nn.Linear):
        return module.out_features
    if isinstance(module, nn.LayerNorm):
        return int(module.normalized_shape[-1])
    if isinstance(module, nn.MultiheadAttention):
        return module.embed_dim
    return None


def _widths(module: nn.Module) -> tuple[set[int], set[int]]:
    """Return the channels that the layers of a module declare on axis 1, and on the last axis."""
    first: set[int] = set()
    last: set[int] = set()
    for name, layer in module.named_modules():
        if name.split(".")[0] == CHILD:
            continue
        if (width := _last_width(layer)) is not None:
            last.add(width)
            continue
        values = (getattr(layer, attribute, None) for attribute in _CHANNELS_FIRST)
        first.update(value for value in values if isinstance(value, int))
    return first, last
