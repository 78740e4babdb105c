import argparse
import re
from pathlib import Path

import pytest
from detectron2.config import CfgNode

from ccsa.errors import UserError
from ccsa.utils.run_folders import choose_output_dir, config_name, last_weights


def choose(output="", resume=False, machines=1, file="configs/digits/x.yaml"):
    args = argparse.Namespace(
        config_file=file, resume=resume, num_machines=machines, machine_rank=0
    )
    return choose_output_dir(CfgNode({"OUTPUT_DIR": str(output)}), args)


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_config_name():
    assert config_name("configs/a.yaml") == Path("a")
    assert config_name("configs/digits/a.yaml") == Path("digits/a")
    assert config_name("mine/a.yaml") == Path("a")


def test_each_run_gets_the_next_number():
    assert choose() == Path("output/digits/x/1")
    assert choose() == Path("output/digits/x/2")
    Path("output/digits/x/9").mkdir()
    assert choose() == Path("output/digits/x/10")


def test_resume_takes_the_latest_run_with_a_checkpoint():
    with pytest.raises(UserError, match="no run"):
        choose(resume=True)
    first, second = choose(), choose()
    (first / "last_checkpoint").write_text("model_final.pth")
    assert second.exists()
    assert choose(resume=True) == first


@pytest.mark.parametrize("sign", ["config.yaml", "last_checkpoint"])
def test_a_folder_that_holds_a_run_is_refused_unless_resumed(tmp_path, sign):
    folder = tmp_path / "mine"
    assert choose(folder) == folder
    (folder / sign).write_text("x")
    with pytest.raises(UserError, match=r"mine already contains a run.*--resume"):
        choose(folder)
    assert choose(folder, resume=True) == folder
    assert (folder / sign).read_text() == "x"


def test_places_that_cannot_be_are_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        choose(tmp_path / "file")
    with pytest.raises(UserError, match="file"):
        choose(tmp_path / "file" / "below")
    with pytest.raises(UserError, match="OUTPUT_DIR"):
        choose(machines=2)


def test_runs_with_overlays_have_their_own_folders(tmp_path):
    def folder(overlays, file="configs/digits/x.yaml", **more):
        args = argparse.Namespace(config_file=file, overlays=overlays, machine_rank=0, **more)
        args.resume, args.num_machines = more.get("resume", False), 1
        return choose_output_dir(CfgNode({"OUTPUT_DIR": ""}), args)

    assert folder([]) == Path("output/digits/x/1")
    assert folder(["r3"]) == Path("output/digits/x+r3/1")
    assert folder(["r3,ccl", "R_101"]) == Path("output/digits/x+r3+ccl+R_101/1")
    assert folder(["r3"]) == Path("output/digits/x+r3/2")
    own = tmp_path / "own.yaml"
    own.write_text("SEED: 1")
    name = re.fullmatch(r"output/(a\+own-[0-9a-f]{8})/1", str(folder([str(own)], "mine/a.yaml")))
    assert folder([str(own)], "mine/a.yaml") == Path(f"output/{name[1]}/2")
    with pytest.raises(UserError, match=r"digits/x\+ccl has a checkpoint"):
        folder(["ccl"], resume=True)
    Path("output/digits/x+r3/1/last_checkpoint").write_text("model_final.pth")
    assert folder(["r3"], resume=True) == Path("output/digits/x+r3/1")


def test_overlays_of_different_content_have_different_names(tmp_path):
    file = tmp_path / "r3.yaml"
    names = {config_name("configs/x.yaml", ["r3"])}
    for text in ("SEED: 1", "SEED: 2"):
        file.write_text(text)
        names.add(config_name("configs/x.yaml", [str(file)]))
    assert len(names) == 3
    odd = tmp_path / ".yaml"
    odd.write_text("SEED: 1")
    assert len(config_name("configs/x.yaml", [str(odd)]).parts) == 1
    with pytest.raises(UserError, match=r"gone\.yaml cannot be read"):
        config_name("configs/x.yaml", ["gone.yaml"])


def test_resume_needs_the_same_model():
    args = argparse.Namespace(
        config_file="configs/x.yaml", resume=False, num_machines=1, machine_rank=0
    )
    model = {"DEVICE": "cpu", "WEIGHTS": "", "RESNETS": {"DEPTH": 50}, "STD": (1.0, 2.0)}
    cfg = CfgNode({"OUTPUT_DIR": "", "SEED": 1, "MODEL": model})
    folder = choose_output_dir(cfg, args)
    (folder / "last_checkpoint").write_text("model_final.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    args.resume = True
    cfg.SEED, cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = 2, "cuda", "x.pkl"
    assert choose_output_dir(cfg, args) == folder
    cfg.MODEL.RESNETS.DEPTH = 101
    with pytest.raises(UserError, match=r"its MODEL\.RESNETS\.DEPTH is 50, not 101; give"):
        choose_output_dir(cfg, args)
    (folder / "config.yaml").write_text("[1]")
    with pytest.raises(UserError, match="is not the configuration of a run"):
        choose_output_dir(cfg, args)


@pytest.mark.parametrize("name", ["../other/model_final.pth", "/etc/passwd", ".", ".."])
def test_the_last_checkpoint_is_in_the_folder(tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last_checkpoint").write_text(name)
    with pytest.raises(UserError, match="not a file in this folder"):
        last_weights(tmp_path / "run")
