"""What a finished run writes and prints."""

import argparse
import json

import pytest
import torch
from torch import nn

from ccsa.engine import finish_run, record_config, run_lifecycle, setup_cfg, start_run


@pytest.fixture
def cfg(root, tmp_path, monkeypatch):
    def draw(cfg, model, dataset, path):
        path.write_bytes(b"picture")

    monkeypatch.setattr(run_lifecycle, "draw_predictions", draw)
    file = root / "configs/digits/ccnet_mask_rcnn.yaml"
    opts = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", str(tmp_path)]
    return setup_cfg(argparse.Namespace(config_file=str(file), opts=opts))


def finish(cfg, capsys, results, seconds=225.4):
    finish_run(cfg, nn.Identity(), results, seconds)
    return capsys.readouterr().out


def test_the_main_metric_and_all_files_are_printed(cfg, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run_lifecycle, "peak_memory", lambda: round(1.3 * 2**30))
    for name in ("model_final.pth", "log.txt"):
        (tmp_path / name).write_text("")
    printed = finish(cfg, capsys, {"bbox": {"AP": 50.0}, "segm": {"AP": 62.34}})
    assert printed == (
        "\nmask AP 62.3 in 225 s, 1.3 GiB\n\n"
        f"results:     {tmp_path}/results.json\n"
        f"predictions: {tmp_path}/predictions.png\n"
        f"weights:     {tmp_path}/model_final.pth\n"
        f"curves:      tensorboard --logdir {tmp_path}\n"
        f"log:         {tmp_path}/log.txt\n"
    )
    record = json.loads((tmp_path / "results.json").read_text())
    provenance = record.pop("provenance")
    assert provenance["command"].startswith("python ")
    assert provenance["versions"]["torch"] == torch.__version__
    assert record == {
        "results": {"bbox": {"AP": 50.0}, "segm": {"AP": 62.34}},
        "seconds": 225.4,
        "peak_memory_bytes": round(1.3 * 2**30),
    }


def test_a_platform_that_does_not_report_memory(cfg, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run_lifecycle, "peak_memory", lambda: None)
    printed = finish(cfg, capsys, {"segm": {"AP": 62.34}})
    assert "\nmask AP 62.3 in 225 s\n" in printed and "GiB" not in printed
    assert json.loads((tmp_path / "results.json").read_text())["peak_memory_bytes"] is None


def test_scores_that_are_not_numbers_become_null(cfg, tmp_path, capsys):
    printed = finish(cfg, capsys, {"segm": {"AP": float("nan"), "APs": float("inf"), "AP50": 1.0}})
    assert "mask AP: not available, because nothing was detected (225 s" in printed
    scores = json.loads((tmp_path / "results.json").read_text())["results"]["segm"]
    assert scores == {"AP": None, "APs": None, "AP50": 1.0}


def test_a_run_without_evaluation_has_no_metric(cfg, tmp_path, capsys):
    cfg.defrost()
    cfg.DATASETS.TEST = ()
    assert finish(cfg, capsys, {}).startswith(f"results:     {tmp_path}/results.json\n")
    assert not (tmp_path / "predictions.png").exists()


def test_with_several_test_datasets_the_first_is_the_main_one(cfg, capsys):
    cfg.defrost()
    cfg.DATASETS.TEST = ("digits_val", "digits_train")
    results = {"digits_val": {"segm": {"AP": 10.0}}, "digits_train": {"segm": {"AP": 90.0}}}
    assert "mask AP 10.0 in" in finish(cfg, capsys, results)


def test_a_started_run_has_its_configuration_and_logs(cfg, tmp_path, monkeypatch):
    logs = []
    monkeypatch.setattr(
        run_lifecycle, "setup_logger", lambda folder, name, **_: logs.append((folder, name))
    )
    start_run(cfg)
    assert not (tmp_path / "config.yaml").exists()  # the weights may not fit
    record_config(cfg)
    assert (tmp_path / "config.yaml").read_text() == cfg.dump()
    assert logs == [(str(tmp_path), name) for name in ("fvcore", "detectron2", "ccsa")]


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyError(7), AssertionError()])
def test_a_picture_that_cannot_be_drawn_is_one_sentence(cfg, capsys, logged, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(run_lifecycle, "draw_predictions", fail)
    printed = finish(cfg, capsys, {"segm": {"AP": 62.34}})
    assert "mask AP 62.3" in printed and "results:" in printed
    assert "predictions:" not in printed
    assert (
        f"was not drawn ({type(error).__name__}" in logged.text and "Traceback" not in logged.text
    )
