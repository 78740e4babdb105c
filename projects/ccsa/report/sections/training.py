"""How a run was trained: the curves of its log, and the gamma of every block."""

import json
import math
from pathlib import Path
from typing import Any

from ccsa.checkpoint.weight_files import read_weights, state_within
from ccsa.report.run_files import RunFiles
from ccsa.utils.run_folders import last_weights

METRICS = "metrics.json"
_POINTS = 300  # of a curve, at most
_GAMMA = ".gamma"


def training_curves(files: RunFiles) -> dict[str, Any] | None:
    """Return losses, learning rate and gradient norm over the iterations, None without a log.

    Returns:
        ``{name: {"iteration": [...], "value": [...]}}`` of at most 300 points each.
    """
    rows = _rows(files.run.folder / METRICS)
    series: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        for key, value in row.items():
            wanted = key in ("lr", "grad_norm", "total_loss") or key.startswith("loss_")
            if wanted and isinstance(value, int | float) and math.isfinite(value):
                series.setdefault(key, []).append((row["iteration"], float(value)))
    curves = {}
    for key, points in series.items():
        step = math.ceil(len(points) / _POINTS)
        kept = points[::step] if points[::step][-1] == points[-1] else [*points[::step], points[-1]]
        curves[key] = {"iteration": [i for i, _ in kept], "value": [v for _, v in kept]}
    return curves or None


def _rows(file: Path) -> list[dict[str, Any]]:
    """Return the rows of the log; damaged lines are left out."""
    rows = []
    if file.is_file():
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(row, dict) and isinstance(row.get("iteration"), int):
                rows.append(row)
    return rows


def blocks(files: RunFiles) -> list[dict[str, Any]]:
    """Return ``path``, ``gamma`` and ``words`` of every context block with a gamma."""
    file = last_weights(files.run.folder)
    if file is None:
        return []
    state = state_within(read_weights(file))
    return [
        {"path": key.removesuffix(_GAMMA), "gamma": value, "words": gamma_in_words(value)}
        for key, value in ((k, float(v)) for k, v in state.items() if k.endswith(_GAMMA))
    ]


def gamma_in_words(gamma: float) -> str:
    """Return what the gamma of a residual block means.

    Example:
        >>> gamma_in_words(0.0)
        'The block passes its input on unchanged.'
    """
    if gamma == 0:
        return "The block passes its input on unchanged."
    verb = "adds" if gamma > 0 else "subtracts"
    text = f"In each application, the block {verb} {abs(gamma):.3g} times the attended values."
    if abs(gamma) < 0.01:
        return f"{text} This is so little that the block hardly takes part."
    return text
