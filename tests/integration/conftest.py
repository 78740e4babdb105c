"""Where the runs of a file go, what they read, and how they are configured."""

import argparse
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from support import former_configs, own_scenes
from support.exact_resume import SCHEDULE

from ccsa.data.own import register_own_data
from ccsa.data.synthetic.moving_cue import register_moving_cue, write_moving_cue
from ccsa.engine import setup_cfg


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """A folder for datasets, and catalogs that hold none yet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatasetCatalog, "data", {})
        patch.setattr(MetadataCatalog, "data", {})
        yield tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="session")
def configure(root):
    """The configuration of ``configs/FILE`` on the CPU, and the command line that names it.

    The name of a former file (``support.former_configs``) stands for the command that replaced it.
    """

    def load(file: Path | str, output: Path | str, *options: object) -> tuple:
        words = ["MODEL.DEVICE", "cpu", "OUTPUT_DIR", output, *options]
        name = Path(root / "configs" / file).relative_to(root / "configs").with_suffix("")
        config_file, overlays = former_configs.command(name.as_posix())
        args = argparse.Namespace(
            config_file=config_file,
            overlays=overlays,
            opts=list(map(str, words)),
            num_gpus=1,
            num_machines=1,
            eval_only=False,
            resume=False,
        )
        return setup_cfg(args), args

    return load


@pytest.fixture(scope="module")
def seven_scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "scenes"
    own_scenes.DIALECTS["coco_panoptic"][0](folder, own_scenes.make_scenes(7))
    return folder


@pytest.fixture
def configured(root, seven_scenes, datasets, monkeypatch, tmp_path):
    """Return the function that gives the configuration of a run."""
    monkeypatch.setenv("CCSA_CACHE", str(tmp_path / "cache"))

    def load(name, output, *options):
        data = {"data": str(seven_scenes)} if name.startswith("own/") else {}
        if not data and not (datasets / "moving_cue").exists():
            write_moving_cue(datasets / "moving_cue", {"train": 7, "val": 2})
            register_moving_cue(datasets)
        words = [*SCHEDULE, *options, "OUTPUT_DIR", output]
        args = argparse.Namespace(
            config_file=str(root / "configs" / f"{name}.yaml"), opts=list(map(str, words)), **data
        )
        cfg = setup_cfg(args)
        register_own_data(cfg)
        return cfg

    return load
