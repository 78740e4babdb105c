"""Tables, Markdown and JSON of the measurements."""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tabulate import tabulate


@dataclass
class Section:
    """The results of one suite.

    Attributes:
        name: key of the records in the JSON file.
        title: heading of the section.
        headers: headers of the table.
        rows: cells of the table.
        notes: explanations below the table.
        records: the raw numbers, in seconds and bytes.
        picture: name of an image file that is shown above the table.
    """

    name: str
    title: str
    headers: list[str]
    rows: list[list[str]]
    notes: list[str]
    records: list[dict]
    picture: str | None = None

    def table(self, style: str = "simple") -> str:
        """Return the table as text; ``style`` is a table format of tabulate."""
        align = ["left", *["right"] * (len(self.headers) - 1)]
        return tabulate(self.rows, self.headers, style, colalign=align, disable_numparse=True)

    def markdown(self) -> str:
        """Return the section as Markdown."""
        parts = [f"## {self.title}"]
        if self.picture:
            parts.append(f"![{self.title}]({self.picture})")
        notes = "\n".join(f"* {note}" for note in self.notes)
        return "\n\n".join([*parts, self.table("github"), notes])


def machine(device: torch.device) -> dict:
    """Return the properties of the machine on which the numbers are measured."""
    facts = {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "vector instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def markdown(sections: Sequence[Section], facts: dict, command: str) -> str:
    """Return the document BENCHMARKS.md."""
    listed = "\n".join(f"* {name}: {value}" for name, value in facts.items())
    head = (
        "# Benchmarks\n\nThis file was written by\n\n"
        f"```\n{command}\n```\n\non this machine:\n\n{listed}\n\n"
        "All times in a row were measured in the same run, in turns."
    )
    return "\n\n".join([head, *(section.markdown() for section in sections)]) + "\n"


def as_json(sections: Sequence[Section], facts: dict, command: str) -> str:
    """Return the raw numbers as JSON."""
    content = {"command": command, "machine": facts, **{s.name: s.records for s in sections}}
    return json.dumps(content, indent=1) + "\n"
