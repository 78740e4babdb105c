"""Training augmentation by value: sizes, padding, exchanged labels, reproducibility."""

import random

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import transforms as T
from PIL import Image

from ccsa import add_ccsa_config
from ccsa.data.loaders import build_train_mapper
from ccsa.data.mapper import ReportingMapper, SemanticMapper, common_flip_pairs
from ccsa.data.transforms.semantic import PadToSize, RandomScale, semantic_augmentations
from ccsa.errors import UserError

H, W = 20, 30
MEAN = [10.4, 20.6, 30.0]


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.MODEL.PIXEL_MEAN = MEAN
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.INPUT.MIN_SIZE_TRAIN = (H,)
    return cfg


def seed(value=0):
    random.seed(value)
    np.random.seed(value)


def sample(height=H, width=W):
    """Return an image whose red channel equals its labels, so that both must be changed alike."""
    labels = np.arange(height * width, dtype=np.uint8).reshape(height, width) % 200
    return np.stack([labels, labels // 2, 255 - labels], axis=2), labels


def apply(augmentations, image, labels):
    data = T.AugInput(image.copy(), sem_seg=labels.copy())
    T.AugmentationList(augmentations)(data)
    return data.image, data.sem_seg


def crop(cfg, *size, kind="absolute"):
    cfg.INPUT.CROP.ENABLED = True
    cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = kind, list(size)


# RandomScale


def test_steps_are_those_of_the_official_code():
    seed()
    image = np.zeros((100, 200, 3), np.uint8)
    scale = RandomScale(0.7, 2.1, 0.1)
    sizes = {scale.get_transform(image).apply_image(image).shape[:2] for _ in range(400)}
    assert sizes == {(70 + 10 * i, 140 + 20 * i) for i in range(15)}


def test_a_range_without_steps_is_filled_to_its_ends():
    seed()
    image = np.zeros((1000, 500, 3), np.uint8)
    heights = [RandomScale(0.75, 2.0).get_transform(image).new_h for _ in range(500)]
    assert 750 <= min(heights) < 770 and 1980 < max(heights) <= 2000
    assert len(set(heights)) > 300


def test_the_longer_side_is_what_is_scaled():
    image = np.zeros((50, 100, 3), np.uint8)
    for shape, wanted in (((50, 100, 3), (240, 480)), ((100, 50, 3), (480, 240))):
        image = np.zeros(shape, np.uint8)
        transform = RandomScale(1.0, 1.0, long_side=480).get_transform(image)
        assert (transform.new_h, transform.new_w) == wanted


def test_labels_are_not_blended():
    image, _ = sample()
    labels = np.where(np.arange(W) < W // 2, 3, 250).astype(np.uint8) * np.ones((H, 1), np.uint8)
    _, scaled = apply([RandomScale(1.7, 1.7)], image, labels)
    assert scaled.shape == (34, 51) and set(np.unique(scaled)) == {3, 250}


@pytest.mark.parametrize("values", [(0.0, 1.0), (2.0, 1.0), (1.0, 2.0, -0.1), (1.0, 2.0, 0.1, -1)])
def test_wrong_ranges_are_refused(values):
    with pytest.raises(ValueError):
        RandomScale(*values)


# Padding and crop


def test_padding_has_the_mean_color_and_the_ignored_label():
    image, labels = sample()
    padded, ignored = apply([PadToSize((25, 40), MEAN, 255)], image, labels)
    assert padded.shape == (25, 40, 3) and padded.dtype == np.uint8 and ignored.dtype == np.uint8
    assert (padded[:H, :W] == image).all() and (ignored[:H, :W] == labels).all()
    outside = np.ones((25, 40), bool)
    outside[:H, :W] = False
    assert (padded[outside] == [10, 21, 30]).all()
    assert (ignored[outside] == 255).all()


def test_padding_leaves_what_is_large_enough():
    image, labels = sample()
    same, _ = apply([PadToSize((H, 10), MEAN, 255)], image, labels)
    assert same.shape == image.shape and (same == image).all()


def test_padding_keeps_floats_as_they_are():
    image = np.zeros((2, 2, 3), np.float32)
    padded = PadToSize((2, 3), MEAN, 255).get_transform(image).apply_image(image)
    assert padded[0, 2] == pytest.approx(MEAN)


def test_crop_is_a_part_of_the_image_and_padded_where_it_is_small(cfg):
    crop(cfg, 12, 40)
    cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE = 254
    image, labels = sample()
    rows = set()
    for i in range(40):
        seed(i)
        got, marks = apply(semantic_augmentations(cfg), image, labels)
        assert got.shape == (12, 40, 3) and marks.shape == (12, 40)
        assert (got[:, :W, 0] == marks[:, :W]).all()
        assert (got[:, W:] == [10, 21, 30]).all() and (marks[:, W:] == 254).all()
        (top,) = (t for t in range(H - 11) if (marks[:, :W] == labels[t : t + 12]).all())
        rows.add(top)
    assert rows == set(range(9))


def test_relative_crops_are_not_padded(cfg):
    crop(cfg, 0.5, 0.5, kind="relative")
    assert apply(semantic_augmentations(cfg), *sample())[0].shape == (10, 15, 3)


def test_a_class_that_fills_the_crop_is_cropped_again(cfg):
    crop(cfg, 10, 10)
    image, labels = sample()[0], np.zeros((H, W), np.uint8)
    labels[:, 25:] = 1
    good = {}
    for area in (0.9, 1.0):
        cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = area
        good[area] = 0
        for i in range(40):
            seed(i)
            _, marks = apply(semantic_augmentations(cfg), image, labels)
            good[area] += (marks == 1).mean() > 0.1
    assert good[0.9] >= 36 and good[1.0] <= 20  # ten tries may all fail


# Keys


def test_short_side_is_one_of_the_choices(cfg):
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (10, 15, 25), 30
    seed()
    sizes = {apply(semantic_augmentations(cfg), *sample())[1].shape for _ in range(50)}
    assert sizes == {(10, 15), (15, 23), (20, 30)}  # the longer side limits the last one


def test_flip_exchanges_left_and_right_labels(cfg):
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    image, _ = sample()
    labels = np.resize(np.array([13, 14, 15, 16, 17, 18, 19, 255], np.uint8), (H, W))
    exchanged = {13: 13, 14: 15, 15: 14, 16: 17, 17: 16, 18: 19, 19: 18, 255: 255}
    flips = 0
    for i in range(30):
        seed(i)
        augmentations = semantic_augmentations(cfg, [(14, 15), (16, 17), (18, 19)])
        got, marks = apply(augmentations, image, labels)
        if (got == image[:, ::-1]).all():
            flips += 1
            assert (marks == np.vectorize(exchanged.get)(labels[:, ::-1])).all()
        else:
            assert (got == image).all() and (marks == labels).all()
    assert 8 <= flips <= 22


def test_vertical_flip_exchanges_nothing(cfg):
    cfg.INPUT.RANDOM_FLIP = "vertical"
    image, labels = sample()
    results = set()
    for i in range(20):
        seed(i)
        _, marks = apply(semantic_augmentations(cfg, [(14, 15)]), image, labels)
        results.add((marks == labels[::-1]).all())
        assert (marks == labels[::-1]).all() or (marks == labels).all()
    assert results == {True, False}


def test_color_jitter_changes_the_image_alone_and_not_the_padding(cfg):
    crop(cfg, 25, 40)
    cfg.INPUT.SEM_SEG.COLOR_JITTER.ENABLED = True
    image, labels = sample()
    changed = 0
    for i in range(20):
        seed(i)
        got, marks = apply(semantic_augmentations(cfg), image, labels)
        assert got.dtype == np.uint8 and (marks[:H, :W] == labels).all()
        assert (got[H:] == [10, 21, 30]).all() and (got[:, W:] == [10, 21, 30]).all()
        changed += (got[:H, :W] != image).any()
    assert changed >= 15


def test_jitter_ranges_are_the_keys(cfg):
    jitter = cfg.INPUT.SEM_SEG.COLOR_JITTER
    jitter.ENABLED = True
    jitter.BRIGHTNESS, jitter.HUE = 0.0, 0
    jitter.CONTRAST, jitter.SATURATION = [0.5, 0.5], [1.0, 1.0]
    grey = np.full((H, W, 3), 100, np.uint8)
    seen = set()
    for i in range(20):
        seed(i)
        seen.add(apply(semantic_augmentations(cfg), grey, grey[..., 0])[0].max())
    assert seen == {50, 100}  # each change is random


def test_the_same_seed_gives_the_same_picture(cfg):
    crop(cfg, 16, 16)
    cfg.INPUT.SEM_SEG.SCALE_RANGE, cfg.INPUT.SEM_SEG.COLOR_JITTER.ENABLED = [0.5, 2.0], True
    cfg.INPUT.RANDOM_FLIP = "horizontal"
    runs = []
    for value in (1, 1, 2):
        seed(value)
        augmentations = semantic_augmentations(cfg)
        runs.append([apply(augmentations, *sample()) for _ in range(5)])
    first, second, other = ([array.tobytes() for pair in run for array in pair] for run in runs)
    assert first == second and first != other


def test_wrong_keys_are_refused(cfg):
    cases = [
        (("SCALE_RANGE", [1.0]), "low, high"),
        (("SCALE_STEP", 0.1), "need INPUT.SEM_SEG.SCALE_RANGE"),
        (("LONG_SIDE", 100), "need INPUT.SEM_SEG.SCALE_RANGE"),
    ]
    for (key, value), words in cases:
        wrong = cfg.clone()
        wrong.INPUT.SEM_SEG[key] = value
        with pytest.raises(ValueError, match=words):
            semantic_augmentations(wrong)
    crop(cfg, 0.5, 0.5)
    with pytest.raises(ValueError, match="whole pixels"):
        semantic_augmentations(cfg)
    cfg.INPUT.CROP.ENABLED = False
    cfg.INPUT.RANDOM_FLIP = "diagonal"
    with pytest.raises(ValueError, match="horizontal, vertical or none"):
        semantic_augmentations(cfg)
    cfg.INPUT.RANDOM_FLIP = "none"
    cfg.INPUT.SEM_SEG.COLOR_JITTER.ENABLED = True
    cfg.INPUT.FORMAT = "YUV-BT.601"
    with pytest.raises(ValueError, match="RGB or BGR"):
        semantic_augmentations(cfg)
    cfg.INPUT.FORMAT, cfg.INPUT.SEM_SEG.COLOR_JITTER.CONTRAST = "RGB", [1.5, 0.5]
    with pytest.raises(ValueError, match="CONTRAST"):
        semantic_augmentations(cfg)


# The mapper


def write(folder):
    image, labels = sample()
    Image.fromarray(image).save(folder / "image.png")
    Image.fromarray(labels).save(folder / "labels.png")
    return {
        "file_name": str(folder / "image.png"),
        "sem_seg_file_name": str(folder / "labels.png"),
    }


def test_with_detectron2s_keys_alone_it_is_detectron2s_mapper(cfg, tmp_path):
    cfg.INPUT.RANDOM_FLIP, cfg.INPUT.MIN_SIZE_TRAIN = "horizontal", (10, 20, 30)
    cfg.DATASETS.TRAIN = ("digits_train_sem_seg",)
    record = write(tmp_path)
    for i in range(10):
        results = []
        for mapper in (build_train_mapper(cfg), ReportingMapper(cfg, is_train=True)):
            seed(i)
            results.append(mapper(record))
        assert torch.equal(results[0]["image"], results[1]["image"])
        assert torch.equal(results[0]["sem_seg"], results[1]["sem_seg"])
        assert set(results[0]) == set(results[1])


@pytest.mark.parametrize(
    ("train", "name", "wanted"),
    [
        ("lip_sem_seg_train", "auto", SemanticMapper),
        ("ade20k_sem_seg_train", "auto", SemanticMapper),
        ("cityscapes_fine_sem_seg_train", "auto", SemanticMapper),
        ("digits_train", "auto", ReportingMapper),
        ("coco_2017_train", "auto", ReportingMapper),
        ("digits_train_panoptic_separated", "auto", ReportingMapper),
        ("digits_train", "semantic", SemanticMapper),
        ("lip_sem_seg_train", "detection", ReportingMapper),
    ],
)
def test_the_mapper_goes_by_the_datasets(cfg, train, name, wanted):
    cfg.DATASETS.TRAIN, cfg.INPUT.MAPPER = (train,), name
    assert type(build_train_mapper(cfg)) is wanted


def test_lip_swaps_by_itself(cfg):
    assert common_flip_pairs(["lip_sem_seg_train"]) == ((14, 15), (16, 17), (18, 19))
    cfg.DATASETS.TRAIN, cfg.INPUT.RANDOM_FLIP = ("lip_sem_seg_train",), "horizontal"
    flip = build_train_mapper(cfg).augmentations.augs[-1]
    assert flip.pairs == ((14, 15), (16, 17), (18, 19))


def test_what_would_have_no_effect_or_two_meanings_is_refused(cfg):
    cfg.DATASETS.TRAIN = ("digits_train",)
    cfg.INPUT.SEM_SEG.SCALE_RANGE = [0.5, 2.0]
    with pytest.raises(UserError, match="no effect on digits_train"):
        build_train_mapper(cfg)
    cfg.INPUT.MAPPER = "panoptic"
    with pytest.raises(UserError, match="auto, semantic, detection"):
        build_train_mapper(cfg)
    cfg.INPUT.MAPPER, cfg.INPUT.RANDOM_FLIP = "auto", "horizontal"
    cfg.DATASETS.TRAIN = ("lip_sem_seg_train", "ade20k_sem_seg_train")
    with pytest.raises(UserError, match="different flip_pairs"):
        build_train_mapper(cfg)
    cfg.INPUT.RANDOM_FLIP = "none"
    build_train_mapper(cfg)


def test_a_damaged_file_is_named(cfg, tmp_path):
    cfg.DATASETS.TRAIN = ("lip_sem_seg_train",)
    record = write(tmp_path)
    (tmp_path / "labels.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"labels\.png.*--resume"):
        build_train_mapper(cfg)(record)
