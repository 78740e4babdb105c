"""The 147 configurations that existed before overlays, as frozen data and as commands.

``former_configs.json`` has the resolved value of every key: the defaults, and for each file its
changes relative to its base. docs/CONFIG_MIGRATION.md has the command that replaces a file.
"""

import json
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DATA = json.loads((ROOT / "tests/configs/former_configs.json").read_text())
NAMES = list(DATA["configs"])
_ROW = re.compile(
    r"^\| `(\S+)` \| `--config-file configs/(\S+)\.yaml --with ([\w,]+)` \|$", re.MULTILINE
)


@cache
def replaced() -> dict[str, tuple[str, list[str]]]:
    """Return the base and the overlays that replace each removed file."""
    text = (ROOT / "docs/CONFIG_MIGRATION.md").read_text()
    return {name: (base, overlays.split(",")) for name, base, overlays in _ROW.findall(text)}


def command(name: str) -> tuple[str, list[str]]:
    """Return the file and the overlays of a former configuration, e.g. ``digits/ccnet``."""
    base, overlays = replaced().get(name, (name, []))
    return str(ROOT / "configs" / f"{base}.yaml"), overlays


def resolved(name: str) -> dict[str, object]:
    """Return the frozen value of every key of a former configuration."""
    entry = DATA["configs"][name]
    base = resolved(entry["base"]) if entry["base"] else DATA["defaults"]
    return {**base, **entry["changes"]}
