"""The suites for the operator and the block, compared with other implementations."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks import cases, peers
from benchmarks.report import Section
from ccsa.analysis.measure import Timing, peak_bytes, side_by_side
from ccsa.blocks import CrissCross
from ccsa.ops import criss_cross_attention

PEERS = ("mmcv", "official")
RECURRENCE = 2


@dataclass
class Options:
    """How to measure.

    Attributes:
        device: device of all tensors.
        dtype: data type of all tensors.
        shapes: shapes (B, C, *S) of the feature maps.
        warmup: number of turns before the timed ones.
        repeats: number of timed turns.
        limit: seconds that the timed turns may take in total; there is at least one turn.
        log: called with a text about the progress.
    """

    device: torch.device
    dtype: torch.dtype
    shapes: list[tuple[int, ...]] = field(default_factory=lambda: list(cases.SHAPES))
    warmup: int = 1
    repeats: int = 5
    limit: float = 4.0
    log: Callable[[str], object] = print

    def times(self, calls: Mapping[str, cases.Call]) -> dict[str, Timing]:
        """Time the calls in turns."""
        return side_by_side(calls, self.device, self.warmup, self.repeats, self.limit)

    def times_and_peaks(
        self, calls: Mapping[str, cases.Call]
    ) -> tuple[dict[str, Timing], dict[str, int]]:
        """Time the calls in turns, and record the peak memory in the first turn."""
        peaks: dict[str, int] = {}

        def turn(name: str) -> None:
            if name in peaks:
                calls[name]()
            else:
                peaks[name] = peak_bytes(calls[name], self.device)

        return self.times({name: partial(turn, name) for name in calls}), peaks


def operator(options: Options) -> Section:
    """Measure criss_cross_attention on given queries, keys and values."""
    like = torch.empty(0, device=options.device, dtype=options.dtype)
    bandwidth, rate = cases.device_rates(like, lambda call: options.times({"": call})[""].median)
    records = []
    for shape in options.shapes:
        options.log(f"operator {shape}")
        for backward in (False, True):
            calls = _operator_calls(shape, backward, options)
            sizes = cases.operator_matmuls(shape, backward)
            record = _record(shape, backward, calls, sizes, options)
            record["roofline"] = cases.roofline(shape, backward, like, bandwidth, rate)
            records.append(record)
    notes = [
        "ours: channels-last operands, as in the block CrissCross; NCHW: the contiguous operands "
        "that the other implementations get",
        f"roofline: time of all bytes at {bandwidth / 1e9:.0f} GB/s (a copy) or of all operations "
        f"at {rate / 1e9:.0f} GFLOP/s (a large matrix multiplication), whichever is longer; both "
        "rates were measured in this run",
        "memory: peak of a forward and backward pass without operands and result, in MiB",
    ]
    return _section("operator", "The operator", records, ["ours", "NCHW", *PEERS], notes)


def block(options: Options) -> Section:
    """Measure the block CrissCross with R = 2, projections and gate included."""
    records = []
    for shape in options.shapes:
        options.log(f"block {shape}")
        for backward in (False, True):
            calls = _block_calls(shape, backward, options)
            del calls["NCHW"], calls["checkpoint"]  # they are part of the suite non-local
            sizes = cases.block_matmuls(shape, backward, RECURRENCE)
            records.append(_record(shape, backward, calls, sizes, options))
    notes = [
        f"R = {RECURRENCE} recurrences, C / {cases.REDUCTION} channels of query and key, gamma = "
        "0.5, and the same weights in all blocks",
        "ours: a channels-last feature map; the other implementations get a contiguous one",
        "memory: peak of a forward and backward pass without weights, feature map and result, in "
        "MiB",
    ]
    names = ["ours", *PEERS]
    return _section("block", f"The block, R = {RECURRENCE}", records, names, notes)


def non_local(options: Options, shape: tuple[int, ...] = (1, 512, 97, 97)) -> Section:
    """Compare the block with the non-local block, as the paper does: time, memory and FLOPs."""
    options.log(f"non-local {shape}")
    net = peers.NonLocalPeer(_block(shape, options))
    x, grad = _features(shape, options), _features(shape, options)
    calls = {"non-local": cases.forward(net, x), **_block_calls(shape, False, options)}
    steps = {"non-local": cases.step(net, grad, x), **_block_calls(shape, True, options)}
    both, peaks = options.times_and_peaks(steps)
    memory = _beyond_result(peaks, shape, options)
    forward = options.times(calls)
    positions = shape[0] * math.prod(shape[2:])
    pairs = positions**2 * (shape[1] + shape[1] // cases.REDUCTION)
    projections = positions * shape[1] * (shape[1] + 2 * shape[1] // cases.REDUCTION)
    work = dict.fromkeys(both, cases.multiply_adds(cases.block_matmuls(shape, False, RECURRENCE)))
    work["non-local"] = pairs // shape[0] + projections
    names = {"ours": "ours", "NCHW": "ours, NCHW", "checkpoint": "ours, checkpoint=True"}
    rows = [
        [
            names.get(name, name),
            f"{2 * work[name] / 1e9:.1f}",
            _milliseconds(forward[name]._asdict()),
            _milliseconds(both[name]._asdict()),
            f"{peak / 2**20:.0f}",
            f"{memory['non-local'] / peak:.1f}",
        ]
        for name, peak in memory.items()
    ]
    headers = ["", "GFLOPs forward", "forward, ms", "forward + backward, ms", "peak, MiB"]
    headers.append("non-local peak / peak")
    notes = [
        "non-local: one block that keeps all attention weights in memory, as in the paper: "
        "separate matrix multiplications and a softmax, which hold four matrices of all pairs of "
        "positions at the peak (NonLocal of ccsa, in `python -m experiments.ccnet_costs`, holds "
        f"three); the criss-cross blocks have R = {RECURRENCE} recurrences; GFLOPs are counted as "
        "in the paper, two per multiply-add",
        "peak: of a forward and backward pass without weights, feature map and result",
    ]
    record = {"shape": shape, "memory": memory, "multiply_adds": work}
    record |= {"forward": {n: t._asdict() for n, t in forward.items()}}
    record |= {"forward + backward": {n: t._asdict() for n, t in both.items()}}
    title = f"Comparison with the non-local block at {_name(shape)}"
    return Section("non-local", title, headers, rows, notes, [record])


def _features(shape, options: Options) -> Tensor:
    return cases.random_features(shape, options.device, options.dtype)


def _block(shape, options: Options, **keywords) -> CrissCross:
    torch.manual_seed(0)
    net = CrissCross(shape[1], recurrence=RECURRENCE, dims=len(shape) - 2, **keywords)
    nn.init.constant_(net.gamma, 0.5)
    return net.to(options.device, options.dtype).train()


def _operator_calls(shape, backward: bool, options: Options) -> dict[str, cases.Call]:
    batch, channels, *size = shape
    small = (batch, channels // cases.REDUCTION, *size)
    nchw = [_features(s, options) for s in (small, small, shape)]
    last = [cases.channels_last(x) for x in nchw]
    functions = {
        "ours": (criss_cross_attention, last),
        "NCHW": (criss_cross_attention, nchw),
        "mmcv": (peers.mmcv_attention, nchw),
        "official": (peers.official_attention, nchw),
    }
    return _calls(functions, shape, backward, options)


def _block_calls(shape, backward: bool, options: Options) -> dict[str, cases.Call]:
    ours = _block(shape, options)
    nchw = [_features(shape, options)]
    last = [cases.channels_last(x) for x in nchw]
    functions = {
        "ours": (ours, last),
        "NCHW": (ours, nchw),
        "checkpoint": (_block(shape, options, checkpoint=True), last),
        "mmcv": (peers.MmcvBlock(ours) if len(shape) == 4 else None, nchw),
        "official": (peers.OfficialBlock(ours), nchw),
    }
    return _calls(functions, shape, backward, options)


def _calls(functions, shape, backward: bool, options: Options) -> dict[str, cases.Call]:
    if len(shape) != 4:
        functions.pop("mmcv")  # it has two axes only
    grad = _features(shape, options)
    grads = {"NCHW": grad, **dict.fromkeys(PEERS, grad)}
    last = cases.channels_last(grad)
    return {
        name: cases.step(f, grads.get(name, last), *xs) if backward else cases.forward(f, *xs)
        for name, (f, xs) in functions.items()
    }


def _beyond_result(peaks: Mapping[str, int], shape, options: Options) -> dict[str, int]:
    result = math.prod(shape) * options.dtype.itemsize  # exists until the end of backward
    return {name: peak - result for name, peak in peaks.items() if name != "products"}


def _record(shape, backward: bool, calls, sizes: cases.Sizes, options: Options) -> dict:
    like = torch.empty(0, device=options.device, dtype=options.dtype)
    calls = {**calls, "products": cases.matmuls(sizes, like)}
    times, peaks = options.times_and_peaks(calls) if backward else (options.times(calls), {})
    fastest = min(times[name].median for name in PEERS if name in times)
    record = {
        "shape": shape,
        "pass": "forward + backward" if backward else "forward",
        "multiply_adds": cases.multiply_adds(sizes),
        "seconds": {name: timing._asdict() for name, timing in times.items()},
        "speed_up": fastest / times["ours"].median,
        "over_products": times["ours"].median / times["products"].median,
    }
    if backward:
        record["memory"] = _beyond_result(peaks, shape, options)
    return record


def _name(shape) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def _section(name: str, title: str, records: list[dict], names: list[str], notes) -> Section:
    """Return a section with the rows of forward, then those of forward and backward."""
    headers = ["(B, C, *S)", "pass", *(f"{n}, ms" for n in names), "speed-up", "matmuls, ms"]
    headers += ["ours / matmuls", "roofline, ms", "G multiply-adds"]
    headers.append("memory: " + " / ".join(names))
    rows = []
    for what in ("forward", "forward + backward"):
        chosen = [record for record in records if record["pass"] == what]
        rows += [_row(record, names) for record in chosen]
        speed_up, over = (
            math.exp(sum(math.log(record[key]) for record in chosen) / len(chosen))
            for key in ("speed_up", "over_products")
        )
        rows.append(
            [
                *("**geometric mean**", what, *[""] * len(names)),
                *(f"**{speed_up:.2f}**", "", f"**{over:.2f}**", "", "", ""),
            ]
        )
    notes = [
        "median of the turns ± half the interquartile range; 0 if turns are so long that only one "
        "is timed",
        "speed-up: time of the faster of the other implementations / time of ours",
        "matmuls: only the matrix multiplications, of the same sizes on contiguous operands; "
        "ours / matmuls: how far ours is from this lower bound",
        *notes,
    ]
    return Section(name, title, headers, rows, notes, records)


def _row(record: dict, names: list[str]) -> list[str]:
    seconds, memory = record["seconds"], record.get("memory", {})
    peaks = (f"{memory[n] / 2**20:.0f}" if n in memory else "-" for n in names)
    return [
        *(_name(record["shape"]), record["pass"]),
        *(_milliseconds(seconds.get(name)) for name in names),
        f"{record['speed_up']:.2f}",
        _milliseconds(seconds["products"]),
        f"{record['over_products']:.2f}",
        f"{record['roofline'] * 1e3:.3g}" if "roofline" in record else "",
        f"{record['multiply_adds'] / 1e9:.2f}",
        " / ".join(peaks) if memory else "",
    ]


def _milliseconds(timing: dict | None) -> str:
    return f"{timing['median'] * 1e3:.1f} ± {timing['spread'] * 1e3:.1f}" if timing else "-"
