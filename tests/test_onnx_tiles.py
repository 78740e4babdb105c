"""The tiles of examples/onnx_tiles.py and run_onnx.py give what ccsa gives with TEST.TILES."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.structures import Boxes, Instances
from PIL import Image
from support.detectors import build_detector, mask_rcnn, retinanet
from support.tiny_segmentors import semantic, video
from torch import nn

from ccsa.config import add_ccsa_config
from ccsa.engine import Trainer
from ccsa.export import export, exported_part, program_metadata
from ccsa.inference.build import build_inference
from ccsa.inference.tiles import TiledInference

EXAMPLES = Path(__file__).parents[1] / "examples"
needs_onnx = pytest.mark.skipif(
    not importlib.util.find_spec("onnxruntime"), reason="pip install onnx onnxruntime onnxscript"
)
# Runs in a process of its own; each case changes metadata of the program, and names its tiles.
DRIVER = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np, run_onnx
session, metadata = run_onnx.load(sys.argv[2])
image = run_onnx.read(sys.argv[3], metadata)
for number, (changed, tile, overlap) in enumerate(json.loads(sys.argv[4])):
    found = run_onnx.detect(session, metadata | changed, image, tile, overlap)
    if "masks" in found:
        masks = np.zeros((len(found["masks"]), *image.shape[:2]), bool)
        for full, mask in zip(masks, found["masks"], strict=True):
            left, top, right, bottom = mask.box
            full[top:bottom, left:right] = mask.pixels
        found["masks"] = masks
    np.savez(f"{sys.argv[5]}/{number}.npz", **found)
assert not {"ccsa", "detectron2", "torch"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def tiles():
    spec = importlib.util.spec_from_file_location("onnx_tiles", EXAMPLES / "onnx_tiles.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["onnx_tiles"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules["onnx_tiles"]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """Return the file of an image of 190 x 150 pixels."""
    file = tmp_path_factory.mktemp("picture") / "image.png"
    pixels = np.random.default_rng(0).integers(0, 256, (15, 19, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((190, 150)).save(file)
    return file


def run_in_process(program, picture, cases, folder):
    """Return what the runner finds for each (changed metadata, tile, overlap)."""
    command = [sys.executable, "-I", "-c", DRIVER, EXAMPLES, program, picture, json.dumps(cases)]
    command = [*map(str, command), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [dict(np.load(folder / f"{number}.npz")) for number in range(len(cases))]


def run(*arguments):
    command = [sys.executable, "-E", "-s", str(EXAMPLES / "run_onnx.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


class Finder(nn.Module):
    """Find the numbered objects of an image (1, H, W), with errors that depend on the tile."""

    def __init__(self, masks):
        super().__init__()
        self.masks = masks

    def find(self, image):
        """Return the outputs of a program for an image (H, W)."""
        random = np.random.default_rng(int(image.sum()))
        boxes, masks, scores, classes = [], [], [], []
        for number in np.unique(image)[1:]:
            mask = image == number
            mask &= random.random(mask.shape) > 0.4 * random.integers(2)
            if not mask.any() or random.random() < 0.1:
                continue
            ys, xs = mask.nonzero()
            box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
            boxes.append(box + random.uniform(-1, 1, 4))
            masks.append(mask)
            scores.append(random.random())
            classes.append((number + (random.random() < 0.2)) % 3)
        found = {
            "boxes": np.array(boxes, np.float32).reshape(-1, 4),
            "scores": np.array(scores, np.float32),
            "classes": np.array(classes, np.int64),
        }
        if self.masks:
            found["masks"] = np.array(masks, bool).reshape(-1, *image.shape)
        return found

    def forward(self, inputs):
        return [{"instances": self.instances(x["image"][0].numpy())} for x in inputs]

    def instances(self, image):
        found = {name: torch.from_numpy(x) for name, x in self.find(image).items()}
        instances = Instances(image.shape, pred_boxes=Boxes(found["boxes"]))
        instances.scores, instances.pred_classes = found["scores"], found["classes"]
        if self.masks:
            instances.pred_masks = found["masks"]
        return instances


@pytest.mark.parametrize("masks", [True, False])
@pytest.mark.parametrize("seed", range(10))
def test_objects_are_merged_as_ccsa_merges_them(tiles, seed, masks):
    random = np.random.default_rng(seed)
    image = np.zeros((90, 120), np.uint8)
    for number in range(1, 40):
        y, x, h, w = (int(random.integers(0, n)) for n in (85, 115, 45, 45))
        image[y : y + h + 1, x : x + max(1, w // 4)] = number
    size, overlap, finder = (40, 57), (11, 20), Finder(masks)
    tiled = TiledInference(finder, size, overlap, limit=25)
    expected = tiled([{"image": torch.from_numpy(image)[None]}])[0]["instances"]
    found = tiles.run_on_tiles(
        lambda part: finder.find(part[:, :, 0]),
        *(np.repeat(image[:, :, None], 3, 2), image.shape, size, overlap, 25),
    )
    assert len(expected) > 10 and ("masks" in found) == masks
    np.testing.assert_array_equal(found["boxes"], expected.pred_boxes.tensor.numpy())
    np.testing.assert_array_equal(found["scores"], expected.scores.numpy())
    np.testing.assert_array_equal(found["classes"], expected.pred_classes.numpy())
    others = expected.pred_masks.masks if masks else []
    for mask, other in zip(found.get("masks", []), others, strict=True):
        assert mask.box == other.box
        np.testing.assert_array_equal(mask.pixels, other.pixels)


def test_objects_of_a_resized_image_are_scaled_with_their_masks(tiles):
    mask = np.zeros((1, 10, 20), bool)
    mask[:, 3:8, 2:6] = True
    found = {"boxes": np.array([[2.0, 3, 6, 8]]), "scores": [0.5], "classes": [1], "masks": mask}
    [item] = tiles.objects_of(found, 0, (10, 0, 30, 10), (2, 3), (30, 60))
    assert item.box == (24, 9, 32, 24) == item.mask.box and item.mask.pixels.all()
    assert item.tiles == {0: (20, 0, 60, 30)} and not item.cut


def test_a_pixel_has_the_class_of_the_tile_whose_edge_is_farthest(tiles):
    shape, size, overlap = (23, 31), (10, 12), (4, 5)
    areas, numbers = tiles.tile_areas(shape, size, overlap), iter(range(99))
    found = tiles.run_on_tiles(
        lambda part: {"semantic": np.full(part.shape[:2], next(numbers))},
        *(np.zeros((*shape, 3), np.uint8), shape, size, overlap),
    )["semantic"]
    for (y, x), number in np.ndenumerate(found):
        distances = []
        for left, top, right, bottom in areas:
            sides = [x - left + 1 if left else 99, y - top + 1 if top else 99]
            sides += [right - x if right < 31 else 99, bottom - y if bottom < 23 else 99]
            distances.append(min(sides))
        assert distances[number] == max(distances)
    assert set(found.ravel()) == set(range(len(areas)))


def expected_of(cfg, model, picture, shape):
    """Return what ccsa finds with TEST.TILES in an image that is resized to a shape."""
    with Image.open(picture) as opened:
        width, height = opened.size
        pixels = np.asarray(opened.resize(shape[::-1], Image.Resampling.BILINEAR))
    pixels = pixels if cfg.INPUT.FORMAT == "RGB" else pixels[:, :, ::-1].copy()
    image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float()
    with torch.no_grad():
        inputs = [{"image": image, "height": height, "width": width}]
        return build_inference(cfg, model)(inputs)[0]


def matches(found, expected):
    """Return the objects that ccsa has found, too, as pairs of indices."""
    exact = found["boxes"][:, None] - expected.pred_boxes.tensor.numpy()
    same = (np.abs(exact) < 0.01).all(2)
    same &= np.abs(found["scores"][:, None] - expected.scores.numpy()) < 1e-4
    same &= found["classes"][:, None] == expected.pred_classes.numpy()
    pairs = np.argwhere(same).tolist()
    if "masks" in found:
        masks = np.asarray(expected.pred_masks)
        pairs = [(i, j) for i, j in pairs if alike(found["masks"][i], masks[j])]
    return dict(pairs)


def alike(a, b):
    """Return whether nearly all pixels of two masks are the same."""
    return (a != b).sum() <= 0.01 * (a | b).sum()


@needs_onnx
@pytest.mark.parametrize("kind", [mask_rcnn, retinanet])
def test_a_detector_finds_in_tiles_what_ccsa_finds(tmp_path, picture, kind):
    keys = ("TEST.TILES.ENABLED", True, "TEST.TILES.SIZE", [96, 112])
    cfg, model = build_detector(kind, *keys, "TEST.TILES.OVERLAP", [32, 40])
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 225, 270
    part, file = exported_part(model, cfg), tmp_path / "model.onnx"
    metadata = program_metadata(cfg, part=part)
    assert metadata["tiles"] == {"size": [96, 112], "overlap": [32, 40]}
    export(part, "onnx", file, metadata)
    cases = [({"shorter_side": 0}, None, None), ({}, None, None)]
    results = run_in_process(file, picture, cases, tmp_path)
    for found, shape, masks in zip(results, [(150, 190), (213, 270)], [True, False], strict=True):
        expected = expected_of(cfg, model, picture, shape)["instances"]
        assert len(expected) > 3 and len(found["scores"]) == len(expected)
        # In a resized image, ccsa computes masks in pixels of the image. Those of random weights
        # are so ragged that they differ, and that a few objects are merged in another way.
        rate = 1.0 if masks or kind is retinanet else 0.8
        if not masks:
            found.pop("masks", None)
        assert len(matches(found, expected)) >= rate * len(expected)


@needs_onnx
def test_a_semantic_program_is_drawn_and_run_on_tiles(tmp_path, picture):
    torch.manual_seed(0)
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.MODEL.DEVICE, cfg.MODEL.META_ARCHITECTURE = "cpu", "ContextModel"
    semantic(cfg)
    cfg.INPUT.MIN_SIZE_TEST = 0
    model = Trainer.build_model(cfg).eval()
    names = ["road", "sky", "tree", "house", "car"]
    file = tmp_path / "model.onnx"
    part = exported_part(model, cfg)
    export(part, "onnx", file, program_metadata(cfg, stuff=names, part=part))

    whole, tiled = run_in_process(file, picture, [({}, None, None), ({}, 64, 24)], tmp_path)
    cfg.TEST.TILES.ENABLED, cfg.TEST.TILES.SIZE = True, [64, 64]
    cfg.TEST.TILES.OVERLAP = [24, 24]
    averaged = expected_of(cfg, model, picture, (150, 190))["sem_seg"].argmax(0).numpy()
    assert whole["semantic"].shape == tiled["semantic"].shape == (150, 190)
    assert (tiled["semantic"] == averaged).mean() > 0.9

    for number, options in enumerate([(), ("--tile", 64), ("--tile", 64, "--overlap", 0)]):
        result = tmp_path / f"{number}.png"
        done = run(file, picture, result, *options)
        assert done.returncode == 0, done.stderr
        rows = [line.split("\t") for line in done.stdout.splitlines()]
        shares = [float(row[1].rstrip("%")) for row in rows]
        assert {row[0] for row in rows} <= set(names) and len(rows) == len({*map(tuple, rows)})
        assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=0.1)
        if not number:
            counts = {n: (whole["semantic"] == i).mean() for i, n in enumerate(names)}
            assert all(abs(counts[row[0]] - float(row[1][:-1]) / 100) < 1e-3 for row in rows)
        with Image.open(result) as drawn, Image.open(picture) as before:
            assert drawn.size == before.size
            assert (np.asarray(drawn) != np.asarray(before)).any()

    for options, message in [
        (("--overlap", 8), "--overlap needs tiles"),
        (("--tile", 8, "--overlap", 8), "must be at least 0 and smaller than the tile"),
        (("--tile", -8), "must be at least 0 and smaller than the tile"),
    ]:
        done = run(file, picture, tmp_path / "no.png", *options)
        assert done.returncode == 1 and message in done.stderr
        assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1


@needs_onnx
def test_a_program_that_takes_clips_is_not_drawn(tmp_path, picture):
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.MODEL.DEVICE, cfg.MODEL.META_ARCHITECTURE = "cpu", "ContextModel"
    video(cfg)
    part = exported_part(Trainer.build_model(cfg).eval(), cfg)
    file = tmp_path / "model.onnx"
    export(part, "onnx", file, program_metadata(cfg, part=part))
    done = run(file, picture, tmp_path / "no.png")
    assert done.returncode == 1 and "takes clips of 3 frames, not an image" in done.stderr


@needs_onnx
def test_every_class_has_its_own_color():
    code = "import run_onnx; print(len({run_onnx.color(i, 150) for i in range(150)}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=EXAMPLES, capture_output=True, text=True, check=False
    )
    assert done.stdout == "150\n", done.stderr
