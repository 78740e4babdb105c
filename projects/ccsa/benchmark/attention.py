"""The operator and the block, ours beside the peers."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ccsa.analysis.measure import Timing, peak_bytes, side_by_side
from ccsa.benchmark import cases, peers
from ccsa.benchmark.report import Section
from ccsa.blocks import CrissCross
from ccsa.ops import criss_cross_attention

PEERS = ("mmcv", "official")


@dataclass
class Options:
    """How is measured.

    Attributes:
        shapes: (B, C, *S) of the maps.
        warmup, repeats: turns before those that are timed, and those.
        say: takes a line about what is going on.
    """

    device: torch.device
    dtype: torch.dtype
    shapes: list[tuple[int, ...]] = field(default_factory=lambda: list(cases.SHAPES))
    warmup: int = 1
    repeats: int = 5
    say: Callable[[str], object] = print

    def times(self, calls: Mapping[str, cases.Call]) -> dict[str, Timing]:
        return side_by_side(calls, self.device, self.warmup, self.repeats)


def operator(options: Options) -> Section:
    """criss_cross_attention alone, on given queries, keys and values."""
    bandwidth, rate = cases.device_rates(
        torch.empty(0, device=options.device, dtype=options.dtype),
        lambda call: options.times({"": call})[""].median,
    )
    records = []
    for shape in options.shapes:
        options.say(f"operator {shape}")
        for backward in (False, True):
            calls = _operator_calls(shape, backward, options)
            like = torch.empty(0, device=options.device, dtype=options.dtype)
            floor = {"products": cases.products(shape, backward, like)}
            record = _record(shape, backward, options.times({**calls, **floor}))
            record["roofline"] = cases.roofline(shape, backward, like, bandwidth, rate)
            if backward:
                record["memory"] = _memory(calls, shape, options)
            records.append(record)
    notes = [
        "ours: channels-last operands, as its block has them; NCHW: the contiguous operands that "
        "the peers get",
        "speed-up: the faster peer / ours",
        "products: the matrix products alone, of the same sizes on contiguous operands; "
        "ours / products: how far ours is from them",
        f"roofline: the slower of bytes at {bandwidth / 1e9:.0f} GB/s (a copy) and operations at "
        f"{rate / 1e9:.0f} GFLOP/s (a large matrix product), both measured in this run",
        "memory: peak of a forward and backward pass beyond operands and result, MiB",
    ]
    return _section("operator", "The operator", records, ["ours", "NCHW", *PEERS], notes)


def block(options: Options) -> Section:
    """CrissCross with R = 2 loops, projections and gate included."""
    records = []
    for shape in options.shapes:
        options.say(f"block {shape}")
        for backward in (False, True):
            calls = _block_calls(shape, backward, options)
            record = _record(shape, backward, options.times(calls))
            if backward:
                record["memory"] = _memory(calls, shape, options)
            records.append(record)
    notes = [
        "R = 2 loops, C / 8 channels of query and key, gamma = 0.5, the same weights in all",
        "ours: a channels-last map; NCHW: a contiguous one, which the peers get; checkpoint: with "
        "checkpoint=True",
        "speed-up: the faster peer / ours",
        "memory: peak of a forward and backward pass beyond weights, map and result, MiB",
    ]
    names = ["ours", "NCHW", "checkpoint", *PEERS]
    return _section("block", "The block", records, names, notes)


def non_local_memory(options: Options, shape: tuple[int, ...] = (1, 512, 97, 97)) -> Section:
    """Peak memory of a training step beside the non-local block's, the paper's comparison."""
    options.say(f"memory {shape}")
    calls = _block_calls(shape, True, options)
    x, grad = _map(shape, options), _map(shape, options)
    net = peers.NonLocalPeer(_block(shape, options))
    calls = {"non-local": cases.step(net, grad, x), **calls}
    for call in calls.values():
        call()
    memory = _memory(calls, shape, options)
    names = {"ours": "ours, R = 2", "checkpoint": "ours, R = 2, checkpoint=True"}
    rows = [
        [names.get(n, n), f"{m / 2**20:.0f}", f"{memory['non-local'] / m:.1f}"]
        for n, m in memory.items()
    ]
    return Section(
        "memory",
        f"Memory of a training step at {_name(shape)}, R = 2",
        ["", "peak, MiB", "non-local / it"],
        rows,
        [
            "peak of a forward and backward pass beyond weights, map and result; the non-local "
            "block keeps its weights in memory, as the paper's does"
        ],
        [{"shape": shape, "memory": memory}],
    )


def _map(shape, options: Options) -> Tensor:
    return cases.random_map(shape, options.device, options.dtype)


def _block(shape, options: Options, **keywords) -> CrissCross:
    torch.manual_seed(0)
    net = CrissCross(shape[1], recurrence=2, dims=len(shape) - 2, **keywords)
    nn.init.constant_(net.gamma, 0.5)
    return net.to(options.device, options.dtype).train()


def _operator_calls(shape, backward: bool, options: Options) -> dict[str, cases.Call]:
    batch, channels, *size = shape
    small = (batch, channels // cases.REDUCTION, *size)
    nchw = [_map(s, options) for s in (small, small, shape)]
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
    nchw = [_map(shape, options)]
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
        functions.pop("mmcv")  # has two axes alone
    grad = _map(shape, options)
    grads = {"NCHW": grad, **dict.fromkeys(PEERS, grad)}
    last = cases.channels_last(grad)
    return {
        name: cases.step(f, grads.get(name, last), *xs) if backward else cases.forward(f, *xs)
        for name, (f, xs) in functions.items()
    }


def _memory(calls: Mapping[str, cases.Call], shape, options: Options) -> dict[str, int]:
    result = math.prod(shape) * options.dtype.itemsize  # lives until backward has ended
    return {name: peak_bytes(call, options.device) - result for name, call in calls.items()}


def _record(shape, backward: bool, times: Mapping[str, Timing]) -> dict:
    fastest = min(times[name].median for name in PEERS if name in times)
    return {
        "shape": shape,
        "pass": "forward + backward" if backward else "forward",
        "seconds": {name: timing._asdict() for name, timing in times.items()},
        "speed_up": fastest / times["ours"].median,
    }


def _name(shape) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def _section(name: str, title: str, records: list[dict], names: list[str], notes) -> Section:
    """One table for each pass, under one heading."""
    floor = "products" in records[0]["seconds"]
    headers = ["(B, C, *S)", "pass", *(f"{n}, ms" for n in names), "speed-up"]
    headers += ["products, ms", "ours / products", "roofline, ms"] if floor else []
    headers += ["memory: " + " / ".join(names)]
    rows = []
    for what in ("forward", "forward + backward"):
        chosen = [r for r in records if r["pass"] == what]
        ratios = []
        for record in chosen:
            row = [_name(record["shape"]), what, *(_time(record, n) for n in names)]
            row.append(f"{record['speed_up']:.2f}")
            if floor:
                seconds = record["seconds"]
                ratios.append(seconds["ours"]["median"] / seconds["products"]["median"])
                row += [_time(record, "products"), f"{ratios[-1]:.2f}"]
                row += [f"{record['roofline'] * 1e3:.3g}"]
            memory = record.get("memory", {})
            peaks = (f"{memory[n] / 2**20:.0f}" if n in memory else "-" for n in names)
            row.append(" / ".join(peaks) if memory else "")
            rows.append(row)
        mean = ["**geometric mean**", what, *[""] * len(names)]
        mean.append(f"**{_geometric([r['speed_up'] for r in chosen]):.2f}**")
        mean += ["", f"**{_geometric(ratios):.2f}**", ""] if floor else []
        rows.append([*mean, ""])
    notes = ["median of the turns ± half the distance between their quartiles", *notes]
    return Section(name, title, headers, rows, notes, records)


def _time(record: dict, name: str) -> str:
    timing = record["seconds"].get(name)
    if timing is None:
        return "-"
    return f"{timing['median'] * 1e3:.1f} ± {timing['spread'] * 1e3:.1f}"


def _geometric(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))
