"""Writes what the soak tests have measured into docs/RELIABILITY.md."""

import re
from pathlib import Path

from tabulate import tabulate

from ccsa.utils.files import write_text

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "RELIABILITY.md"


def write_section(name: str, text: str, document: Path = DOCUMENT) -> None:
    """Replace the text between ``<!-- soak:NAME -->`` and ``<!-- /soak:NAME -->``.

    Raises:
        ValueError: the document has no such section.
    """
    start, end = f"<!-- soak:{name} -->", f"<!-- /soak:{name} -->"
    content = document.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(content)) != 1:
        raise ValueError(f"{document} needs one section {start} ... {end}")
    replaced = pattern.sub(lambda _: f"{start}\n\n{text.strip()}\n\n{end}", content)
    write_text(document, replaced)


def table(rows: list[dict[str, object]]) -> str:
    """Return rows as a table in Markdown."""
    return tabulate(rows, headers="keys", tablefmt="github")
