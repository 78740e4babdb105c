"""The far_cue dataset: the drawings, the distances, and that only the cue determines the class."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ccsa.data.synthetic import far_cue
from ccsa.data.synthetic.far_cue import (
    CELL,
    COLORS,
    VARIANTS,
    draw_image,
    ensure_far_cue,
    write_far_cue,
)

GRAY, PANEL, CUE = 128, 12, 8  # brightness, and sides in pixels
GAP = 20


def drawn(variant, count=150, noise=0.0):
    """Return images and labels; without noise, colors are exact."""
    rng = np.random.default_rng(7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(far_cue, "NOISE", noise)
        return [draw_image(rng, variant) for _ in range(count)]


def box(mask):
    """Return the first row and column of a filled rectangle, and one past the last ones."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    found = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    assert mask[found[0] : found[2], found[1] : found[3]].all()
    return np.array(found)


def parts(image, labels):
    """Return the boxes of panel and cue, and the color of the cue, in an image without noise."""
    panel = labels > 0
    cue = (image != GRAY).any(2) & ~panel
    return box(panel), box(cue), image[cue][0]


@pytest.mark.parametrize("variant", VARIANTS)
def test_panel_and_cue_are_far_apart_on_the_grid(variant):
    on_cross = 0
    for image, labels in drawn(variant):
        panel, cue, color = parts(image, labels)
        assert image.shape == (64, 64, 3) and image.dtype == labels.dtype == np.uint8
        assert not (panel % CELL).any() and not (cue % CELL).any()
        assert (panel[2:] - panel[:2]).tolist() == [PANEL, PANEL]
        assert (cue[2:] - cue[:2]).tolist() == [CUE, CUE]
        free = np.maximum(cue[:2] - panel[2:], panel[:2] - cue[2:])
        assert free.max() >= GAP
        inside = (cue[:2] >= panel[:2]) & (cue[2:] <= panel[2:])
        on_cross += inside.any()
        (label,) = set(labels[labels > 0].tolist())
        assert tuple(color) == list(COLORS.values())[label - 1]
    share = on_cross / 150
    assert share == 1 if variant == "cross" else 0.02 < share < 0.5


def test_around_the_panel_nothing_tells_its_class():
    """The noise does not depend on the class: images that differ only in the color of the cue
    differ in the cue's pixels alone."""
    colors = list(COLORS.values())
    for image, labels in drawn("any", 30):
        (y0, x0, y1, x1), _, color = parts(image, labels)
        assert (image[y0:y1, x0:x1] == far_cue.PANEL_GRAY).all()
        near = image[max(0, y0 - GAP) : y1 + GAP, max(0, x0 - GAP) : x1 + GAP]
        assert not (near == color).all(2).any()
        assert tuple(color) in colors


def test_classes_are_as_likely_and_colors_as_far_apart():
    labels = [int(labels.max()) for _, labels in drawn("any", 400)]
    counts = np.bincount(labels, minlength=5)
    assert counts[0] == 0 and counts[1:].min() > 70
    points = np.array(list(COLORS.values()), float)
    distances = {round(np.linalg.norm(a - b)) for a in points for b in points if (a != b).any()}
    assert len(distances) == 1


def test_noise_lies_on_all():
    image, _ = drawn("any", 1, noise=20.0)[0]
    assert image[:, :, 0].std() > 15 and (image[0] != image[1]).any()


def test_written_files_are_what_is_loaded(tmp_path, monkeypatch):
    write_far_cue(tmp_path / "far_cue", {"train": 3, "val": 2})
    monkeypatch.setattr(DatasetCatalog, "data", {})
    monkeypatch.setattr(MetadataCatalog, "data", {})
    far_cue.register_far_cue(tmp_path)
    assert set(DatasetCatalog) == {f"far_cue_{v}_{s}" for v in VARIANTS for s in ("train", "val")}
    records = DatasetCatalog.get("far_cue_any_train")
    metadata = MetadataCatalog.get("far_cue_any_train")
    assert len(records) == 3 and len(metadata.stuff_classes) == len(metadata.stuff_colors) == 5
    rng = np.random.default_rng([far_cue.SEED, VARIANTS.index("any"), False])
    for record in records:
        image, labels = draw_image(rng, "any")
        assert np.array_equal(np.asarray(Image.open(record["file_name"])), image)
        assert np.array_equal(np.asarray(Image.open(record["sem_seg_file_name"])), labels)
    first = [np.asarray(Image.open(tmp_path / f"far_cue/any_{s}/0001.png")) for s in far_cue.COUNTS]
    assert (first[0] != first[1]).any()


def test_it_is_written_once(tmp_path, monkeypatch):
    monkeypatch.setattr(far_cue, "COUNTS", {"train": 2, "val": 1})
    written = []

    def write(folder):
        written.append(folder)
        write_far_cue(folder, {"train": 2, "val": 1})

    monkeypatch.setattr(far_cue, "write_far_cue", write)
    assert ensure_far_cue(tmp_path) == ensure_far_cue(tmp_path) == tmp_path / "far_cue"
    assert len(written) == 1
