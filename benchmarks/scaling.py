"""Time and memory by feature map size, until a contender takes too much of either."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from benchmarks import cases, peers
from benchmarks.attention import Options
from benchmarks.report import Section
from ccsa.ops import criss_cross_attention

CHANNELS = 64
SIDES = [16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024]
PICTURE = "benchmarks.png"
CONTENDERS: dict[str, Callable[..., Tensor]] = {
    "criss-cross, ours": criss_cross_attention,
    "criss-cross, mmcv": peers.mmcv_attention,
    "criss-cross, official": peers.official_attention,
    "non-local": peers.non_local_attention,
}


def scaling(options: Options, limit: float = 2.0, sides=SIDES) -> Section:
    """Measure forward and backward of each contender's operator on square feature maps.

    Args:
        options: how to measure.
        limit: a size that would take more seconds is not run.
        sides: the heights H of the feature maps (1, C, H, H).
    """
    points: dict[str, list[dict]] = {name: [] for name in CONTENDERS}
    ends: dict[str, str] = {}
    for side in sides:
        for name in [name for name in CONTENDERS if name not in ends]:
            reason = _reason_to_stop(points[name], side, options, limit)
            if reason:
                ends[name] = reason
        running = [name for name in CONTENDERS if name not in ends]
        if not running:
            break
        options.log(f"scaling {side} x {side}")
        times, peaks = options.times_and_peaks(
            {name: _call(name, side, options) for name in running}
        )
        result = CHANNELS * side**2 * options.dtype.itemsize
        for name in running:
            memory = peaks[name] - result
            points[name].append({"side": side, "seconds": times[name].median, "memory": memory})
    records: list[dict] = []
    for name, measured in points.items():
        end = ends.get(name, "largest size of the suite")
        record: dict = {"name": name, "points": measured, "end": end, **_exponents(measured)}
        records.append({**record, "fits": _largest_that_fits(record, options)})
    rows = []
    for record in records:
        last = record["points"][-1]
        rows.append(
            [
                record["name"],
                f"N^{record['time_exponent']:.2f}",
                f"N^{record['memory_exponent']:.2f}",
                f"{last['side']} x {last['side']}",
                f"{last['seconds']:.2f} s",
                f"{last['memory'] / 2**20:,.0f} MiB",
                record["end"],
                f"{record['fits']:,} x {record['fits']:,}",
            ]
        )
    headers = ["", "time", "memory", "largest size", "its time", "its memory", "reason to stop"]
    headers.append("fits up to")
    notes = [
        f"forward and backward of the operator on a feature map (1, {CHANNELS}, H, H), with "
        f"{CHANNELS // cases.REDUCTION} channels of query and key; N = H * H",
        "time, memory: exponents, fitted in logarithmic coordinates to the larger half of sizes",
        "reason to stop: why the next size was not run; its time and memory are predicted from the "
        "last sizes that were run",
        "fits up to: the feature map that fills the free memory, predicted from the last size and "
        "the exponent, which is taken to be at least 1 (dotted in the figure)",
    ]
    return Section(
        "scaling",
        "Time and memory as a function of N = H * W",
        headers,
        rows,
        notes,
        records,
        PICTURE,
    )


def draw(section: Section, path: Path) -> None:
    """Draw time and memory in logarithmic coordinates to a PNG file."""
    figure = Figure((11, 4.4), dpi=110, layout="constrained")
    panels = figure.subplots(1, 2)
    for key, unit, axis in (("seconds", 1, panels[0]), ("memory", 2**20, panels[1])):
        for record, marker in zip(section.records, "osD^", strict=False):
            xs = [p["side"] ** 2 for p in record["points"]]
            ys = [p[key] / unit for p in record["points"]]
            slope = record["time_exponent" if key == "seconds" else "memory_exponent"]
            axis.plot(xs, ys, marker=marker, ms=4.5, label=f"{record['name']}: N^{slope:.2f}")
            if key == "memory":
                end = record["fits"] ** 2, ys[-1] * (record["fits"] ** 2 / xs[-1]) ** max(1, slope)
                color = axis.lines[-1].get_color()
                axis.plot([xs[-1], end[0]], [ys[-1], end[1]], ":", color=color)
                axis.plot(*end, "x", color=color, ms=9, mew=2)
        axis.set(xscale="log", yscale="log", xlabel="N = H * W")
        axis.grid(which="both", alpha=0.25)
        axis.legend(fontsize=8)
    panels[0].set(title="forward + backward", ylabel="seconds")
    panels[1].set(title="peak memory (x: fills the free memory, predicted)", ylabel="MiB")
    figure.savefig(path)


def _call(name: str, side: int, options: Options) -> cases.Call:
    shapes = [(1, c, side, side) for c in (*[CHANNELS // cases.REDUCTION] * 2, CHANNELS, CHANNELS)]
    *qkv, grad = (cases.random_features(s, options.device, options.dtype) for s in shapes)
    if "ours" in name:
        qkv, grad = [cases.channels_last(x) for x in qkv], cases.channels_last(grad)
    return cases.step(CONTENDERS[name], grad, *qkv)


def _reason_to_stop(points: list[dict], side: int, options: Options, limit: float) -> str | None:
    """Return why the next size should not be run, judged by the last two, or None."""
    if len(points) < 2:
        return None
    before, last = points[-2:]
    factor = (side / last["side"]) ** 2

    def next_of(key: str) -> float:
        slope = np.log(last[key] / before[key]) / np.log((last["side"] / before["side"]) ** 2)
        return last[key] * factor ** min(2.0, max(1.0, slope))

    memory, free = next_of("memory"), free_bytes(options.device)
    if memory > 0.8 * free:
        return (
            f"{side} x {side} would need {memory / 2**30:.0f} GiB of memory, "
            f"{free / 2**30:.0f} are free"
        )
    if next_of("seconds") > limit:
        return f"{side} x {side} would take {next_of('seconds'):.0f} s"
    return None


def _largest_that_fits(record: dict, options: Options) -> int:
    """Return the side of the feature map whose peak would be the free memory."""
    last, slope = record["points"][-1], max(1.0, record["memory_exponent"])
    return round(last["side"] * (free_bytes(options.device) / last["memory"]) ** (0.5 / slope))


def _exponents(points: list[dict]) -> dict[str, float]:
    half = points[-max(2, len(points) // 2) :]
    n = np.log([p["side"] ** 2 for p in half])
    return {
        f"{what}_exponent": float(np.polyfit(n, np.log([p[key] for p in half]), 1)[0])
        for what, key in (("time", "seconds"), ("memory", "memory"))
    }


def free_bytes(device: torch.device) -> float:
    """Return the bytes of free memory of the device, or infinity if they are unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(x.split()[1]) * 1024 for x in lines if x.startswith("MemAvailable"))
    except (OSError, StopIteration, ValueError):
        return float("inf")
    try:  # a container may have a lower limit
        group = Path("/sys/fs/cgroup")
        most = int((group / "memory.max").read_text())
        return min(free, most - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        return free
