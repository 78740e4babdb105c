"""The frames of a clip, errors, and that all frames get the same augmentation."""

import itertools
import logging
import random
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from fvcore.transforms.transform import Transform
from PIL import Image

from ccsa.config import add_ccsa_config
from ccsa.data.loaders import build_test_mapper, build_train_mapper, clip_records, load_records
from ccsa.data.video.clips import frame_of, with_clips
from ccsa.data.video.mapper import ClipInput, ClipMapper
from ccsa.errors import UserError
from ccsa.modeling.clip import Clip

H, W = 24, 32


def image(path, level=None, size=(H, W)):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (*size, 3)) if level is None else np.full((*size, 3), level)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


@pytest.fixture
def records(tmp_path):
    """Return the records of two sequences, with the frames 1 to 9 and 1 to 4. The frames 3, 6 and 9
    of the first and 4 of the second are labeled.
    Raw frames are as bright as their number is high; labelled ones of both are 200."""
    for sequence, last in (("A_f", 9), ("B_f", 4)):
        for number in range(1, last + 1):
            image(tmp_path / "raw" / f"{sequence}{number:03d}.png", number)
    names = ["A_f003", "A_f006", "A_f009", "B_f004"]
    for name in names:
        image(tmp_path / "labelled" / f"{name}.png", 200)
        labels = np.arange(H * W).reshape(H, W) % 5
        Image.fromarray(labels.astype(np.uint8)).save(tmp_path / f"{name}.png")
    return [
        {
            "file_name": str(tmp_path / "labelled" / f"{name}.png"),
            "sem_seg_file_name": str(tmp_path / f"{name}.png"),
            "frames_root": str(tmp_path / "raw"),
        }
        for name in names
    ]


def names(records):
    """Return the frames of each clip as texts like "r A 3": folder, sequence, number."""
    return [
        [
            f"{Path(f).parent.name[0]} {Path(f).stem[0]} {frame_of(f)[1]}"
            for f in r["clip_file_names"]
        ]
        for r in records
    ]


def test_raw_frames_lie_before_the_labelled_one(records):
    assert names(with_clips(records, Clip(3, 2))) == [
        ["r A 1", "r A 2", "l A 3"],
        ["r A 4", "r A 5", "l A 6"],
        ["r A 7", "r A 8", "l A 9"],
        ["r B 2", "r B 3", "l B 4"],
    ]


def test_the_ends_of_a_sequence_are_repeated_and_counted(records, caplog):
    with caplog.at_level(logging.WARNING):
        found = names(with_clips(records, Clip(3, 1, 2)))
    assert found[0] == ["r A 1", "l A 3", "r A 5"]
    assert found[2:] == [["r A 7", "l A 9", "l A 9"], ["r B 2", "l B 4", "l B 4"]]
    assert re.search("2 of 4 clips of .*labelled reach beyond their sequence", caplog.text)


def test_labelled_neighbours_only_if_asked_for(records):
    found = names(with_clips(records, Clip(3, 2, 1, "labelled")))
    assert found == [
        ["l A 3", "l A 3", "l A 3"],
        ["l A 3", "l A 3", "l A 6"],
        ["l A 3", "l A 6", "l A 9"],
        ["l B 4", "l B 4", "l B 4"],
    ]


def test_jumps_between_labelled_frames_are_counted_once(records, caplog):
    numbers = (7890, 7920, 7950, 8190, 8220)
    folder = Path(records[0]["file_name"]).parent
    records = [{**records[0], "file_name": str(folder / f"E_{n}.png")} for n in numbers]
    for _ in range(2):
        with caplog.at_level(logging.INFO):
            with_clips(records, Clip(3, 2, 1, "labelled"))
    messages = [record.message for record in caplog.records]
    assert messages[0] == f"5 clips of {folder}: 3 labelled frames each"
    assert messages[1].startswith(f"2 of 5 clips of {folder} reach beyond their sequence")
    assert messages[2].startswith(f"2 of 5 clips of {folder} jump in time")  # to 8190 and 8220
    assert len(messages) == 3


def test_even_clips_jump_nowhere(records, caplog):
    with_clips(records, Clip(2, 1, 1, "labelled"))
    assert "jump in time" not in caplog.text


def test_a_frame_is_transformed_once_and_labels_with_it():
    class Count(Transform):
        images = 0

        def apply_image(self, img):
            self.images += 1
            return img + 1

        def apply_coords(self, coords):
            return coords

        def apply_segmentation(self, segmentation):
            return segmentation + 2

    frames = [np.full((2, 2, 3), level) for level in range(3)]
    clip, count = ClipInput(frames, 1, np.zeros((2, 2))), Count()
    clip.transform(count)
    assert count.images == 3 and [frame[0, 0, 0] for frame in clip.frames] == [1, 2, 3]
    assert clip.image is clip.frames[1] and (clip.sem_seg == 2).all()


def test_one_frame_needs_no_video(records):
    records = [{"file_name": r["file_name"]} for r in records]
    assert names(with_clips(records, Clip(1, 0)))[0] == ["l A 3"]
    with pytest.raises(UserError, match=r"without video.*INPUT\.CLIP\.FRAMES 1"):
        with_clips(records, Clip(2, 1))


