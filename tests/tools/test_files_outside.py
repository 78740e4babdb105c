"""Names and links in files of others lead no tool to a file outside its folders."""

import json

import compare_runs
import demo
import evaluate_panoptic
import numpy as np
import prepare_dataset
import pytest
import train_net
from PIL import Image
from support import panoptic_files

from ccsa.data import read_folder


def rename_first(file, name):
    content = json.loads(file.read_text())
    content["annotations"][0]["file_name"] = name
    file.write_text(json.dumps(content))


@pytest.fixture
def pair(tmp_path):
    return panoptic_files.write_pair(tmp_path / "pair", 3, size=(20, 24))


@pytest.mark.parametrize("which", ["gt", "pred"])
@pytest.mark.parametrize("place", ["absolute", "parent"])
def test_panoptic_files_are_read_from_their_folder(pair, run_tool, which, place):
    Image.fromarray(np.zeros((20, 24, 3), np.uint8)).save(pair / "secret.png")
    name = {"absolute": str(pair / "secret.png"), "parent": "../secret.png"}[place]
    rename_first(pair / f"{which}.json", name)
    places = {"gt-json": "gt.json", "gt-dir": "gt", "pred-json": "pred.json", "pred-dir": "pred"}
    words = [str(w) for key, file in places.items() for w in (f"--{key}", pair / file)]
    status, _, err = run_tool(evaluate_panoptic, *words)
    assert status == 2 and "leads out" in err and "Traceback" not in err


@pytest.mark.parametrize("name", ["../panoptic_val2017/x.png", "/tmp/x.png"])
def test_prepared_labels_stay_in_their_folder(tmp_path, run_tool, name):
    base = tmp_path / "coco"
    (base / "annotations").mkdir(parents=True)
    folder = panoptic_files.write_pair(tmp_path / "pair", 1)
    (folder / "gt").rename(base / "panoptic_val2017")
    (folder / "gt.json").rename(base / "annotations" / "panoptic_val2017.json")
    rename_first(base / "annotations" / "panoptic_val2017.json", name)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    status, _, err = run_tool(prepare_dataset, "coco_panoptic", "--root", tmp_path)
    assert status == 2 and "leads out" in err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.png")} == before


def test_a_panoptic_dataset_reports_names_that_lead_outside(tmp_path):
    folder = panoptic_files.write_pair(tmp_path / "pair", 3, size=(20, 24))
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    content = json.loads((folder / "gt.json").read_text())
    for entry in content["annotations"]:
        Image.new("RGB", (24, 20)).save(data / "images" / entry["file_name"])
    content["annotations"][0]["file_name"] = "../../secret.png"
    (folder / "gt").rename(data / "panoptic")
    (data / "panoptic.json").write_text(json.dumps(content))
    found = read_folder(data, format="coco_panoptic")
    assert "../../secret.png" in next(p.message for p in found.problems if p.kind == "outside")
    records = [record for split in found.splits.values() for record in split]
    assert not any("secret" in str(record) for record in records)


@pytest.fixture
def no_network(monkeypatch):
    """Fail if anything is fetched."""

    def fetch(*args, **keywords):
        pytest.fail(f"a download was started: {args}")

    monkeypatch.setattr("urllib.request.urlopen", fetch)
    monkeypatch.setattr("ccsa.utils.downloads.CachedDownloads._get_local_path", fetch)


@pytest.mark.parametrize("content", ["_BASE_: http://host/../x.yaml", "_BASE_: [https://host/x]"])
def test_the_configuration_of_a_run_downloads_nothing(make_run, run_tool, no_network, content):
    run = make_run("run", {"sem_seg": {"mIoU": 1.0}})
    (run / "model_final.pth").write_bytes(b"")
    config = run / "config.yaml"
    config.write_text(f"{config.read_text()}\n{content}\n")
    image = run / "a.png"
    Image.new("RGB", (20, 20)).save(image)
    for tool, *words in (
        (compare_runs, run),
        (demo, "--weights", run, "--input", image, "--output", run / "drawn"),
        (train_net, "--config-file", config, "OUTPUT_DIR", run.parent / "new"),
    ):
        status, _, err = run_tool(tool, *words)
        assert status == 2 and "never downloads anything" in err


def test_weights_of_a_run_are_not_downloaded_unless_named(make_run, run_tool, no_network, tmp_path):
    weights = "detectron2://x/../../y.pkl"
    run = make_run("run", None, options=["MODEL.WEIGHTS", weights])
    words = ["--config-file", run / "config.yaml", "OUTPUT_DIR", tmp_path / "new"]
    status, _, err = run_tool(train_net, *words)
    assert status == 2 and f"add MODEL.WEIGHTS {weights} to the command line" in err
