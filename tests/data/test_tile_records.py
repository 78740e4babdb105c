"""Training on tiles: records, and annotations that are clipped as their pixels are."""

import argparse

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from detectron2.structures import BoxMode
from PIL import Image

from ccsa.data.loaders import build_train_loader
from ccsa.data.mapper import ReportingMapper
from ccsa.data.records import rle_of_polygons
from ccsa.data.synthetic.small_objects import write_small_objects
from ccsa.data.tile_grid import Area, tile_areas
from ccsa.data.tile_records import clip_polygons, cut_annotation, tile_records
from ccsa.engine import setup_cfg
from ccsa.errors import UserError

SIZE = (60, 80)


def star(rng):
    """Return the polygon of a star, which is not convex, partly outside of the image."""
    angles = np.sort(rng.uniform(0, 2 * np.pi, 11))
    radii = rng.uniform(6, 30, 11)
    center = rng.uniform(0, 80), rng.uniform(0, 60)
    points = np.array(center) + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.clip(points, 0, (80, 60)).ravel().tolist()


def pixels(polygons, size=SIZE):
    return coco_mask.decode(rle_of_polygons(polygons, size)).astype(bool)


def annotation(mask=None, box=(0, 0, 10, 10), **fields):
    entry = {"bbox": list(box), "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, **fields}
    return entry if mask is None else {**entry, "segmentation": mask}


@pytest.mark.parametrize("seed", range(12))
def test_clipped_polygons_have_the_pixels_of_the_clipped_mask(seed):
    rng = np.random.default_rng(seed)
    polygon = star(rng)
    whole = pixels([polygon])
    area = Area(*rng.integers(0, 25, 2).tolist(), *rng.integers(30, 60, 2).tolist())
    expected = whole[area.selector]
    found = clip_polygons([polygon], area)
    size = expected.shape
    drawn = pixels(found, size) if found else np.zeros(size, bool)
    outline = int(np.abs(np.diff(whole.astype(int), axis=0)).sum())
    outline += int(np.abs(np.diff(whole.astype(int), axis=1)).sum())
    assert (drawn != expected).sum() <= max(2, 0.05 * outline)  # rounding at the outline
    for part in found:
        points = np.reshape(part, (-1, 2))
        assert points.min() >= 0 and (points <= (size[1], size[0])).all()


@pytest.mark.parametrize("seed", range(6))
def test_polygons_and_run_lengths_are_clipped_alike(seed):
    rng = np.random.default_rng(100 + seed)
    polygon = star(rng)
    area = Area(10, 15, 45, 60)
    one, share = cut_annotation(annotation([polygon], area=7.0), area)
    two, other = cut_annotation(annotation(rle_of_polygons([polygon], SIZE)), area)
    if one is None or two is None:
        assert share < 0.05 and other < 0.05
        return
    assert share == pytest.approx(other, abs=0.05)
    assert one["area"] == pytest.approx(7.0 * share)
    np.testing.assert_allclose(one["bbox"], two["bbox"], atol=1.5)
    assert one["bbox_mode"] == two["bbox_mode"] == BoxMode.XYXY_ABS


def test_boxes_are_clipped_if_there_are_no_masks():
    xywh = {**annotation(box=(10, 10, 20, 40)), "bbox_mode": BoxMode.XYWH_ABS}
    found, share = cut_annotation(xywh, Area(0, 20, 30, 60))
    assert found["bbox"] == [0, 10, 10, 30] and share == pytest.approx(0.25)


def test_an_object_inside_is_only_moved():
    polygon = [22.0, 12.0, 30.0, 12.0, 26.0, 20.0]
    found, share = cut_annotation(annotation([polygon]), Area(10, 20, 40, 60))
    assert found["segmentation"] == [[2, 2, 10, 2, 6, 10]] and share == pytest.approx(1)
    assert found["bbox"] == [2, 2, 10, 10]


def test_one_record_for_each_tile_with_its_objects():
    objects = [annotation(box=(0, 0, 10, 10)), annotation(box=(30, 30, 50, 50), iscrowd=0)]
    objects.append(annotation(box=(70, 50, 80, 60), iscrowd=1))
    record = {"file_name": "a.png", "width": 80, "height": 60, "annotations": objects}
    found = tile_records([record], (30, 40), (0, 0), 0.2, keep_empty=True)
    assert [tuple(r["tile"]) for r in found] == [
        tuple(area) for area in tile_areas(SIZE, (30, 40), (0, 0))
    ]
    assert [(r["height"], r["width"], r["image_size"]) for r in found] == [(30, 40, SIZE)] * 4
    assert [len(r["annotations"]) for r in found] == [1, 0, 1, 2]
    kept = tile_records([record], (30, 40), (0, 0), 0.2, keep_empty=False)
    assert len(kept) == 3  # a crowd alone is no object, but the last tile has half of another
    kept = tile_records([record], (30, 40), (0, 0), 0.6, keep_empty=False)
    assert len(kept) == 1
    assert "tile" not in record


def test_records_without_a_tile_to_train_are_refused():
    record = {"file_name": "a.png", "width": 80, "height": 60, "annotations": []}
    with pytest.raises(UserError, match="no tile of 30 x 40 pixels"):
        tile_records([record], (30, 40), (0, 0), 0.2, keep_empty=False)
    with pytest.raises(UserError, match=r"the record of b\.png has no width"):
        tile_records([{"file_name": "b.png"}], (30, 40), (0, 0), 0.2, keep_empty=True)


def test_the_mapper_gives_the_pixels_and_objects_of_a_tile(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*SIZE, 3)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    labels = rng.integers(0, 3, SIZE).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "label.png")
    objects = [
        annotation([[30, 30, 50, 30, 50, 50, 30, 50]], (30, 30, 50, 50)),
        annotation([[0, 30, 42, 30, 42, 34, 0, 34]], (0, 30, 42, 34)),  # 5 % of it is in the tile
    ]
    record = {"file_name": str(tmp_path / "a.png"), "width": 80, "height": 60}
    record |= {"annotations": objects, "sem_seg_file_name": str(tmp_path / "label.png")}
    (tile,) = tile_records([record], (30, 40), (0, 0), 0, keep_empty=True)[3:]
    mapper = ReportingMapper(
        is_train=True,
        augmentations=[],
        image_format="RGB",
        use_instance_mask=True,
        recompute_boxes=True,
        min_visible=0.1,
    )
    for _ in range(2):  # the second time from the cache
        found = mapper(tile)
        assert np.array_equal(found["image"].numpy().transpose(1, 2, 0), image[30:, 40:])
        assert np.array_equal(found["sem_seg"].numpy(), labels[30:, 40:])
        assert (found["height"], found["width"]) == (30, 40)
        assert found["instances"].gt_boxes.tensor.tolist() == [[0, 0, 10, 20]]
    assert list(mapper._images) == [record["file_name"]]


