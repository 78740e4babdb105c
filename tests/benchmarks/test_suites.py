"""The suites of the benchmarks on small feature maps: what they count, call and write."""

import json
import math

import pytest
import torch

from benchmarks import attention, cases, compilation, evaluation, report, scaling
from benchmarks.attention import Options
from benchmarks.model import CONFIGS, whole_model
from ccsa.analysis import count_flops
from ccsa.analysis.measure import peak_bytes

SHAPES = [(1, 16, 6, 5), (1, 16, 2, 3, 4)]


@pytest.fixture
def options():
    return Options(torch.device("cpu"), torch.float32, SHAPES, 0, 2, log=lambda text: None)


def test_products_are_those_of_scores_and_values():
    positions, cross, channels = 6 * 5, 6 + 5, 16 + 2
    forward = sum(b * m * k * n for b, m, k, n in cases.operator_matmuls((1, 16, 6, 5), False))
    assert forward == positions * cross * channels
    both = sum(b * m * k * n for b, m, k, n in cases.operator_matmuls((1, 16, 6, 5), True))
    assert both == 3 * forward


def test_the_block_adds_its_projections():
    operator = cases.multiply_adds(cases.operator_matmuls((1, 16, 6, 5), False))
    block = cases.multiply_adds(cases.block_matmuls((1, 16, 6, 5), False, 2))
    assert block == 2 * (operator + 30 * 16 * (16 + 2 * 2))
    assert cases.multiply_adds(cases.block_matmuls((1, 16, 6, 5), True, 2)) == 3 * block


def test_roofline_is_the_slower_of_memory_and_arithmetic():
    like = torch.empty(0)
    shape = (1, 16, 6, 5)
    moved = 4 * 30 * (16 + 16 + 2 + 2)
    assert cases.roofline(shape, False, like, 1.0, 1e12) == pytest.approx(moved)
    assert cases.roofline(shape, False, like, 1e12, 1.0) == pytest.approx(2 * 30 * 11 * 18)


def test_steps_leave_no_gradient(options):
    block = attention._block(SHAPES[0], options)
    x = attention._features(SHAPES[0], options)
    cases.step(block, torch.ones_like(x), x)()
    assert x.grad is None and all(p.grad is None for p in block.parameters())


@pytest.mark.parametrize("suite", [attention.operator, attention.block])
def test_every_contender_is_measured_at_every_shape(suite, options):
    section = suite(options)
    assert len(section.records) == 2 * len(SHAPES)
    for record in section.records:
        names = {"ours", "official"} | ({"mmcv"} if len(record["shape"]) == 4 else set())
        assert names <= set(record["seconds"])
        assert ("mmcv" in record["seconds"]) == (len(record["shape"]) == 4)
        assert all(t["median"] > 0 for t in record["seconds"].values())
        fastest = min(record["seconds"][n]["median"] for n in names - {"ours"})
        assert record["speed_up"] == pytest.approx(fastest / record["seconds"]["ours"]["median"])
    table = section.table("github")
    assert table.count("geometric mean") == 2 and "(1, 16, 2, 3, 4)" in table


def test_fused_attention_on_the_cpu_counts():
    q, k, v = (torch.randn(1, 1, 40, c, requires_grad=True) for c in (8, 8, 8))
    attention = torch.nn.functional.scaled_dot_product_attention
    forward = count_flops(attention, (q, k, v))
    assert forward == 40 * 40 * (8 + 8)
    step = count_flops(lambda: attention(q, k, v).sum().backward(), ())
    assert step == forward + 40 * 40 * 5 * 8  # scores once more


def test_memory_of_the_non_local_block_grows_with_all_pairs(options):
    section = attention.non_local(options, (1, 16, 40, 40))
    memory = section.records[0]["memory"]
    assert memory["non-local"] > 3 * 4 * 1600**2 * 0.99  # weights and two gradients
    assert memory["checkpoint"] < memory["ours"] < memory["official"] < memory["non-local"]


def peaks(calls, shape, options):
    """Return the peak memory of each call without its result; nothing is timed."""
    found = {name: peak_bytes(call, options.device) for name, call in calls.items()}
    return attention._beyond_result(found, shape, options)


