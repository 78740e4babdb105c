"""Colors and labels of crowded pictures, and of pictures with one class."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image

from ccsa.data.records import make_annotation, rle_of_mask
from ccsa.visualization import draw_outputs
from ccsa.visualization.object_colors import CROWDED, object_colors
from ccsa.visualization.painter import ClassColorVisualizer, fill_metadata
from ccsa.visualization.preview import draw_preview

SIZE = 240


def squares(count):
    """Return masks (N, H, W) of touching squares."""
    masks = np.zeros((count, SIZE, SIZE), bool)
    for i in range(count):
        y, x = 40 * (i // 6), 40 * (i % 6)
        masks[i, y : y + 40, x : x + 40] = True
    return masks


def instances(masks, classes):
    found = Instances(masks.shape[1:], pred_masks=torch.from_numpy(masks))
    found.pred_boxes = Boxes(torch.tensor([(0.0, 0.0, 9.0, 9.0)] * len(masks)))
    for box, mask in zip(found.pred_boxes.tensor, masks, strict=True):
        ys, xs = mask.nonzero()
        box[:] = torch.tensor([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    found.scores = torch.full((len(masks),), 0.9)
    found.pred_classes = torch.tensor(classes)
    return found


def colors_inside(drawn, masks):
    """Return the color of each square below its label."""
    points = [np.argwhere(mask)[-1] - 12 for mask in masks]
    return [tuple(drawn[y, x]) for y, x in points]


@pytest.mark.parametrize("names", [["nucleus"], ["cell", "nucleus"]])
def test_every_object_of_a_crowd_has_its_own_color(names):
    masks = squares(30)
    image = np.full((SIZE, SIZE, 3), 60, np.uint8)
    metadata = fill_metadata({"thing_classes": names})
    found = instances(masks, [i % len(names) for i in range(30)])
    drawn = draw_outputs(image, {"instances": found}, metadata)
    colors = colors_inside(drawn, masks)
    assert len(set(colors)) > 24
    differences = [np.abs(np.subtract(a, b, dtype=int)).max() for a, b in pairwise(colors)]
    assert np.median(differences) > 40  # neighbors in a row


def test_few_objects_of_several_classes_have_the_colors_of_their_classes():
    masks = squares(4)
    metadata = fill_metadata({"thing_classes": ["a", "b"]})
    image = np.full((SIZE, SIZE, 3), 60, np.uint8)
    drawn = draw_outputs(image, {"instances": instances(masks, [0, 1, 0, 1])}, metadata)
    first, second, third, fourth = colors_inside(drawn, masks)
    assert first == third and second == fourth and first != second


def texts(names, count):
    metadata = fill_metadata({"thing_classes": names})
    painter = ClassColorVisualizer(np.full((SIZE, SIZE, 3), 60, np.uint8), metadata)
    painter.draw_instance_predictions(instances(squares(count), [0] * count))
    return painter.output.ax.texts


def test_objects_of_the_only_class_are_counted_in_one_label():
    assert [text.get_text() for text in texts(["nucleus"], 20)] == ["20 x nucleus"]
    assert len(texts(["nucleus"], 2)) == 2


def test_labels_of_a_crowd_shrink_and_give_way():
    few, many = texts(["a class", "b"], 4), texts(["a class", "b"], 36)
    assert len(few) == 4 and "90%" in few[0].get_text()
    assert 0 < len(many) <= 36 and {text.get_text() for text in many} == {"a class"}
    assert many[0].get_fontsize() < few[0].get_fontsize()
    boxes = [text.get_window_extent() for text in many]
    assert sum(box.count_overlaps(boxes) - 1 for box in boxes) == 0


def test_colors_of_neighbors_differ():
    centers = np.stack(np.meshgrid(np.arange(10), np.arange(10)), -1).reshape(-1, 2) * 20.0
    colors = np.array(object_colors(["red"] * 100, centers))
    assert len(np.unique(colors, axis=0)) == 100
    grid = colors.reshape(10, 10, 3)
    for near in (np.abs(np.diff(grid, axis=0)).sum(-1), np.abs(np.diff(grid, axis=1)).sum(-1)):
        assert near.min() > 0.15 and np.median(near) > 0.7


def annotations(masks, with_mask=lambda i: True):
    return [
        make_annotation(0, segmentation=rle_of_mask(mask), size=mask.shape)
        if with_mask(i)
        else make_annotation(0, box=[4, 4, 30, 30], size=mask.shape)
        for i, mask in enumerate(masks)
    ]


@pytest.mark.parametrize("count", [1, CROWDED + 4])
def test_a_preview_draws_objects_with_and_without_masks(tmp_path, count):
    Image.new("RGB", (SIZE, SIZE), (60, 60, 60)).save(tmp_path / "1.png")
    record = {"file_name": str(tmp_path / "1.png"), "height": SIZE, "width": SIZE}
    record["annotations"] = annotations(squares(count), lambda i: i % 2 == 0)
    path = draw_preview(tmp_path / "drawn.png", {"train": [record]}, ["a"])
    drawn = np.asarray(Image.open(path).convert("HSV"))
    assert (drawn[..., 1] > 120).mean() > 0.01


def test_a_preview_shows_what_cannot_be_drawn(tmp_path):
    records = [{"file_name": str(tmp_path / "none.png"), "annotations": []}, {}]
    path = draw_preview(tmp_path / "drawn.png", {"train": records})
    assert Image.open(path).size[0] > 400