def test_the_loader_trains_on_tiles_of_the_built_in_dataset(tmp_path, root, monkeypatch):
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.data.datasets.coco import load_coco_json

    folder = tmp_path / "small_objects"
    write_small_objects(folder, {"train": 2}, size=500)
    file = str(folder / "annotations" / "instances_train.json")
    name = "small_objects_of_a_test"
    DatasetCatalog.register(name, lambda: load_coco_json(file, str(folder / "train"), name))
    MetadataCatalog.get(name).set(evaluator_type="coco")
    try:
        words = ["MODEL.DEVICE", "cpu", "DATASETS.TRAIN", f"('{name}',)", "INPUT.TILES.SIZE"]
        words += ["[200, 200]", "SOLVER.IMS_PER_BATCH", "4", "INPUT.MIN_SIZE_TRAIN", "[200]"]
        config = str(root / "configs/small_objects/mask_rcnn.yaml")
        cfg = setup_cfg(argparse.Namespace(config_file=config, opts=words))
        batch = next(iter(build_train_loader(cfg)))
        assert len(batch) == 4
        for item in batch:
            assert item["image"].shape == (3, 200, 200) and len(item["instances"]) >= 1
            boxes = item["instances"].gt_boxes
            assert boxes.tensor.min() >= 0 and boxes.tensor.max() <= 200
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["INPUT.TILES.OVERLAP", "[256, 0]"], "INPUT.TILES.OVERLAP"),
        (["INPUT.TILES.MIN_VISIBLE", "2"], "INPUT.TILES.MIN_VISIBLE"),
        (["MODEL.KEYPOINT_ON", "True"], "not possible with MODEL.KEYPOINT_ON"),
    ],
)
def test_wrong_settings_are_refused(root, words, reason):
    config = str(root / "configs/small_objects/mask_rcnn.yaml")
    with pytest.raises(UserError, match=reason):
        setup_cfg(argparse.Namespace(config_file=config, opts=["MODEL.DEVICE", "cpu", *words]))
