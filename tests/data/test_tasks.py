"""What is derived from a user's data: the number and names of classes, and the drawing order."""

import numpy as np
import pytest
from support import own_scenes

from ccsa.data.folder import FolderDataset, read_folder
from ccsa.data.records import make_annotation, rle_of_mask
from ccsa.data.tasks import derive, panoptic_segments, semantic_label
from ccsa.errors import UserError

SIZE = 32, 32


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """Return a function that reads one small image with objects of the given classes."""

    def make(classes, objects):
        image = np.zeros((*SIZE, 3), np.uint8)
        scenes = [own_scenes.Scene(s, s, image, objects) for s in ("train", "val")]
        monkeypatch.setattr(own_scenes, "CLASSES", classes)
        own_scenes.write_coco(tmp_path, scenes, lambda _, mask: own_scenes.rle(mask))
        data = read_folder(tmp_path)
        assert isinstance(data, FolderDataset) and list(data.classes) == classes
        return data

    return make


def square(start, stop):
    mask = np.zeros(SIZE, bool)
    mask[start:stop, start:stop] = True
    return mask


@pytest.mark.parametrize("count", [254, 255])
def test_labels_hold_255_classes(dataset, count):
    data = dataset([f"c{i}" for i in range(count)], [(count - 1, square(4, 20))])
    derive(data, "detection")
    if count == 255:  # and the background
        with pytest.raises(UserError, match=r"256 classes of pixels.*at most 255"):
            derive(data, "semantic")
    else:
        (record,) = derive(data, "semantic").splits["train"]
        assert np.unique(semantic_label(record)).tolist() == [0, 254]


@pytest.mark.parametrize("name", ["background", "things", "cell"])
def test_derived_classes_have_unused_names(dataset, name):
    data = dataset([name, "other"], [(0, square(4, 20))])
    background = "background (2)" if name == "background" else "background"
    things = "things (2)" if name == "things" else "things"
    assert derive(data, "semantic").stuff_classes == [background, name, "other"]
    panoptic = derive(data, "panoptic")
    assert panoptic.thing_classes == [name, "other"]
    assert panoptic.stuff_classes == [things, background]


def test_the_drawing_order_is_that_of_the_masks():
    """The areas of the file are exchanged."""
    annotations = [
        make_annotation(0, segmentation=rle_of_mask(square(8, 12)), area=900.0, size=SIZE),
        make_annotation(1, segmentation=rle_of_mask(square(2, 30)), area=1.0, size=SIZE),
    ]
    labels = {"source": "annotations", "classes": {0: 1, 1: 2}, "background": 0}
    record = {"height": 32, "width": 32, "annotations": annotations, "labels": labels}
    label = semantic_label(record)
    assert (label[0, 0], label[4, 4], label[10, 10]) == (0, 2, 1)
    record["labels"] = {**labels, "things": {0: 0, 1: 1}, "background": 1}
    ids, segments = panoptic_segments(record)
    classes = {segment["id"]: segment["category_id"] for segment in segments}
    assert (classes[ids[4, 4]], classes[ids[10, 10]]) == (1, 0)
