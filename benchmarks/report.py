"""What was measured as tables, JSON and a picture."""

import json
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tabulate import tabulate


@dataclass
class Section:
    """One table.

    Attributes:
        name: its key in the JSON.
        records: the raw numbers: seconds and bytes.
    """

    name: str
    title: str
    headers: list[str]
    rows: list[list[str]]
    notes: list[str]
    records: list[dict]
    picture: str | None = None

    def table(self, style: str = "simple") -> str:
        """As text; ``style`` is one of tabulate's."""
        align = ["left", *["right"] * (len(self.headers) - 1)]
        return tabulate(self.rows, self.headers, style, colalign=align, disable_numparse=True)

    def markdown(self) -> str:
        parts = [f"## {self.title}"]
        if self.picture:
            parts.append(f"![{self.title}]({self.picture})")
        notes = "\n".join(f"* {note}" for note in self.notes)
        return "\n\n".join([*parts, self.table("github"), notes])


def machine(device: torch.device) -> dict:
    """What the figures hold for."""
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
    """The whole document."""
    listed = "\n".join(f"* {name}: {value}" for name, value in facts.items())
    head = (
        "# Benchmarks\n\nThis file was written by\n\n"
        f"```\n{command}\n```\n\non\n\n{listed}\n\n"
        "What stands in one line was measured in one run, in turns."
    )
    return "\n\n".join([head, *(section.markdown() for section in sections)]) + "\n"


def as_json(sections: Sequence[Section], facts: dict, command: str) -> str:
    """The raw numbers."""
    content = {"command": command, "machine": facts, **{s.name: s.records for s in sections}}
    return json.dumps(content, indent=1) + "\n"