def test_missing_frames_are_named(records, tmp_path):
    (tmp_path / "raw" / "A_f005.png").unlink()
    with pytest.raises(UserError, match=r"frame 5 of the sequence of .*A_f006\.png is not in"):
        with_clips(records, Clip(3, 2))
    (tmp_path / "raw" / "A_f009.png").unlink()
    with pytest.raises(UserError, match=r"A_f\* number 9 is not in .*SOURCE labelled"):
        with_clips(records[2:], Clip(3, 2))
    records[0]["frames_root"] = str(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"number 3 is not in .*nowhere.*SOURCE labelled"):
        with_clips(records[:1], Clip(3, 2))


def test_clips_that_are_all_one_frame_are_refused(records):
    with pytest.raises(UserError, match=r"no labeled frame of .*labelled has a neighbor"):
        with_clips(records[3:], Clip(3, 2, 1, "labelled"))


def test_a_name_without_number_is_refused():
    assert frame_of("CamVid/0016E5_08640.png") == ("0016E5_", 8640)
    with pytest.raises(UserError, match=r"scene\.png has no number"):
        frame_of("scene.png")


@pytest.fixture
def cfg(records, monkeypatch):
    monkeypatch.setattr(DatasetCatalog, "data", {})
    monkeypatch.setattr(MetadataCatalog, "data", {})
    DatasetCatalog.register("video", lambda: records)
    MetadataCatalog.get("video").set(evaluator_type="sem_seg", flip_pairs=[(1, 2)])
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.MODEL.META_ARCHITECTURE, cfg.DATASETS.TRAIN = "VideoSemanticSegmentor", ("video",)
    cfg.INPUT.CLIP.FRAMES, cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TEST = 3, (H,), 0
    cfg.INPUT.FORMAT = "RGB"
    return cfg


def test_only_video_models_get_clips(cfg):
    assert all("clip_file_names" in record for record in clip_records(cfg, ["video"]))
    assert load_records(cfg, "video") == clip_records(cfg, ["video"])
    assert isinstance(build_train_mapper(cfg), ClipMapper)
    assert isinstance(build_test_mapper(cfg), ClipMapper)
    cfg.MODEL.META_ARCHITECTURE = "DenseSegmentor"
    assert clip_records(cfg, ["video"]) is None
    assert load_records(cfg, "video") == DatasetCatalog.get("video")
    assert not isinstance(build_train_mapper(cfg), ClipMapper)
    assert not isinstance(build_test_mapper(cfg), ClipMapper)


def test_frames_keep_their_order_and_the_labels_their_frame(cfg):
    item = build_test_mapper(cfg)(load_records(cfg, "video")[1])
    assert item["image"].shape == (3, 3, H, W)
    assert [frame.unique().tolist() for frame in item["image"]] == [[4], [5], [200]]
    assert (item["height"], item["width"]) == (H, W)


def test_a_clip_is_augmented_as_one(cfg, records):
    """Equal frames stay equal through scale, crop, jitter and flip; the labels are changed
    with them, left and right exchanged."""
    for path in Path(records[0]["frames_root"]).iterdir():
        image(path)
    for record in records:
        image(Path(record["file_name"]))
    keys = cfg.INPUT
    keys.SEM_SEG.SCALE_RANGE, keys.SEM_SEG.COLOR_JITTER.ENABLED = [0.5, 2.0], True
    keys.CROP.ENABLED, keys.CROP.TYPE, keys.CROP.SIZE = True, "absolute", [20, 28]
    mapper, record = build_train_mapper(cfg), load_records(cfg, "video")[1]
    random.seed(0), np.random.seed(0)
    seen = []
    for _ in range(12):
        item = mapper(record)
        assert item["image"].shape == (3, 3, 20, 28) and item["sem_seg"].shape == (20, 28)
        assert torch.equal(item["image"][0], item["image"][2])
        assert torch.equal(item["image"][1], item["image"][2])
        seen.append(item["image"])
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(seen))

    keys.SEM_SEG.SCALE_RANGE, keys.SEM_SEG.COLOR_JITTER.ENABLED = [], False
    keys.CROP.ENABLED = False
    mapper = build_train_mapper(cfg)
    plain = build_test_mapper(cfg)(record)["image"]
    mirrored = next(x for x in iter(lambda: mapper(record), None) if not x["image"].equal(plain))
    assert torch.equal(mirrored["image"], plain.flip(-1))
    labels = torch.as_tensor(np.asarray(Image.open(records[1]["sem_seg_file_name"])).astype("long"))
    swapped = torch.tensor([0, 2, 1, 3, 4])[labels].flip(-1)
    assert torch.equal(mirrored["sem_seg"], swapped)


def test_a_frame_that_is_broken_or_of_another_size_is_named(cfg, tmp_path):
    record = load_records(cfg, "video")[1]
    other = tmp_path / "raw" / "A_f005.png"
    image(other, size=(H, 2 * W))
    with pytest.raises(UserError, match=r"cannot read .*A_f005\.png .*\(64, 24\).*\(32, 24\)"):
        build_train_mapper(cfg)(record)
    other.write_text("no image")
    with pytest.raises(UserError, match=r"cannot read .*A_f005\.png"):
        build_train_mapper(cfg)(record)
