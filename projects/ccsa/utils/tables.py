"""Tables of text whose cells are wrapped."""

import textwrap
from collections.abc import Sequence

from tabulate import tabulate


def wrapped_table(
    rows: Sequence[Sequence[object]],
    widths: Sequence[int | None],
    *,
    headers: Sequence[str] = (),
    style: str = "plain",
) -> str:
    """Return a table; every cell is text, and long cells have several lines.

    The limits of tabulate itself are not used: with them, it fails for numbers such as ``1,000``.

    Args:
        rows: of cells; their own line breaks stay.
        widths: the longest line of each column; None for any length.
        headers: of the columns.
        style: of tabulate.

    Example:
        >>> print(wrapped_table([("images", "1,000"), ("why", "a b c")], [None, 3]))
        images  1,0
                00
        why     a b
                c
    """
    cells = [
        [_wrapped(str(cell), width) for cell, width in zip(row, widths, strict=True)]
        for row in rows
    ]
    return tabulate(cells, headers, tablefmt=style, disable_numparse=True)


def _wrapped(text: str, width: int | None) -> str:
    if width is None:
        return text
    return "\n".join("\n".join(textwrap.wrap(line, width)) for line in text.splitlines())
