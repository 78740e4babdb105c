"""Run tools/demo.py as a user does, on digit scenes, a video and a photograph."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import demo as demo_tool
import numpy as np
import pytest
import torch
import yaml
from detectron2.modeling import build_model
from PIL import Image
from sklearn.datasets import load_sample_image
from support import tiny_models
from support.tiny_runs import VIDEO, write_run

from ccsa.data.folder import read_coco_files
from ccsa.data.synthetic.digits import write_digits
from ccsa.engine import Trainer, setup_cfg
from ccsa.modeling import VideoSemanticSegmentor
from ccsa.visualization import class_metadata
from ccsa.visualization.painter import OPACITY

TOOL = Path(__file__).parents[2] / "tools" / "demo.py"


class Namespace:
    def __init__(self, config_file, opts=()):
        self.config_file, self.opts = str(config_file), list(opts)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return the folder of a run of a tiny model with random weights."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_models.MASK_RCNN))
    torch.manual_seed(0)
    model = build_model(setup_cfg(Namespace(folder / "config.yaml")))
    torch.save({"model": model.state_dict()}, folder / "model_0000009.pth")
    (folder / "last_checkpoint").write_text("model_0000009.pth")
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "digits"
    write_digits(folder, {"train": 1, "val": 3})
    return folder / "val"


@pytest.fixture(scope="module")
def tool():
    return demo_tool


@pytest.fixture
def demo(tool, run, run_tool, monkeypatch):
    """Run the tool with the weights of ``run``; return its exit status, output and errors."""

    def call(*arguments, weights=run, threshold="0.01"):
        options = ["--weights", weights] if weights else []
        options += ["--confidence-threshold", threshold, *arguments]
        monkeypatch.delenv("DISPLAY", raising=False)
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        return run_tool(tool, *options)

    return call


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize("named", ["folder", "glob", "files"])
def test_every_image_of_a_folder_a_glob_or_a_list_is_drawn(demo, scenes, tmp_path, named):
    inputs = {
        "folder": [scenes],
        "glob": [scenes / "0*.jpg"],
        "files": [scenes / name for name in files(scenes)],
    }[named]
    out = tmp_path / "shown"
    status, printed, _ = demo("--input", *inputs, "--output", out)
    assert status == 0
    assert files(out) == files(scenes) == ["000001.jpg", "000002.jpg", "000003.jpg"]
    assert f"3 images drawn in {out}" in printed and "s per image" in printed
    assert re.search(r"^weights: (\d+) of the model's \1 tensors loaded$", printed, re.MULTILINE)
    image = Image.open(out / "000001.jpg")
    assert image.size == (480, 480)  # scenes of 160 pixels are enlarged
    scene = Image.open(scenes / "000001.jpg").resize(image.size, Image.Resampling.BICUBIC)
    difference = np.abs(np.asarray(image).astype(int) - np.asarray(scene)).max(axis=-1)
    assert (difference > 60).mean() > 0.002  # something is drawn on it


def test_a_threshold_that_nothing_reaches_leaves_the_scene(demo, scenes, tmp_path):
    status, *_ = demo(
        *("--input", scenes / "000001.jpg", "--output", tmp_path / "drawn.png"), threshold="1.0"
    )
    scene = Image.open(scenes / "000001.jpg").resize((480, 480), Image.Resampling.BICUBIC)
    assert status == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "drawn.png")), np.asarray(scene))


def test_a_panoptic_model_paints_stuff_and_void_is_left(demo, scenes, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(tiny_models.PANOPTIC_FPN))
    model = build_model(setup_cfg(Namespace(folder / "config.yaml")))
    state = model.state_dict()
    state["sem_seg_head.predictor.weight"].zero_()
    out = tmp_path / "shown"
    scene = Image.open(scenes / "000001.jpg").resize((480, 480), Image.Resampling.BICUBIC)
    scene = np.asarray(scene).astype(int)
    for label, name in ((2, "stuff.png"), (0, "things.png")):  # 0 is all things, not stuff
        state["sem_seg_head.predictor.bias"].copy_(torch.eye(4)[label])
        torch.save({"model": state}, folder / "model_final.pth")
        arguments = ["--input", scenes / "000001.jpg", "--output", out / name]
        status, *_ = demo(*arguments, weights=folder, threshold="1.0")
        assert status == 0
    np.testing.assert_array_equal(np.asarray(Image.open(out / "things.png")), scene)
    drawn = np.asarray(Image.open(out / "stuff.png")).astype(int)
    color = class_metadata("digits_val_panoptic_separated").stuff_colors[2]
    painted = scene + OPACITY * (np.array(color) - scene)
    assert (np.abs(drawn - painted).max(axis=-1) <= 3).mean() > 0.95  # the rest is the label
    assert (drawn > 240).all(axis=-1).any()  # the text of the label


def test_a_photograph_keeps_its_size(demo, tmp_path):
    photograph = load_sample_image("china.jpg")
    Image.fromarray(photograph).save(tmp_path / "china.png")
    out = tmp_path / "drawn.png"
    status, printed, _ = demo("--input", tmp_path / "china.png", "--output", out)
    assert status == 0 and str(out) in printed
    drawn = np.asarray(Image.open(out))
    assert drawn.shape == photograph.shape and (drawn != photograph).any()


@pytest.mark.parametrize("option", ["--input", "--video-input"])
def test_a_video_keeps_frames_rate_and_size(demo, tmp_path, option):
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 12, (96, 64))
    for level in (40, 80, 120):
        writer.write(np.full((64, 96, 3), level, np.uint8))
    writer.release()
    unnamed = clip.rename(tmp_path / "clip.recording")  # a video is recognized by its content
    status, printed, errors = demo(option, unnamed, "--output", tmp_path / "drawn.mp4")
    assert status == 0 and "3 images drawn" in printed and "3/3" in errors
    video = cv2.VideoCapture(str(tmp_path / "drawn.mp4"))
    assert video.get(cv2.CAP_PROP_FPS) == 12
    frames = [frame for there, frame in iter(video.read, (False, None)) if there]
    assert [frame.shape for frame in frames] == [(64, 96, 3)] * 3
    assert [round(float(np.median(frame)), -1) for frame in frames] == [40, 80, 120]
    assert files(tmp_path) == ["clip.recording", "drawn.mp4"]


@pytest.fixture
def video_run(tmp_path):
    """Return the folder of a run of a tiny video model with random weights."""
    return write_run(tmp_path / "video_run", VIDEO)


def test_a_video_model_sees_the_frames_before(demo, video_run, tmp_path, monkeypatch):
    seen = []
    forward = VideoSemanticSegmentor.forward

    def spy(self, inputs):
        seen.append(inputs[0]["image"][:, 0].mean((1, 2)).round(decimals=-1).tolist())
        return forward(self, inputs)

    monkeypatch.setattr(VideoSemanticSegmentor, "forward", spy)
    clip = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter_fourcc(*"MJPG"), 12, (96, 64))
    for level in (40, 80, 120, 160):
        writer.write(np.full((64, 96, 3), level, np.uint8))
    writer.release()
    out = tmp_path / "drawn.avi"
    status, printed, _ = demo("--input", clip, "--output", out, weights=video_run)
    assert status == 0 and "4 images drawn" in printed
    assert seen == [[40, 40, 40], [40, 40, 80], [40, 80, 120], [80, 120, 160]]
    assert int(cv2.VideoCapture(str(out)).get(cv2.CAP_PROP_FRAME_COUNT)) == 4


def test_a_video_model_refuses_an_image(demo, video_run, scenes, tmp_path):
    arguments = ["--input", scenes / "000001.jpg", "--output", tmp_path / "drawn.png"]
    status, _, errors = demo(*arguments, weights=video_run)
    assert status == 2 and not (tmp_path / "drawn.png").exists()
    assert "clips of 3 frames" in errors and "name a video" in errors


def test_nothing_is_overwritten(demo, scenes, tmp_path):
    (tmp_path / "000002.jpg").write_text("precious")
    status, _, errors = demo("--input", scenes, "--output", tmp_path)
    assert status == 2
    assert "000002.jpg would be overwritten" in errors and "--output" in errors
    assert (tmp_path / "000002.jpg").read_text() == "precious" and len(files(tmp_path)) == 1


def test_overwrite_replaces_what_exists_but_never_an_input(demo, scenes, tmp_path):
    (tmp_path / "000002.jpg").write_text("an earlier drawing")
    status, _, errors = demo("--input", scenes, "--output", tmp_path, "--overwrite")
    assert status == 0, errors
    assert files(tmp_path) == files(scenes) and Image.open(tmp_path / "000002.jpg").size[0] == 480

    before = (tmp_path / "000002.jpg").read_bytes()
    status, _, errors = demo("--input", tmp_path, "--output", tmp_path, "--overwrite")
    assert status == 2 and "000002.jpg" in errors and "would be overwritten" in errors
    for name in ("folder.jpg", "in"):
        (tmp_path / name).mkdir()
    shutil.copy(scenes / "000001.jpg", source := tmp_path / "in" / "folder.jpg")
    status, _, errors = demo("--input", source, "--output", tmp_path, "--overwrite")
    assert status == 2 and "not a file" in errors, errors
    assert (tmp_path / "000002.jpg").read_bytes() == before


def test_predictions_become_a_coco_file_in_pixels_of_the_images(demo, scenes, tmp_path):
    out, file = tmp_path / "shown", tmp_path / "found.json"
    status, printed, errors = demo("--input", scenes, "--coco", file, "--output", out)
    assert status == 0, errors
    assert files(out) == files(scenes) and "3 images drawn" in printed
    content = json.loads(file.read_text())
    assert [(i["file_name"], i["width"]) for i in content["images"]] == [
        (name, 160) for name in files(scenes)
    ]
    assert len(content["annotations"]) > 3
    assert all(a["bbox"][0] + a["bbox"][2] <= 160 for a in content["annotations"])
    assert f"--data {file} --images {scenes}" in printed
    data = read_coco_files(file, scenes)
    assert sum(map(len, data.splits.values())) == 3
    assert [p for p in data.problems if p.severity == "error"] == []


def test_a_coco_file_needs_neither_drawings_nor_a_window(demo, scenes, tmp_path):
    file = tmp_path / "new" / "found.json"
    status, printed, errors = demo("--input", scenes, "--coco", file)
    assert status == 0 and "3 images predicted" in printed, errors
    before = file.read_bytes()
    status, _, errors = demo("--input", scenes, "--coco", file)
    assert status == 2 and f"--coco {file} would be overwritten" in errors
    assert file.read_bytes() == before
    status, *_ = demo("--input", scenes / "000001.jpg", "--coco", file, "--overwrite")
    assert status == 0 and len(json.loads(file.read_text())["images"]) == 1


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--input", "clip.avi", "--coco", "a.json"], "--coco is for images"),
        (["--webcam", "--coco", "a.json"], "--coco is for images"),
        (["--input", "a.png", "--coco", "a.txt"], "does not end in .json"),
        (["--input", "a.png", "--coco", "folder.json"], "is a folder"),
    ],
)
def test_wrong_coco_files_are_refused_before_the_model_is_loaded(
    demo, tmp_path, monkeypatch, words, reason
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo_tool, "trained_cfg", lambda args: pytest.fail("too late"))
    Path("folder.json").mkdir()
    Path("clip.avi").touch()
    Image.new("RGB", (8, 8)).save("a.png")
    status, _, errors = demo(*words)
    assert status == 2 and reason in errors, errors


def test_images_of_one_name_are_kept_apart(demo, scenes, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(scenes / "000002.jpg", other / "000001.jpg")
    status, *_ = demo("--input", scenes / "000001.jpg", other, "--output", tmp_path / "shown")
    assert status == 0 and files(tmp_path / "shown") == ["000001-2.jpg", "000001.jpg"]


def test_a_corrupt_image_is_reported_and_the_others_are_drawn(demo, scenes, tmp_path):
    corrupt = tmp_path / "corrupt.jpg"
    corrupt.write_bytes((scenes / "000001.jpg").read_bytes()[:900])
    out = tmp_path / "shown"
    status, _, errors = demo("--input", corrupt, scenes / "000002.jpg", "--output", out)
    assert status == 2 and files(out) == ["000002.jpg"]
    assert f"cannot read image {corrupt}" in errors and "1 of 2 inputs could not be drawn" in errors


@pytest.mark.parametrize("name", ["corrupt.jpg", "corrupt.mp4", "notes.txt"])
def test_a_single_file_that_cannot_be_read_is_an_error(demo, tmp_path, name):
    (tmp_path / name).write_bytes(b"\x00no picture, no video")
    status, _, errors = demo("--input", tmp_path / name, "--output", tmp_path / "shown")
    assert status == 2 and "cannot read" in errors and name in errors
    assert files(tmp_path) == [name]


def bad_inputs(tmp_path, scenes, run):
    scene, out = scenes / "000001.jpg", tmp_path / "out"
    empty, taken = tmp_path / "empty", tmp_path / "taken"
    empty.mkdir()
    taken.write_text("")
    (empty / "nothing.md").write_text("")
    run_config = run / "config.yaml"
    return {
        "absent files": (["--input", "a.jpg", scene, "b.jpg", "--output", out], {}, "a.jpg, b.jpg"),
        "empty folder": (["--input", empty, "--output", out], {}, "no images or videos"),
        "empty glob": (["--input", f"{empty}/*.jpg", "--output", out], {}, "no such input"),
        "one file for several": (["--input", scenes, "--output", "x.jpg"], {}, "name a folder"),
        "unknown format": (["--input", scene, "--output", tmp_path / "x.xyz"], {}, ".jpg"),
        "folder is a file": (["--input", scene, "--output", taken / "x"], {}, "another folder"),
        "no display": (["--input", scene], {}, "--output"),
        "no weights": (["--input", scene, "--output", out], {"weights": None}, "--weights"),
        "weights not there": (
            ["--input", scene, "--output", out, "--config-file", run_config],
            {"weights": "absent.pth"},
            "absent.pth",
        ),
        "weights without configuration": (
            ["--input", scene, "--output", out],
            {"weights": taken},
            "--config-file",
        ),
        "no run": (
            ["--input", scene, "--output", out],
            {"weights": empty},
            "not the folder of a run",
        ),
        "configuration names no weights": (
            ["--input", scene, "--output", out, "--config-file", run_config],
            {"weights": None},
            "--weights",
        ),
        "bad key": (["--input", scene, "--output", out, "--opts", "A.B", "1"], {}, "A.B"),
        "webcam to a file": (["--webcam", "--output", out], {}, "remove --output"),
    }


def test_mistakes_end_with_one_message_that_names_the_cure(demo, scenes, run, tmp_path):
    for name, (arguments, keywords, fix) in bad_inputs(tmp_path, scenes, run).items():
        status, _, errors = demo(*arguments, **keywords)
        assert status == 2, name
        assert errors.startswith("error: ") and fix in errors, (name, errors)
    assert files(tmp_path) == ["empty", "taken"]


def test_a_run_from_a_machine_with_another_device_is_drawn_here(demo, run, scenes, tmp_path):
    there = shutil.copytree(run, tmp_path / "run")
    config = yaml.safe_load((there / "config.yaml").read_text())
    config["MODEL"]["DEVICE"] = "cuda"
    (there / "config.yaml").write_text(yaml.safe_dump(config))
    arguments = ["--input", scenes / "000001.jpg", "--output", tmp_path / "drawn.jpg"]
    status, printed, _ = demo(*arguments, weights=there / "model_0000009.pth")
    assert status == 0 and "device:" in printed
    assert (tmp_path / "drawn.jpg").is_file()


def test_random_weights_are_drawn(demo, run, scenes, tmp_path):
    status, printed, errors = demo(
        *("--config-file", run / "config.yaml", "--input", scenes / "000001.jpg"),
        *("--output", tmp_path / "drawn.jpg", "MODEL.WEIGHTS", ""),
        weights=None,
    )
    assert status == 0, errors
    assert "weights: random" in printed and (tmp_path / "drawn.jpg").is_file()


@pytest.mark.parametrize("form", ["last", "after --input", "--opts"])
def test_key_value_pairs_override_the_configuration(demo, scenes, tmp_path, monkeypatch, form):
    seen = []
    build = Trainer.build_model
    monkeypatch.setattr(Trainer, "build_model", lambda cfg: seen.append(cfg.SEED) or build(cfg))
    scene, out = ["--input", scenes / "000001.jpg"], ["--output", tmp_path / "drawn.jpg"]
    pairs = ["MODEL.DEVICE", "cpu", "SEED", "7"]
    arguments = {
        "last": [*scene, *out, *pairs],
        "after --input": [*out, *scene, *pairs],
        "--opts": [*scene, *out, "--opts", *pairs],
    }[form]
    status, _, errors = demo(*arguments)
    assert status == 0, errors
    assert seen == [7] and (tmp_path / "drawn.jpg").is_file()


def test_the_command_itself(run, scenes, tmp_path):
    out = tmp_path / "drawn.png"
    command = [sys.executable, TOOL, "--weights", run, "--input", scenes / "000001.jpg"]
    done = subprocess.run([*command, "--output", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert out.is_file() and str(out) in done.stdout
    again = subprocess.run([*command, "--output", out], capture_output=True, text=True)
    assert again.returncode == 2 and "Traceback" not in again.stderr
    assert "would be overwritten" in again.stderr
