"""ccsa.Predictor: loading, inputs, names, and results, with tiny models of random weights."""

import argparse
import pickle
import shutil

import numpy as np
import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.structures import Boxes, Instances
from PIL import Image
from support import tiny_models, tiny_runs

import ccsa
from ccsa.engine import setup_cfg
from ccsa.inference import ModelPredictor
from ccsa.modeling import VideoSemanticSegmentor
from ccsa.prediction.shrinking import shrunk_outputs, shrunk_size

IMAGE = np.random.default_rng(0).integers(0, 255, (96, 128, 3)).astype(np.uint8)
OTHER = np.ascontiguousarray(IMAGE[::-1])
SMALL = np.ascontiguousarray(IMAGE[:64, :64])


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Return the folders of one run of each kind."""
    folder = tmp_path_factory.mktemp("runs")
    configs = {
        "mask": tiny_models.MASK_RCNN,
        "panoptic": tiny_models.PANOPTIC_FPN,
        "semantic": tiny_runs.SEMANTIC,
    }
    return {k: tiny_runs.write_run(folder / k, config) for k, config in configs.items()}


@pytest.fixture(scope="module")
def predictors(runs):
    return {k: ccsa.Predictor.from_run(run, confidence=0.01) for k, run in runs.items()}


def test_a_detector_finds_objects_with_names(predictors):
    found = predictors["mask"](IMAGE)
    assert len(found.instances) == 5 and found.instances.pred_masks.shape == (5, 96, 128)
    assert found.instances.pred_boxes.tensor.device.type == "cpu"
    assert found.classes == list("0123456789") and found.stuff_classes == []
    assert found.semantic is None and found.panoptic is None
    drawn = found.draw()
    assert drawn.shape == IMAGE.shape and drawn.dtype == np.uint8 and (drawn != IMAGE).any()


def test_a_panoptic_model_gives_all_three(predictors):
    found = predictors["panoptic"](IMAGE)
    assert found.instances is not None and found.semantic.shape == (96, 128)
    assert found.stuff_classes == ["things", "sand", "stripes", "checks"]
    ids, segments = found.panoptic
    assert ids.shape == (96, 128)
    assert set(ids.unique().tolist()) - {0} == {segment["id"] for segment in segments}


def test_a_semantic_model_gives_the_class_of_each_pixel(predictors):
    found = predictors["semantic"](IMAGE)
    assert found.instances is None and found.panoptic is None
    assert torch.equal(found.semantic, found.outputs["sem_seg"].argmax(0))
    assert found.classes == found.stuff_classes and len(found.classes) == 13


def test_the_result_is_that_of_the_model(runs, predictors):
    args = argparse.Namespace(config_file=str(runs["mask"] / "config.yaml"), opts=[])
    cfg = setup_cfg(args).clone()
    cfg.MODEL.defrost()
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.01
    expected = ModelPredictor(cfg, predictors["mask"].model)(IMAGE)["instances"]
    found = predictors["mask"](IMAGE).instances
    assert torch.equal(found.scores, expected.scores)
    assert torch.equal(found.pred_masks, expected.pred_masks)


def test_the_confidence_limits_the_scores(runs):
    all_scores = ccsa.Predictor.from_run(runs["mask"], confidence=0)(IMAGE).instances.scores
    limit = float(all_scores.median()) + 1e-6
    found = ccsa.Predictor.from_run(runs["mask"], confidence=limit)(IMAGE).instances
    assert 0 < len(found) < len(all_scores) and found.scores.min() >= limit


def test_a_path_is_read_as_in_training(predictors, tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    turned = Image.fromarray(np.rot90(IMAGE).copy())  # upright after the turn that EXIF states
    exif = Image.Exif()
    exif[274] = 6
    turned.save(tmp_path / "turned.png", exif=exif)
    expected = predictors["mask"](IMAGE).instances.scores
    for file in (tmp_path / "a.png", str(tmp_path / "turned.png")):
        assert torch.equal(predictors["mask"](file).instances.scores, expected), file


def test_deep_images_are_mapped_by_the_range_of_the_run(runs, tmp_path):
    deep = IMAGE[..., 0].astype(np.uint16) * 10 + 1000
    Image.fromarray(deep).save(tmp_path / "deep.tif")
    with pytest.raises(ccsa.UserError, match=r"more than 8 bits.*INTENSITY_RANGE"):
        ccsa.Predictor.from_run(runs["mask"])(tmp_path / "deep.tif")
    run = shutil.copytree(runs["mask"], tmp_path / "run")
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["INPUT"]["INTENSITY_RANGE"] = [1000, 3550]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    predictor = ccsa.Predictor.from_run(run, confidence=0.01)
    gray = np.repeat(IMAGE[..., :1], 3, axis=2)
    assert np.array_equal(predictor(tmp_path / "deep.tif").image, gray)


@pytest.mark.parametrize("kind", ["mask", "panoptic", "semantic"])
@pytest.mark.parametrize("size", [1, 2])
def test_a_list_gives_a_list_in_order_and_batches_change_nothing(runs, predictors, kind, size):
    images = [IMAGE, OTHER, SMALL, IMAGE]
    predictor = ccsa.Predictor.from_run(runs[kind], confidence=0.01, batch_size=size)
    seen = []
    predictor.model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    found = predictor(images)
    assert seen == {1: [1, 1, 1, 1], 2: [2, 1, 1]}[size]
    assert [np.array_equal(f.image, i) for f, i in zip(found, images, strict=True)] == [True] * 4
    for result, image in zip(found, images, strict=True):
        alone = predictors[kind](image)
        for a, b in zip(parts(result), parts(alone), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert predictor([]) == []


def parts(found):
    """Return the tensors of a prediction that can be compared."""
    if found.instances is None:
        return [found.outputs["sem_seg"]]
    return [found.instances.scores, found.instances.pred_boxes.tensor]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (IMAGE.astype(np.float32), "not float32 of shape (96, 128, 3)"),
        (IMAGE.astype(np.uint16), "not uint16"),
        (IMAGE[..., 0], "of shape (96, 128)"),
        (IMAGE[..., :2], "of shape (96, 128, 2)"),
        (IMAGE.transpose(2, 0, 1), "of shape (3, 96, 128)"),
        (IMAGE[None], "of shape (1, 96, 128, 3)"),
        (IMAGE[:0], "of shape (0, 128, 3)"),
        (torch.as_tensor(IMAGE), "numpy.asarray"),
        (None, "not None"),
        (7, "not 7"),
        ("absent.jpg", "absent.jpg is not a file"),
        ("", "is not a file"),
    ],
)
def test_other_inputs_are_refused_with_one_sentence(predictors, image, reason):
    for given in (image, [IMAGE, image]):
        with pytest.raises(ccsa.UserError) as error:
            predictors["mask"](given)
        assert reason in str(error.value) and ". " not in str(error.value)


def test_a_list_is_checked_before_the_first_prediction(predictors, monkeypatch):
    monkeypatch.setattr(ModelPredictor, "run", lambda *args: pytest.fail("too late"))
    with pytest.raises(ccsa.UserError, match=r"absent\.jpg"):
        predictors["mask"]([IMAGE, "absent.jpg"])
    with pytest.raises(ccsa.UserError, match="size is for single images"):
        predictors["mask"]([IMAGE], size=(9, 9))


def test_a_configuration_in_memory_or_in_a_file_with_weights(runs, predictors):
    run = runs["mask"]
    expected = predictors["mask"](IMAGE).instances.scores
    args = argparse.Namespace(config_file=str(run / "config.yaml"), opts=[])
    for config in (setup_cfg(args), run / "config.yaml"):
        predictor = ccsa.Predictor(config, run / "model_final.pth", confidence=0.01)
        assert torch.equal(predictor(IMAGE).instances.scores, expected)
    assert predictor.load_report == ["weights: 141 of the model's 141 tensors loaded"]


def test_options_override_the_file(runs):
    predictor = ccsa.Predictor.from_run(runs["mask"], options=["INPUT.MIN_SIZE_TEST", 64])
    assert predictor.cfg.INPUT.MIN_SIZE_TEST == 64


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda r: ccsa.Predictor.from_run(r / "absent"), "does not exist"),
        (lambda r: ccsa.Predictor.from_run(r.parent), "not the folder of a run"),
        (lambda r: ccsa.Predictor(r / "config.yaml", "absent.pth"), "absent.pth"),
        (lambda r: ccsa.Predictor("absent.yaml", r / "model_final.pth"), "absent.yaml"),
        (lambda r: ccsa.Predictor(r / "config.yaml"), "does not name any weights"),
        (lambda r: ccsa.Predictor(get_cfg(), r / "model_final.pth"), "add_ccsa_config"),
        (lambda r: ccsa.Predictor.from_run(r, confidence=1.5), "from 0 to 1, not 1.5"),
        (lambda r: ccsa.Predictor.from_run(r, confidence="high"), "from 0 to 1, not 'high'"),
        (lambda r: ccsa.Predictor.from_run(r, batch_size=0), "batch_size"),
        (lambda r: ccsa.Predictor.from_run(r, device="cuda:99"), "MODEL.DEVICE"),
        (lambda r: ccsa.Predictor.from_run(r, options=["A.B", 1]), "A.B"),
    ],
)
def test_mistakes_in_loading_are_one_sentence(runs, make, reason):
    with pytest.raises(ccsa.UserError) as error:
        make(runs["mask"])
    assert reason in str(error.value)


def test_a_configuration_without_weights_is_refused(runs):
    args = argparse.Namespace(config_file=str(runs["mask"] / "config.yaml"), opts=[])
    with pytest.raises(ccsa.UserError, match="does not name any weights"):
        ccsa.Predictor(setup_cfg(args))


def test_names_stored_with_the_weights_win_and_wrong_numbers_of_names_are_not_used(tmp_path):
    names = [f"digit {i}" for i in range(10)]
    stored = {"things": names, "stuff": []}
    run = tiny_runs.write_run(tmp_path / "a", tiny_models.MASK_RCNN, stored)
    assert ccsa.Predictor.from_run(run).classes == names
    config = yaml.safe_load(yaml.safe_dump(tiny_models.MASK_RCNN))
    config["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] = 3
    run = tiny_runs.write_run(tmp_path / "b", config)
    predictor = ccsa.Predictor.from_run(run)
    assert predictor.classes == ["0", "1", "2"]  # not the first of the dataset's ten
    assert [c["id"] for c in predictor.categories] == [1, 2, 3]


def test_a_prediction_of_another_size_is_drawn_at_that_size(predictors):
    found = predictors["mask"](SMALL, size=(128, 192))
    assert found.draw().shape == (128, 192, 3)
    with pytest.raises(ccsa.UserError, match="predict without size"):
        found.to_coco()


def test_a_model_of_clips_takes_clips(tmp_path):
    config = yaml.safe_load(yaml.safe_dump(tiny_runs.SEMANTIC))
    config["MODEL"]["META_ARCHITECTURE"] = VideoSemanticSegmentor.__name__
    config["MODEL"]["SEM_SEG_HEAD"] |= {"NAME": "VideoCCNetHead", "NUM_CLASSES": 5}
    config["DATASETS"] = {"TRAIN": [], "TEST": ["moving_cue_val"]}
    config["INPUT"]["CLIP"] = {"FRAMES": 3}
    predictor = ccsa.Predictor.from_run(tiny_runs.write_run(tmp_path / "run", config))
    found = predictor(np.stack([IMAGE, IMAGE, OTHER]))
    assert found.semantic.shape == (96, 128) and np.array_equal(found.image, OTHER)
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    for image in (IMAGE, np.stack([IMAGE, OTHER]), tmp_path / "a.png"):
        with pytest.raises(ccsa.UserError, match=r"\(3, H, W, 3\)"):
            predictor(image)
    with pytest.raises(ccsa.UserError, match="clips of videos"):
        predictor.annotate_folder(tmp_path, tmp_path / "a.json")


def test_a_prediction_can_be_pickled(predictors):
    found = pickle.loads(pickle.dumps(predictors["mask"](IMAGE)))
    assert len(found.instances) == 5


TILES = ["TEST.TILES.ENABLED", True, "TEST.TILES.SIZE", [64, 64], "TEST.TILES.OVERLAP", [16, 16]]


@pytest.mark.parametrize("kind", ["mask", "panoptic", "semantic"])
def test_every_kind_of_model_runs_on_tiles(runs, kind):
    options = [*TILES, "INPUT.MIN_SIZE_TEST", 0, "TEST.DETECTIONS_PER_IMAGE", 50]
    predictor = ccsa.Predictor.from_run(runs[kind], confidence=0.01, options=options)
    seen = []
    predictor.model.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    found = predictor(IMAGE)
    assert len(seen) == 2 * 3
    assert (found.instances is None) == (kind == "semantic")
    assert (found.panoptic is None) == (kind != "panoptic")
    assert (found.semantic is None) == (kind == "mask")
    drawn = found.draw()
    assert drawn.shape == IMAGE.shape and (drawn != IMAGE).any()
    if kind == "semantic":
        return
    assert 5 < len(found.instances) <= 50  # more than in one tile
    assert found.instances.pred_masks.shape == (len(found.instances), 96, 128)
    confident = found.instances[found.instances.scores > 0.5]
    assert len(confident.pred_masks) == len(confident)
    assert len(found.to_coco()) > 5
    copied = pickle.loads(pickle.dumps(found))
    assert len(copied.instances.pred_masks) == len(found.instances)


def test_an_image_of_one_tile_is_predicted_as_without_tiles(runs, predictors):
    options = [*TILES[:2], "TEST.TILES.SIZE", [300, 300]]
    for kind in ("mask", "panoptic"):
        predictor = ccsa.Predictor.from_run(runs[kind], confidence=0.01, options=options)
        found, expected = predictor(IMAGE), predictors[kind](IMAGE)
        torch.testing.assert_close(found.instances.scores, expected.instances.scores)
        masks = np.asarray(found.instances.pred_masks)
        assert np.array_equal(masks, expected.instances.pred_masks.numpy())
        boxes = found.instances.pred_boxes.tensor
        torch.testing.assert_close(boxes, expected.instances.pred_boxes.tensor)
        if kind == "panoptic":
            torch.testing.assert_close(found.outputs["sem_seg"], expected.outputs["sem_seg"])
            assert torch.equal(found.panoptic.ids, expected.panoptic.ids)
            assert found.panoptic.segments == expected.panoptic.segments


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["TEST.TILES.OVERLAP", [64, 64]], "must be smaller than TEST.TILES.SIZE"),
        (["TEST.TILES.OVERLAP", [0, 16]], "must be at least 1"),
        (["TEST.AUG.ENABLED", True], "without TEST.TILES"),
    ],
)
def test_settings_of_tiles_are_checked_when_the_model_is_loaded(runs, options, reason):
    with pytest.raises(ccsa.UserError, match=reason):
        ccsa.Predictor.from_run(runs["mask"], options=[*TILES, *options])


@pytest.mark.parametrize("kind", ["mask", "panoptic", "semantic"])
def test_a_large_image_can_be_drawn_smaller(predictors, kind):
    found = predictors[kind](IMAGE)
    assert found.draw(longest=64).shape == (48, 64, 3)
    assert np.array_equal(found.draw(longest=128), found.draw())


def test_objects_are_shrunk_to_their_place():
    masks = torch.zeros(2, 90, 120, dtype=torch.bool)
    masks[0, 30:60, 40:80] = masks[1, :3, :3] = True
    boxes = Boxes(torch.tensor([[40.0, 30, 80, 60], [0, 0, 3, 3]]))
    instances = Instances((90, 120), pred_boxes=boxes, scores=torch.ones(2))
    instances.pred_classes, instances.pred_masks = torch.zeros(2).long(), masks
    ids = torch.arange(90 * 120).reshape(90, 120)
    outputs = {"instances": instances, "panoptic_seg": (ids, []), "sem_seg": ids[None].float()}
    found = shrunk_outputs(outputs, (90, 120), shrunk_size((90, 120), 40))
    assert found["instances"].pred_boxes.tensor[0].tolist() == pytest.approx(
        [40 / 3, 10, 80 / 3, 20]
    )
    rows, columns = found["instances"].pred_masks[0].nonzero(as_tuple=True)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 19, 14, 26)
    assert found["instances"].pred_masks[1].sum() == 1
    assert torch.equal(found["panoptic_seg"][0], ids[::3, ::3])
    assert torch.equal(found["sem_seg"][0], ids[::3, ::3].float())