@pytest.mark.parametrize("shape", [(1, 512, 7, 200), (1, 1024, 50, 84)], ids=str)
@pytest.mark.parametrize("calls", [attention._operator_calls, attention._block_calls])
def test_memory_is_below_both_peers_in_any_layout(calls, shape, options):
    memory = peaks(calls(shape, True, options), shape, options)
    theirs = memory.pop("mmcv"), memory.pop("official")
    assert max(memory.values()) < min(theirs), memory


def test_memory_of_two_loops_on_the_papers_map(options):
    """The non-local block takes 1,374 MiB: 11 times as much, as in the paper, or 16 times with
    checkpointing."""
    shape = (1, 512, 97, 97)
    calls = attention._block_calls(shape, True, options)
    calls = {name: calls[name] for name in ("ours", "NCHW", "checkpoint")}
    memory = {name: peak / 2**20 for name, peak in peaks(calls, shape, options).items()}
    assert max(memory["ours"], memory["NCHW"]) < 1374 / 11
    assert memory["checkpoint"] < 1374 / 16


def test_scaling_ends_where_memory_or_time_does(options, monkeypatch, tmp_path):
    sides = [4, 6, 8, 12]
    section = scaling.scaling(options, sides=sides, limit=math.inf)
    assert [len(r["points"]) for r in section.records] == [4] * len(scaling.CONTENDERS)
    scaling.draw(section, tmp_path / "picture.png")
    assert (tmp_path / "picture.png").stat().st_size > 10_000

    monkeypatch.setattr(scaling, "free_bytes", lambda device: 1.0)
    short = scaling.scaling(options, sides=sides, limit=math.inf)
    assert all(len(r["points"]) == 2 and "memory" in r["end"] for r in short.records)
    monkeypatch.undo()
    slow = scaling.scaling(options, sides=sides, limit=0.0)
    assert all(len(r["points"]) == 2 and "would take" in r["end"] for r in slow.records)


def test_the_document_has_command_machine_and_tables(options):
    section = attention.non_local(options, (1, 16, 8, 8))
    facts = report.machine(options.device)
    text = report.markdown([section], facts, "python -m benchmarks")
    for part in ("python -m benchmarks", torch.__version__, section.title, "| non-local"):
        assert part in text
    content = json.loads(report.as_json([section], facts, "python -m benchmarks"))
    assert content["non-local"] == json.loads(json.dumps(section.records))
    assert content["machine"]["threads"] == torch.get_num_threads()


@pytest.mark.slow
def test_whole_model_measures_steps_and_their_blocks(options, root):
    options.repeats = 1
    section = whole_model(options, root / "configs", size=(64, 96))
    plain, ccnet, non_local = section.records
    assert [record["config"] for record in section.records] == list(CONFIGS)
    assert plain["block"] is None
    assert 0 < ccnet["block"]["median"] < ccnet["median"]
    assert plain["multiply_adds"] < min(ccnet["multiply_adds"], non_local["multiply_adds"])
    assert all(len(row) == len(section.headers) for row in section.rows)


def test_compiled_and_eager_models_take_turns(options, root, monkeypatch):
    modes = []

    def recorded(cfg, model):
        modes.append(cfg.MODEL.COMPILE)
        return model

    monkeypatch.setattr(compilation, "compile_parts", recorded)
    monkeypatch.setattr(compilation, "TURNS", 1)
    section = compilation.compilation(options, root / "configs", size=(64, 96))
    assert modes == [False, True] * len(compilation.CONFIGS)
    assert [record["work"] for record in section.records] == ["training", "inference"] * 2
    assert all(min(r["eager"]["median"], r["compiled"]["median"]) > 0 for r in section.records)
    assert all(len(row) == len(section.headers) for row in section.rows)


def test_the_evaluators_compute_the_same_ap():
    section = evaluation.coco_rates(images=20, objects=60)
    assert {r["task"] for r in section.records} >= {"bbox", "segm"}
    for task in ("bbox", "segm"):
        values = {r["ap"] for r in section.records if r["task"] == task}
        assert max(values) - min(values) < 1e-9 and 1 < max(values) < 99
    assert all(r["seconds"] > 0 and r["bytes"] >= 0 for r in section.records)
