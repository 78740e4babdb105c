"""Run tools/compare_runs.py as a user does."""

import shutil
from functools import partial

import compare_runs as tool
import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image

from ccsa.analysis.runs import read_run
from ccsa.engine import Trainer
from ccsa.utils.run_folders import CONFIG


@pytest.fixture
def run(run_tool):
    return partial(run_tool, tool)


@pytest.fixture
def runs(make_run):
    """Create runs of fcn with two seeds and a mean of 60, and of a second configuration."""
    make_run("digits/fcn/1", {"sem_seg": {"mIoU": 58.0, "pACC": 90.0}})
    make_run("digits/fcn/2", {"sem_seg": {"mIoU": 62.0, "pACC": 91.0}}, options=["SEED", 2])
    other = ["MODEL.SEM_SEG_HEAD.CONVS_DIM", 128]
    last = make_run("digits/wide/1", {"sem_seg": {"mIoU": 70.0, "pACC": 95.0}}, options=other)
    return last.parents[1]


@pytest.fixture
def scene(tmp_path, monkeypatch):
    """Provide a test image, so that no dataset has to be drawn."""
    file = tmp_path / "scene.jpg"
    Image.new("RGB", (160, 160), (90, 120, 150)).save(file)
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: [{"file_name": str(file)}])
    return file


def test_a_seed_that_counts_twice_is_said(run, runs, make_run):
    assert "same seed" not in run(runs, "--no-cost")[1]
    make_run("digits/fcn/3", {"sem_seg": {"mIoU": 58.0, "pACC": 90.0}})
    status, out, _ = run(runs, "--no-cost")
    assert status == 0 and "note: fcn has runs of the same seed (1, 1, 2), so its std" in out


def test_a_line_for_each_configuration(run, runs):
    status, out, _ = run(runs, "--no-cost")
    assert status == 0
    header, _, fcn, wide, *_ = out.splitlines()
    assert "mIoU" in header
    assert " ".join(fcn.split()) == "fcn 2 60.0 2.8 58.0 to 62.0 1.00 GiB"
    assert wide.split()[:5] == ["wide", "1", "70.0", "-", "-"]


def test_without_costs_there_are_no_columns_for_them(run, runs):
    header = run(runs, "--no-cost")[1].splitlines()[0]
    assert header.split() == ["runs", "mIoU", "std", "min", "to", "max", "memory,", "run"]


def test_groups_of_one_configuration_name_the_keys_that_differ(run, runs, make_run):
    assert "CONVS_DIM" not in run(runs, "--no-cost")[1]
    options = ["MODEL.SEM_SEG_HEAD.CONVS_DIM", 128, "SOLVER.BASE_LR", 0.5, "SEED", 3]
    make_run("digits/fcn/3", {"sem_seg": {"mIoU": 64.0, "pACC": 91.0}}, options=options)
    _, out, _ = run(runs / "fcn", "--no-cost")
    assert [line.partition("  ")[0] for line in out.splitlines()[2:4]] == [
        "fcn, CONVS_DIM 64, BASE_LR 0.02",
        "fcn, CONVS_DIM 128, BASE_LR 0.5",
    ]


def test_a_metric_that_no_run_has_is_explained(run, make_run):
    nan = float("nan")
    folder = make_run("digits/fcn/1", {"sem_seg": {"mIoU": nan, "pACC": nan}})
    status, out, _ = run(folder, "--no-cost")
    assert status == 0
    assert "note: no run has a value of mIoU, because its results are nan in every run" in out


def test_cost_of_each_configuration(run, runs, scene):
    counts = []
    for folder in (runs / "fcn/1", runs / "wide/1"):
        model = Trainer.build_model(read_run(folder).cfg)
        torch.save({"model": model.state_dict()}, folder / "model_final.pth")
        counts.append(sum(p.numel() for p in model.parameters()))
    status, out, err = run(runs)
    assert status == 0, err
    for line, count in zip(out.splitlines()[2:4], counts, strict=True):
        assert f"{count / 1e6:.3f} M" in line
        assert " G " in line and "MiB" in line
    assert "one multiply-add is one" in out
    assert "Unsupported operator" not in out + err


def test_what_cannot_be_measured_is_a_dash_and_a_note(run, runs, scene):
    (runs / "wide/1/model_final.pth").write_text("no weights")
    status, out, _ = run(runs)
    assert status == 0
    assert f"note: fcn is not measured: run {runs / 'fcn/1'} has no checkpoint" in out
    assert f"note: wide is not measured: weights {runs / 'wide/1/model_final.pth'} cannot be" in out
    assert all(line.split()[-1] == "-" for line in out.splitlines()[2:4])


def test_the_output_folder(run, runs, tmp_path):
    status, out, _ = run(runs, "--no-cost", "--output", tmp_path / "new/out")
    assert status == 0
    folder = tmp_path / "new/out"
    assert sorted(p.name for p in folder.iterdir()) == ["chart.png", "table.md"]
    assert f"written: {folder / 'table.md'}" in out
    assert "| fcn" in (folder / "table.md").read_text()
    assert Image.open(folder / "chart.png").size[0] > 300


@pytest.mark.parametrize("name", ["table.md", "chart.png"])
def test_nothing_is_overwritten(run, runs, tmp_path, name):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name).write_text("mine")
    status, out, err = run(runs, "--no-cost", "--output", folder)
    assert status == 2 and out == ""
    assert err == f"error: {folder / name} exists already; name another folder with --output\n"
    assert [(p.name, p.read_text()) for p in folder.iterdir()] == [(name, "mine")]


def test_a_table_without_its_chart_is_not_left_behind(run, runs, tmp_path, monkeypatch):
    def fail(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tool, "draw_chart", fail)
    status, _, err = run(runs, "--no-cost", "--output", tmp_path / "out")
    assert status == 2
    assert "No space left" in err
    assert not list((tmp_path / "out").iterdir())


def test_another_metric(run, runs):
    assert "95.0" in run(runs, "--no-cost", "--metric", "pACC")[1]
    status, _, err = run(runs, "--no-cost", "--metric", "AP")
    assert status == 2
    assert err == (
        "error: --metric AP is not a metric of all runs; available: sem_seg/mIoU, sem_seg/pACC\n"
    )


def test_mistakes_end_with_one_message(run, runs, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    for words, message in (
        ([tmp_path / "empty"], "contains no finished run"),
        ([runs, tmp_path / "gone"], "gone contains no finished run"),
        ([runs, "--no-cost", "--output", tmp_path / "file"], "is a file; name a folder"),
    ):
        status, out, err = run(*words)
        assert status == 2 and not out
        assert message in err and len(err.splitlines()) == 1


def test_a_broken_configuration_is_named(run, runs):
    (runs / "wide/1" / CONFIG).write_text("MODEL: {NO_SUCH: 1}")
    status, _, err = run(runs, "--no-cost")
    assert status == 2 and "MODEL.NO_SUCH" in err


def test_unfinished_runs_below_are_left_out(run, runs):
    shutil.copytree(runs / "fcn/1", runs / "fcn/3", ignore=shutil.ignore_patterns("results.json"))
    status, out, _ = run(runs, "--no-cost")
    assert status == 0
    assert f"note: {runs / 'fcn/3'} is not finished and is left out" in out
    status, _, err = run(runs / "fcn/3")
    assert status == 2 and "--resume" in err
