"""The moving_cue dataset: the drawings, and that only earlier frames determine the class."""

import itertools

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ccsa.data.synthetic import moving_cue
from ccsa.data.synthetic.far_cue import COLORS
from ccsa.data.synthetic.moving_cue import draw_clip, ensure_moving_cue, write_moving_cue
from ccsa.data.video.clips import with_clips
from ccsa.modeling.clip import Clip

GRAY, PANEL_GRAY, PANEL = 128, 60, 8


def drawn(count, noise=0.0):
    """Return clips and labels; without noise, colors are exact."""
    rng = np.random.default_rng(7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moving_cue, "NOISE", noise)
        return [draw_clip(rng) for _ in range(count)]


def middle(mask):
    """Return the row and column of the center of gravity."""
    return np.argwhere(mask).mean(0)


def test_the_last_frame_has_the_panel_and_no_colour():
    for clip, labels in drawn(100):
        assert clip.shape == (5, 32, 32, 3) and clip.dtype == labels.dtype == np.uint8
        panel = labels > 0
        assert panel.sum() == PANEL**2
        assert (clip[4][panel] == PANEL_GRAY).all() and (clip[4][~panel] == GRAY).all()


def test_a_cue_of_the_panels_colour_crosses_its_rows_or_columns():
    axes = set()
    for clip, labels in drawn(100):
        label = labels.max()
        panel = labels > 0
        cues = (clip[:4] == list(COLORS.values())[label - 1]).all(-1)
        assert len({mask.sum() for mask in cues}) == 1 and cues.any()
        others = clip[:4][~cues]
        assert set(np.unique(others)) == {GRAY, PANEL_GRAY}
        steps = np.diff([middle(mask) for mask in cues], axis=0)
        axis = int(abs(steps[0, 1]) > 0)
        axes.add((axis, float(steps[0, axis])))
        assert (steps[:, 1 - axis] == 0).all() and (abs(steps[:, axis]) == 8).all()
        assert len(np.unique(steps[:, axis])) == 1
        for mask in cues:  # each is in the rows or columns of the panel
            assert np.array_equal(mask.any(axis), panel.any(axis))
    assert axes == {(0, 8.0), (0, -8.0), (1, 8.0), (1, -8.0)}


def test_classes_are_as_likely():
    counts = np.bincount([labels.max() for _, labels in drawn(400)], minlength=5)
    assert counts[0] == 0 and counts[1:].min() > 70


def test_noise_lies_on_every_frame_anew():
    clip, _ = drawn(1, noise=20.0)[0]
    assert (clip[:, :8].std((1, 2, 3)) > 15).all()
    assert all((a != b).any() for a, b in itertools.pairwise(clip))


def test_written_files_are_what_is_loaded(tmp_path, monkeypatch):
    write_moving_cue(tmp_path / "moving_cue", {"train": 3, "val": 2})
    monkeypatch.setattr(DatasetCatalog, "data", {})
    monkeypatch.setattr(MetadataCatalog, "data", {})
    moving_cue.register_moving_cue(tmp_path)
    assert set(DatasetCatalog) == {"moving_cue_train", "moving_cue_val"}
    records = DatasetCatalog.get("moving_cue_train")
    metadata = MetadataCatalog.get("moving_cue_train")
    assert len(records) == 3 and len(metadata.stuff_classes) == len(metadata.stuff_colors) == 5
    rng = np.random.default_rng([moving_cue.SEED, False])
    for record in with_clips(records, Clip(5, 4)):
        clip, labels = draw_clip(rng)
        read = [np.asarray(Image.open(file)) for file in record["clip_file_names"]]
        assert np.array_equal(read, clip)
        assert record["clip_file_names"][4] == record["file_name"]
        assert np.array_equal(np.asarray(Image.open(record["sem_seg_file_name"])), labels)
    first = [Image.open(tmp_path / f"moving_cue/{s}/0001_1.png") for s in ("train", "val")]
    assert (np.asarray(first[0]) != np.asarray(first[1])).any()


def test_it_is_written_once(tmp_path, monkeypatch):
    written = []

    def write(folder):
        written.append(folder)
        write_moving_cue(folder, {"train": 2, "val": 1})

    monkeypatch.setattr(moving_cue, "write_moving_cue", write)
    assert ensure_moving_cue(tmp_path) == ensure_moving_cue(tmp_path) == tmp_path / "moving_cue"
    assert len(written) == 1
