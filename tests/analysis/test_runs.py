"""Runs are read from their folders and grouped."""

import argparse
import json
import math
import statistics

import pytest
from detectron2.config import get_cfg

from ccsa.analysis.runs import Spread, choose_metric, find_runs, group_runs, read_run
from ccsa.engine import finish_run, setup_cfg
from ccsa.errors import UserError


def semantic(value, **more):
    return {"sem_seg": {"mIoU": value, "pACC": value + 1, "IoU-sand": 9.0, **more}}


def label_and_values(*args):
    metric = choose_metric(*args)
    return metric.label, metric.values


def read(*folders):
    return group_runs([read_run(folder) for folder in folders])


def test_seeds_of_one_configuration_are_one_group(make_run):
    folders = [
        make_run("digits/fcn/1", semantic(10.0)),
        make_run("digits/wide/1", semantic(70.0), options=["MODEL.SEM_SEG_HEAD.CONVS_DIM", 128]),
        make_run("digits/fcn/2", semantic(13.0), options=["SEED", 2]),
    ]
    groups = read(*folders)
    assert [(g.name, [r.folder for r in g.runs]) for g in groups] == [
        ("fcn", [folders[0], folders[2]]),
        ("wide", [folders[1]]),
    ]
    metric = choose_metric(groups)
    assert metric[:3] == ("mIoU", "sem_seg", "mIoU")
    assert metric.values == [(10.0, 13.0), (70.0,)]


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["a/x/1", "b/x/1"], ["a/x", "b/x"]),
        (["x/1", "x/2"], ["x, MAX_ITER 10", "x, MAX_ITER 11"]),
        (["first", "second"], ["first", "second"]),
    ],
)
def test_names_tell_the_groups_apart(make_run, folders, names):
    made = [
        make_run(folder, semantic(1.0), options=["SOLVER.MAX_ITER", 10 + i])
        for i, folder in enumerate(folders)
    ]
    found = [group.name for group in read(*made)]
    assert len(set(found)) == len(found)
    assert all(
        name == wanted or name.endswith(f"/{wanted}")
        for name, wanted in zip(found, names, strict=True)
    )


def test_a_folder_stands_for_the_runs_below_it(make_run, tmp_path):
    runs = [make_run(f"digits/fcn/{n}", semantic(1.0)) for n in (1, 2, 10)]
    left = make_run("digits/fcn/3", None)
    assert find_runs([tmp_path / "digits"]) == (runs, [left])
    assert find_runs([runs[1], tmp_path / "digits", runs[1]])[0] == [runs[1], runs[0], runs[2]]


def test_places_without_a_finished_run_are_refused(make_run, tmp_path):
    with pytest.raises(UserError, match=r"gone contains no finished run.*results\.json"):
        find_runs([tmp_path / "gone"])
    unfinished = make_run("fcn/1", None)
    with pytest.raises(UserError, match=r"fcn/1 is not finished.*--resume"):
        find_runs([unfinished])
    with pytest.raises(UserError, match="contains no finished run"):
        find_runs([tmp_path])


@pytest.mark.parametrize("text", ["", "[]", '{"results": 3}', '{"seconds": 1}'])
def test_a_record_that_is_none_is_named(make_run, text):
    folder = make_run("fcn/1", semantic(1.0))
    (folder / "results.json").write_text(text)
    with pytest.raises(UserError, match=r"results\.json is not a record of a run"):
        read_run(folder)


def test_a_run_that_evaluated_nothing_is_refused(make_run):
    with pytest.raises(UserError, match="has evaluated nothing"):
        read_run(make_run("fcn/1", {}))


def test_several_test_datasets_are_judged_by_the_first(make_run):
    both = ["DATASETS.TEST", "('digits_val_sem_seg', 'digits_train_sem_seg')"]
    results = {"digits_val_sem_seg": semantic(5.0), "digits_train_sem_seg": semantic(50.0)}
    run = read_run(make_run("fcn/1", results, options=both))
    assert run.results["sem_seg"]["mIoU"] == 5.0


