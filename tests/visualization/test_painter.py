"""Colors and labels of one drawing."""

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from detectron2.data.catalog import Metadata
from detectron2.structures import Boxes, Instances

from ccsa.errors import UserError
from ccsa.visualization import ClassColorVisualizer, class_metadata, draw_outputs

IMAGE = np.full((120, 160, 3), 60, np.uint8)


@pytest.fixture
def metadata():
    yield class_metadata("painted")
    MetadataCatalog.pop("painted", None)


def label_boxes(painter):
    renderer = painter.output.canvas.get_renderer()
    return [text.get_window_extent(renderer) for text in painter.output.ax.texts]


@pytest.mark.parametrize("position", [(155, 5), (2, 118), (158, 119), (-30, -10)])
def test_labels_stay_inside_the_picture(metadata, position):
    painter = ClassColorVisualizer(IMAGE, metadata)
    painter.draw_text("person 97%", position)
    (box,) = label_boxes(painter)
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 160 and box.y1 <= 120


def test_labels_do_not_lie_on_each_other(metadata):
    painter = ClassColorVisualizer(IMAGE, metadata)
    for _ in range(4):
        painter.draw_text("person 97%", (60, 50))
    boxes = label_boxes(painter)
    assert sum(box.count_overlaps(boxes) - 1 for box in boxes) == 0


def test_a_label_without_reason_to_move_stays(metadata):
    painter = ClassColorVisualizer(IMAGE, metadata)
    painter.draw_text("cat", (60, 50))
    assert np.allclose(painter.output.ax.texts[0].get_position(), (60, 50))


def test_a_semantic_label_lies_on_its_own_class():
    labels = np.zeros((120, 160), np.uint8)
    labels[30:90, 40:120] = 1  # class 0 is a frame around class 1: its median is in class 1
    painter = ClassColorVisualizer(IMAGE, Metadata(stuff_classes=["out", "in"]))
    painter.draw_sem_seg(labels)
    for text in painter.output.ax.texts:
        x, y = text.get_position()
        assert labels[int(y) + 4, int(x)] == ["out", "in"].index(text.get_text())


def test_colours_of_the_dataset_are_kept():
    MetadataCatalog.get("coloured").set(
        thing_classes=["a", "b"], thing_colors=[(1, 2, 3), (4, 5, 6)]
    )
    assert class_metadata("coloured").thing_colors == [(1, 2, 3), (4, 5, 6)]
    MetadataCatalog.pop("coloured")


@pytest.mark.parametrize("count", [2, 10, 80])
def test_every_class_gets_a_colour_of_its_own(count):
    MetadataCatalog.get("uncoloured").set(thing_classes=[str(i) for i in range(count)])
    assert class_metadata("").stuff_classes[0] == "0"  # without a dataset
    colors = np.array(class_metadata("uncoloured").thing_colors)
    MetadataCatalog.pop("uncoloured")
    assert len(np.unique(colors, axis=0)) == count
    assert (np.ptp(colors, axis=1) > 60).all()  # no color is gray


def test_classes_without_names_are_numbered(metadata):
    found = Instances((120, 160), pred_boxes=Boxes(torch.tensor([[20.0, 20, 90, 90]])))
    found.scores, found.pred_classes = torch.tensor([0.9]), torch.tensor([7])
    drawn = draw_outputs(IMAGE, {"instances": found}, metadata)
    assert drawn.shape == IMAGE.shape and (drawn != IMAGE).any()
    logits = torch.zeros(3, 120, 160)
    logits[1] = 1
    assert (draw_outputs(IMAGE, {"sem_seg": logits}, metadata) != IMAGE).any()


def test_no_instances_leave_the_image_as_it_is(metadata):
    found = Instances((120, 160), pred_boxes=Boxes(torch.zeros(0, 4)))
    found.scores, found.pred_classes = torch.zeros(0), torch.zeros(0, dtype=torch.long)
    found.pred_masks = torch.zeros(0, 120, 160, dtype=torch.bool)
    np.testing.assert_array_equal(draw_outputs(IMAGE, {"instances": found}, metadata), IMAGE)


def panoptic_outputs():
    """Return two adjacent things of one class, a stuff region, and void in the upper quarter."""
    ids = torch.zeros(120, 160, dtype=torch.int32)
    ids[30:] = 1
    ids[40:80, 20:60], ids[40:80, 60:100] = 300, 301
    segments = [{"id": 1, "isthing": False, "category_id": 1}]
    segments += [{"id": i, "isthing": True, "category_id": 0, "score": 0.87} for i in (300, 301)]
    return ids, segments


@pytest.mark.parametrize("missing", [None, "things", "stuff", "both"])
def test_panoptic_segments_are_painted_in_their_colours_and_void_is_not(missing):
    ids, segments = panoptic_outputs()
    if missing:
        gone = [s for s in segments if missing == "both" or s["isthing"] == (missing == "things")]
        for segment in gone:
            ids[ids == segment["id"]] = 0
        segments = [s for s in segments if s not in gone]
    metadata = Metadata(
        thing_classes=["cat"],
        thing_colors=[[250, 0, 0]],
        stuff_classes=["things", "sky"],
        stuff_colors=[[9, 9, 9], [0, 0, 250]],
    )
    drawn = draw_outputs(IMAGE, {"panoptic_seg": (ids, segments)}, metadata).astype(int)
    assert (drawn[:25] == IMAGE[:25]).all()  # void
    things, stuff = drawn[70, 25], drawn[110, 150]
    left = [60, 60, 60]
    if missing in ("things", "both"):
        assert things.tolist() == left
    else:
        assert things[0] > 120 and things[2] < 60
        # A border separates the two, so that they can be distinguished.
        assert np.abs(drawn[45:75, 56:64] - things).max() > 60
    if missing in ("stuff", "both"):
        assert stuff.tolist() == left
    else:
        assert stuff[2] > 120 and stuff[0] < 60


def test_panoptic_labels_are_legible():
    ids, segments = panoptic_outputs()
    metadata = class_metadata("painted_panoptic")
    metadata = Metadata(**metadata.as_dict() | {"thing_classes": ["cat"]})
    painter = ClassColorVisualizer(IMAGE, metadata)
    painter.draw_panoptic_seg(ids, segments)
    MetadataCatalog.pop("painted_panoptic")
    texts = [text.get_text() for text in painter.output.ax.texts]
    assert sorted(texts) == ["1", "cat 87%", "cat 87%"]
    boxes = label_boxes(painter)
    assert sum(box.count_overlaps(boxes) - 1 for box in boxes) == 0
    assert all(b.x0 >= 0 and b.y0 >= 0 and b.x1 <= 160 and b.y1 <= 120 for b in boxes)


def test_proposals_are_drawn(metadata):
    boxes = Boxes(torch.tensor([[20.0, 20, 90, 90]]))
    proposals = Instances((120, 160), proposal_boxes=boxes, objectness_logits=torch.ones(1))
    assert (draw_outputs(IMAGE, {"proposals": proposals}, metadata) != IMAGE).any()


def test_outputs_with_nothing_to_draw_are_named(metadata):
    with pytest.raises(UserError, match="depth"):
        draw_outputs(IMAGE, {"depth": torch.zeros(1)}, metadata)
