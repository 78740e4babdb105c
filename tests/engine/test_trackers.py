"""Writers for experiment trackers, with packages that record the calls."""

import sys
from types import SimpleNamespace

import pytest
from detectron2.config import get_cfg
from detectron2.utils.events import EventStorage

from ccsa.config import add_ccsa_config
from ccsa.engine.trackers import IDENTIFIER, build_tracker, check_tracker
from ccsa.errors import MissingPackageError


class Package:
    """Stands for each of the three packages."""

    def __init__(self):
        self.started, self.logged, self.ended = [], [], 0

    def init(self, **given):
        self.started.append(given)
        return SimpleNamespace(
            log=lambda scalars, step: self.log_metrics(scalars, step), finish=self.end_run
        )

    def set_experiment(self, name):
        self.experiment = name

    def start_run(self, **given):
        self.started.append(given)
        return SimpleNamespace(info=SimpleNamespace(run_id=given.get("run_id", "new")))

    def log_params(self, settings):
        assert settings["SOLVER.BASE_LR"] == "0.001"

    def log_metrics(self, scalars, step):
        self.logged.append((step, scalars))

    def end_run(self):
        self.ended += 1


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.OUTPUT_DIR = str(tmp_path / "digits/3")
    return cfg


@pytest.mark.parametrize("name", ["wandb", "mlflow", "trackio"])
def test_every_scalar_is_written_once_and_a_resumed_run_continues(name, cfg, monkeypatch):
    package = Package()
    monkeypatch.setitem(sys.modules, name, package)
    package.__spec__ = SimpleNamespace(name=name)
    cfg.TRACKER = name
    (writer,) = build_tracker(cfg)
    with EventStorage(0) as storage:
        for storage.iter in range(3):
            storage.put_scalar("total_loss", float(storage.iter), smoothing_hint=False)
            if storage.iter == 1:
                storage.put_scalar("segm/AP", 12.0, smoothing_hint=False)
            writer.write()
            writer.write()  # nothing is new
        writer.close()
    assert package.logged == [
        (0, {"total_loss": 0.0}),
        (1, {"total_loss": 1.0, "segm/AP": 12.0}),
        (2, {"total_loss": 2.0}),
    ]
    assert package.ended == 1
    (again,) = build_tracker(cfg)
    known = (again._file.parent / IDENTIFIER).read_text()
    first, second = package.started
    key = {"wandb": "id", "mlflow": "run_id", "trackio": "name"}[name]
    assert second[key] == known and first.get(key, known) == known


def test_a_tracker_that_fails_does_not_stop_training(cfg, monkeypatch, caplog):
    def fail(scalars, step):
        raise ConnectionError("no network")

    package = Package()
    package.log_metrics, package.__name__ = fail, "wandb"
    monkeypatch.setitem(sys.modules, "wandb", package)
    package.__spec__ = SimpleNamespace(name="wandb")
    cfg.TRACKER = "wandb"
    (writer,) = build_tracker(cfg)
    with EventStorage(0) as storage:
        for storage.iter in range(3):
            storage.put_scalar("total_loss", 1.0)
            writer.write()
    assert [record.getMessage().count("no network") for record in caplog.records] == [1]


def test_names_that_mlflow_does_not_accept_are_changed(cfg, monkeypatch):
    package = Package()
    monkeypatch.setitem(sys.modules, "mlflow", package)
    package.__spec__ = SimpleNamespace(name="mlflow")
    cfg.TRACKER = "mlflow"
    (writer,) = build_tracker(cfg)
    writer.log({"sem_seg/min(IoU, B-Iou)-2": 1.0}, 0)
    assert package.logged == [(0, {"sem_seg/min_IoU_ B-Iou_-2": 1.0})]


def test_a_missing_tracker_is_named_before_training(cfg):
    cfg.TRACKER = ""
    assert build_tracker(cfg) == []
    with pytest.raises(MissingPackageError, match="pip install no_such_tracker"):
        check_tracker("no_such_tracker")
