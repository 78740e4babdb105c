"""Branches of squeeze-and-attention, class scores of heads, and ground truth on the page."""

import argparse
import base64
import io
import json
import re
from pathlib import Path

import explore as tool
import matplotlib
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from PIL import Image
from support.browser import By, WebDriverWait, console_errors, open_page
from support.tiny_runs import write_run

from ccsa.analysis import attention_maps
from ccsa.data.synthetic import digits
from ccsa.engine import trained_cfg
from ccsa.prediction import Predictor
from ccsa.report.explorer_truth import find_truth

NAMES = ["attention branch", "main branch", "product", "contribution"]


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    """Write a run of SANet with two stages, of which inference uses one."""
    config = {
        "_BASE_": str(root / "configs/digits/sanet.yaml"),
        "MODEL": {
            "DEVICE": "cpu",
            "RESNETS": {"RES2_OUT_CHANNELS": 8, "STEM_OUT_CHANNELS": 8},
            "SEM_SEG_HEAD": {"CONVS_DIM": 8, "SANET": {"CHANNELS": 8}},
        },
    }
    return write_run(tmp_path_factory.mktemp("sanet") / "run", config, seed=3)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    folder = tmp_path_factory.mktemp("datasets")
    digits.write_digits(folder / "digits", {"train": 1, "val": 2})
    return folder / "digits/val/000001.jpg"


@pytest.fixture(scope="module")
def page(run, image, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "page.html"
    with pytest.MonkeyPatch.context() as context:
        words = ["--weights", str(run), "--input", str(image), "--output", str(file)]
        context.setattr("sys.argv", ["explore.py", *words])
        tool.main()
    return file


@pytest.fixture(scope="module")
def shown(page):
    text = page.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    return data["runs"][0]["images"][0]


@pytest.fixture(scope="module")
def maps(run, image):
    predictor = Predictor.from_run(run)
    return attention_maps(predictor.model, [predictor.prepare(image)])


def values_of(entry, size):
    """Return the values that a picture shows, to one step of its colors."""
    data = base64.b64decode(entry["picture"].partition(",")[2])
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    factor = picture.size[1] // size[0]
    pixels = np.asarray(picture)[::factor, ::factor].astype(int)
    colors = matplotlib.colormaps["viridis"](np.arange(256), bytes=True)[:, :3].astype(int)
    steps = np.abs(pixels[:, :, None] - colors).sum(-1).argmin(-1)
    return entry["low"] + (entry["high"] - entry["low"]) * steps / 255


def test_every_stage_is_shown_with_its_branches(shown, maps):
    assert shown["blocks"] == []
    assert [block["path"] for block in shown["squeeze"]] == list(maps.squeeze_attention)
    assert len(shown["squeeze"]) == 2, "also the stage that inference skips"
    for block, (found,) in zip(shown["squeeze"], maps.squeeze_attention.values(), strict=True):
        assert [entry["name"] for entry in block["maps"]] == NAMES
        for name, entry in zip(("attention", "main", "product"), block["maps"], strict=False):
            expected = torch.linalg.vector_norm(getattr(found, name)[0], dim=0).numpy()
            assert entry["high"] == pytest.approx(expected.max(), rel=1e-6) and entry["low"] == 0
            drawn = values_of(entry, expected.shape)
            assert np.abs(drawn - expected).max() < 0.01 * expected.max()
        assert "Non-residual form" in block["words"]


def test_every_output_of_the_head_is_shown(shown, maps):
    (head,), (scores,) = shown["scores"], maps.class_scores.values()
    spatial = [name for name in scores if scores[name].dim() == 4]
    assert [output["name"] for output in head["outputs"]] == spatial
    assert set(spatial) == {"prediction", "mask", "dense", "res2", "res3"}
    assert len(head["categories"]) == 6 and head["categories"][0].endswith("%")
    labels = scores["prediction"][0].argmax(0)
    most = int(labels.flatten().mode().values)
    expected = scores["mask"][0].softmax(0)[most].numpy()
    entry = next(o for o in head["outputs"] if o["name"] == "mask")["maps"][0]
    assert np.abs(values_of(entry, expected.shape) - expected).max() < 0.01


def test_images_of_no_dataset_have_no_ground_truth(shown, page):
    assert shown["truth"] is None
    with open_page(page) as driver:
        WebDriverWait(driver, 20).until(lambda d: d.find_elements(By.CSS_SELECTOR, "#runs h3"))
        assert console_errors(driver) == []
        assert driver.find_element(By.ID, "notruth").is_displayed()
        assert not driver.find_element(By.ID, "question").is_displayed()
        assert len(driver.find_elements(By.CSS_SELECTOR, "#runs h3")) == 2
        script = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
        WebDriverWait(driver, 20).until(lambda d: d.execute_script(script))


def test_the_ground_truth_of_an_image_of_the_dataset_is_found(run, tmp_path):
    cfg = trained_cfg(argparse.Namespace(weights=str(run), config_file="", opts=[]))
    record = DatasetCatalog.get(cfg.DATASETS.TEST[0])[0]
    link = tmp_path / "link.jpg"
    link.symlink_to(Path(record["file_name"]).resolve())
    other = tmp_path / "other.jpg"
    Image.new("RGB", (8, 8)).save(other)
    found = find_truth(cfg, [link, other])
    assert list(found) == [link]
    assert found[link].dataset == cfg.DATASETS.TEST[0]
    assert found[link].record["file_name"] == record["file_name"]
