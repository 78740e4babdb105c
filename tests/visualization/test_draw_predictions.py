"""The pixels of pictures that show predictions next to the ground truth."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, BoxMode, Instances
from PIL import Image
from torch import nn

from ccsa.config import add_ccsa_config
from ccsa.errors import UserError
from ccsa.visualization import draw_predictions
from ccsa.visualization.grid import GAP, HEADING_HEIGHT, PANEL, arrange

SIZE = 80
SQUARES = {0: (8, 8), 1: (48, 40)}  # class: x, y of a square of 24 pixels
SCORES = (0.9, 0.8)


def square(x: int, y: int, scale: float = 1) -> list[int]:
    return [int(v * scale) for v in (x, y, x + 24, y + 24)]


class Stub(nn.Module):
    """A model that returns the squares of the ground truth in the requested kind of output."""

    def __init__(self, kind: str, scores=SCORES):
        super().__init__()
        self.kind, self.scores = kind, scores
        self.frozen = nn.BatchNorm2d(1).eval()
        self.seen = []

    def forward(self, inputs):
        assert not self.training and not torch.is_grad_enabled()
        precision = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
        self.seen.append((tuple(inputs[0]["image"].shape), precision))
        height, width = inputs[0]["height"], inputs[0]["width"]
        boxes = [square(*xy, scale=height / SIZE) for xy in SQUARES.values()]
        masks = torch.zeros(2, height, width, dtype=torch.bool)
        for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
            mask[y0:y1, x0:x1] = True
        if self.kind == "instances":
            found = Instances((height, width), pred_masks=masks)
            found.pred_boxes = Boxes(torch.tensor(boxes).bfloat16())
            found.scores, found.pred_classes = torch.tensor(self.scores), torch.arange(2)
            return [{"instances": found}]
        if self.kind == "sem_seg":
            ground = ~masks.any(dim=0, keepdim=True)
            return [{"sem_seg": torch.cat([masks, ground]).bfloat16()}]
        labels = masks[0] * 1 + masks[1] * 2 + (~masks.any(dim=0)) * 3
        segments = [{"id": i + 1, "isthing": True, "category_id": i} for i in range(2)]
        segments.append({"id": 3, "isthing": False, "category_id": 1})
        return [{"panoptic_seg": (labels.int(), segments)}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    Image.new("RGB", (SIZE, SIZE), (90, 90, 90)).save(folder / "scene.png")
    labels = np.full((SIZE, SIZE), 2, np.uint8)
    for label, (x, y) in SQUARES.items():
        labels[y : y + 24, x : x + 24] = label
    Image.fromarray(labels).save(folder / "semantic.png")
    Image.fromarray((labels == 2).astype(np.uint8)).save(folder / "stuff.png")
    ids = np.zeros((SIZE, SIZE, 3), np.uint8)
    ids[..., 1] = labels + 1  # ids 256, 512 and 768 need the second byte
    Image.fromarray(ids).save(folder / "panoptic.png")
    return folder


_names = (f"drawn_{number}" for number in itertools.count())


@pytest.fixture
def dataset(folder):
    """Return a function to register a dataset of ``count`` scenes with one kind of annotation."""
    registered = []

    def register(kind: str, count: int = 1) -> str:
        record = {"file_name": str(folder / "scene.png"), "height": SIZE, "width": SIZE}
        things = [
            {
                "bbox": square(*xy),
                "bbox_mode": BoxMode.XYXY_ABS,
                "category_id": label,
                "segmentation": [
                    [*xy, xy[0] + 24, xy[1], xy[0] + 24, xy[1] + 24, xy[0], xy[1] + 24]
                ],
            }
            for label, xy in SQUARES.items()
        ]
        stuff_classes = ["digits", "ground"]
        if kind in ("instances", "separated"):
            record["annotations"] = things
        if kind == "separated":
            record["sem_seg_file_name"] = str(folder / "stuff.png")
        if kind == "sem_seg":
            record["sem_seg_file_name"] = str(folder / "semantic.png")
            stuff_classes = ["a", "b", "ground"]
        if kind == "panoptic_seg":
            record["pan_seg_file_name"] = str(folder / "panoptic.png")
            segments = [{"id": 256 + 256 * i, "isthing": True, "category_id": i} for i in range(2)]
            segments.append({"id": 768, "isthing": False, "category_id": 1})
            record["segments_info"] = segments
        name = next(_names)
        DatasetCatalog.register(name, lambda: [dict(record) for _ in range(count)])
        MetadataCatalog.get(name).set(thing_classes=["a", "b"], stuff_classes=stuff_classes)
        registered.append(name)
        return name

    yield register
    for name in registered:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


def config(**changes):
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.MODEL.DEVICE = "cpu"
    cfg.INPUT.MIN_SIZE_TEST = 64
    for key, value in changes.items():
        cfg.merge_from_list([key.replace("__", "."), value])
    return cfg


ONE = 2 * PANEL  # the panel of a single image


def panels(path) -> tuple[np.ndarray, np.ndarray]:
    picture = np.asarray(Image.open(path))
    rows = picture[HEADING_HEIGHT : HEADING_HEIGHT + ONE]
    return rows[:, GAP : GAP + ONE], rows[:, 2 * GAP + ONE : 2 * GAP + 2 * ONE]


def color_in(panel: np.ndarray, label: int) -> np.ndarray:
    """Return the color of a square in its lower right part, where no label is drawn."""
    x, y = SQUARES[label]
    return panel[int((y + 20) / SIZE * ONE), int((x + 20) / SIZE * ONE)]


@pytest.mark.parametrize(
    ("annotated", "predicted"),
    [
        ("instances", "instances"),
        ("sem_seg", "sem_seg"),
        ("panoptic_seg", "panoptic_seg"),
        ("separated", "panoptic_seg"),
    ],
)
def test_a_class_has_one_color_in_both_panels(dataset, tmp_path, annotated, predicted):
    name = dataset(annotated)
    path = draw_predictions(config(), Stub(predicted), name, tmp_path / "drawn.png")
    truth, prediction = panels(path)
    colors = [color_in(truth, label) for label in SQUARES]
    for label, color in zip(SQUARES, colors, strict=True):
        np.testing.assert_array_equal(color, color_in(prediction, label))
        assert np.ptp(color.astype(int)) > 30  # it has a hue, unlike the gray scene
    assert np.abs(colors[0].astype(int) - colors[1]).max() > 60


def test_what_is_below_the_threshold_is_not_drawn(dataset, tmp_path):
    model = Stub("instances", scores=(0.9, 0.49))
    path = draw_predictions(config(), model, dataset("instances"), tmp_path / "drawn.png")
    truth, prediction = panels(path)
    np.testing.assert_array_equal(color_in(prediction, 0), color_in(truth, 0))
    assert color_in(prediction, 1).tolist() == [90, 90, 90]


def test_holes_of_a_mask_are_not_filled(dataset, tmp_path):
    class Ring(Stub):
        def forward(self, inputs):
            outputs = super().forward(inputs)
            outputs[0]["instances"].pred_masks[0, 100:120, 100:120] = False
            return outputs

    path = draw_predictions(
        config(), Ring("instances"), dataset("instances"), tmp_path / "drawn.png"
    )
    assert panels(path)[1][110, 110].tolist() == [90, 90, 90]


def test_two_drawings_are_the_same(dataset, tmp_path):
    name = dataset("instances", count=2)
    first, second = (
        draw_predictions(config(), Stub("instances"), name, tmp_path / f"{i}.png").read_bytes()
        for i in range(2)
    )
    assert first == second


def test_every_module_is_in_the_mode_it_was_in(dataset, tmp_path):
    model = Stub("instances").train()
    model.frozen.eval()
    draw_predictions(config(), model, dataset("instances"), tmp_path / "drawn.png")
    assert model.training and not model.frozen.training


def test_images_are_prepared_as_at_test_time(dataset, tmp_path):
    model = Stub("instances")
    cfg = config(SOLVER__AMP__ENABLED=True)
    draw_predictions(cfg, model, dataset("instances"), tmp_path / "drawn.png")
    assert model.seen == [((3, 64, 64), torch.bfloat16)]


@pytest.mark.parametrize(
    ("there", "asked", "drawn", "columns", "rows"), [(9, 6, 6, 2, 3), (2, 6, 2, 1, 2)]
)
def test_as_many_images_as_asked_for_or_there(
    dataset, tmp_path, there, asked, drawn, columns, rows
):
    model = Stub("instances")
    name = dataset("instances", count=there)
    path = draw_predictions(config(), model, name, tmp_path / "drawn.png", count=asked)
    assert len(model.seen) == drawn
    width = columns * (2 * PANEL + 4 * GAP) - GAP
    assert Image.open(path).size == (width, HEADING_HEIGHT + rows * (PANEL + GAP))
    assert [p.name for p in tmp_path.iterdir()] == ["drawn.png"]


def test_a_failure_leaves_the_picture_that_was_there(dataset, tmp_path, monkeypatch):
    path = tmp_path / "drawn.png"
    path.write_bytes(b"before")

    def fail(self, *args, **kwargs):
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(UserError, match=r"cannot write .*drawn\.png"):
        draw_predictions(config(), Stub("instances"), dataset("instances"), path)
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["drawn.png"]


def test_a_dataset_without_images_is_an_error(dataset, tmp_path):
    with pytest.raises(UserError, match="has no images"):
        draw_predictions(config(), Stub("instances"), dataset("instances", count=0), tmp_path / "x")


def test_panels_of_several_sizes_are_centred_in_their_cells():
    black, wide = np.zeros((40, 40, 3), np.uint8), np.zeros((20, 40, 3), np.uint8)
    picture = arrange([(black, black), (wide, wide)])
    left = picture[HEADING_HEIGHT:, GAP : GAP + 40]
    rows = (left == 0).all(axis=(1, 2)).nonzero()[0]
    second = 40 + GAP + 10
    assert rows.tolist() == [*range(40), *range(second, second + 20)]