def test_different_datasets_are_refused(make_run):
    a = make_run("fcn/1", semantic(1.0))
    b = make_run("mask/1", {"segm": {"AP": 1.0}}, config="digits/mask_rcnn.yaml")
    with pytest.raises(UserError, match=r"digits_val_sem_seg.*digits_val:.*one dataset"):
        read(a, b)


def test_the_main_metric_is_one_that_all_have(make_run):
    mask, box = {"AP": 60.0, "AP50": 80.0}, {"AP": 50.0}
    keys = {"config": "digits/mask_rcnn.yaml"}
    both = make_run("mask/1", {"bbox": box, "segm": mask}, **keys)
    boxes = make_run("box/1", {"bbox": {"AP": 40.0}}, **keys, options=["MODEL.MASK_ON", False])
    assert label_and_values(read(both)) == ("mask AP", [(60.0,)])
    assert label_and_values(read(both, boxes)) == ("box AP", [(50.0,), (40.0,)])
    with pytest.raises(UserError, match=r"segm/AP50 is not a metric of all runs.*bbox/AP$"):
        choose_metric(read(both, boxes), "segm/AP50")


def test_any_metric_can_be_chosen(make_run):
    results = {"bbox": {"AP": 50.0, "AP-3": 1.0}, "segm": {"AP": 60.0, "AP50": 80.0}}
    groups = read(make_run("mask/1", results, config="digits/mask_rcnn.yaml"))
    assert label_and_values(groups, "bbox/AP") == ("bbox/AP", [(50.0,)])
    assert label_and_values(groups, "AP50") == ("AP50", [(80.0,)])
    assert label_and_values(groups, "AP-3") == ("AP-3", [(1.0,)])
    with pytest.raises(UserError, match="AP is in several tasks; available: bbox/AP, segm/AP"):
        choose_metric(groups, "AP")
    known = "bbox/AP, segm/AP, segm/AP50, and for each class e.g. bbox/AP-3"
    with pytest.raises(UserError, match=f"mIoU is not a metric of all runs; available: {known}"):
        choose_metric(groups, "mIoU")


def test_mean_and_deviation_leave_out_what_is_no_number():
    spread = Spread([1.0, float("nan"), 4.0, 4.0])
    assert spread == (1.0, 4.0, 4.0)
    assert spread.mean == 3.0
    assert spread.deviation == pytest.approx(((4 + 1 + 1) / 2) ** 0.5)
    assert spread.deviation == pytest.approx(statistics.stdev([1, 4, 4]))
    assert Spread([2.0]).deviation is None and Spread([float("nan")]).mean is None


def test_figures_of_what_never_occurs_are_null_in_the_file_and_nan_when_read(make_run):
    folder = make_run("digits/fcn/1", None)
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.DATASETS.TEST = str(folder), ()
    finish_run(cfg, None, semantic(10.0, **{"IoU-sand": math.nan}), seconds=1.0)
    text = (folder / "results.json").read_text()
    assert json.loads(text)["results"]["sem_seg"]["IoU-sand"] is None
    assert "NaN" not in text
    results = read_run(folder).results["sem_seg"]
    assert results["mIoU"] == 10.0 and math.isnan(results["IoU-sand"])


def test_runs_with_overlays_are_groups_of_their_own_and_named_after_them(make_run):
    seeds = [["SEED", seed] for seed in (1, 2)]
    folders = [make_run(f"fcn/{n}", semantic(1.0), options=seeds[n - 1]) for n in (1, 2)]
    folders += [
        make_run(f"fcn+ohem/{n}", semantic(2.0), options=seeds[n - 1], overlays=["ohem"])
        for n in (1, 2)
    ]
    groups = read(*folders)
    assert [(group.name, len(group.runs)) for group in groups] == [("fcn", 2), ("fcn+ohem", 2)]
    config = folders[2] / "config.yaml"  # complete: it loads without its overlays
    cfg = setup_cfg(argparse.Namespace(config_file=str(config), opts=["MODEL.DEVICE", "cpu"]))
    assert cfg.MODEL.SEM_SEG_HEAD.OHEM.ENABLED
