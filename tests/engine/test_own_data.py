"""``--data``: what follows from a user's data, what the user decides, and what a run stores."""

import argparse
import json
import shutil

import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from support import own_scenes

from ccsa.config import RENAMED_KEYS
from ccsa.data.loaders import build_train_loader, build_train_mapper
from ccsa.data.mapper import SemanticMapper
from ccsa.data.own import label_mapping, task_data
from ccsa.data.tasks import semantic_label
from ccsa.engine import setup_cfg, start_run
from ccsa.engine.checks import check_dataset, check_model, check_objects
from ccsa.engine.config_files import user_keys
from ccsa.engine.data_settings import model_kind
from ccsa.engine.own_data import add_data_arguments, data_table
from ccsa.errors import UserError

CLASSES = own_scenes.CLASSES
pytestmark = pytest.mark.usefixtures("separate_datasets")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Return a folder with the same scenes in several formats."""
    folder = tmp_path_factory.mktemp("scenes")
    drawn = own_scenes.make_scenes(14)
    for name in ("coco_mixed", "yolo", "coco_panoptic", "instance_labels"):
        own_scenes.DIALECTS[name][0](folder / name, drawn)
    own_scenes.write_class_masks(folder / "class_masks", drawn)
    return folder


@pytest.fixture
def load(root):
    """Return a function that gives the configuration of a command line, and its arguments."""

    def configure(file, data=None, *options, **more):
        file = str(root / "configs" / f"{file}.yaml") if "yaml" not in str(file) else str(file)
        words = ["MODEL.DEVICE", "cpu", *map(str, options)]
        args = argparse.Namespace(config_file=file, opts=words, data=data and str(data), **more)
        return setup_cfg(args), args

    return configure


def test_the_classes_of_every_head_follow_from_the_data(load, scenes):
    detector, _ = load("own/mask_rcnn", scenes / "coco_mixed")
    assert detector.MODEL.ROI_HEADS.NUM_CLASSES == 3
    metadata = MetadataCatalog.get(detector.DATASETS.TEST[0])
    assert metadata.thing_classes == CLASSES and len(metadata.thing_colors) == 3
    assert metadata.evaluator_type == "coco" and detector.INPUT.MASK_FORMAT == "bitmask"

    semantic, _ = load("own/ccnet", scenes / "coco_mixed")
    assert semantic.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 4
    assert MetadataCatalog.get(semantic.DATASETS.TEST[0]).stuff_classes == ["background", *CLASSES]
    assert isinstance(build_train_mapper(semantic), SemanticMapper)

    panoptic, _ = load("own/panoptic_fpn", scenes / "coco_panoptic")
    assert panoptic.MODEL.ROI_HEADS.NUM_CLASSES == 3
    assert panoptic.MODEL.SEM_SEG_HEAD.NUM_CLASSES == 2
    metadata = MetadataCatalog.get(panoptic.DATASETS.TEST[0])
    assert metadata.stuff_classes == ["things", "ground"]
    assert metadata.evaluator_type == "coco_panoptic_seg"

    words = ("MODEL.CONTEXT.META_ARCHITECTURE", "RetinaNet", "MODEL.MASK_ON", "False")
    retinanet, args = load("own/mask_rcnn", scenes / "yolo", *words)
    assert retinanet.MODEL.RETINANET.NUM_CLASSES == 3
    assert "RPN" not in args.data_settings and "MODEL.ROI_HEADS" not in args.data_settings


def test_smaller_objects_are_on_top_of_larger_ones(load, tmp_path):
    large, small = np.zeros((64, 64), bool), np.zeros((64, 64), bool)
    large[8:56, 8:56], small[20:30, 20:30] = True, True
    image = np.zeros((64, 64, 3), np.uint8)
    objects = [(0, small), (1, large)]
    drawn = [own_scenes.Scene(s, s, image, objects) for s in ("train", "val")]
    own_scenes.write_coco(tmp_path, drawn, lambda _, mask: own_scenes.rle(mask))
    cfg, _ = load("own/ccnet", tmp_path)
    (record,) = task_data(cfg).splits["train"]
    label = semantic_label(record)
    assert (label[0, 0], label[10, 10], label[25, 25]) == (0, 2, 1)


def test_the_table_states_model_losses_weights_images_and_classes(load, scenes):
    cfg, args = load("own/mask_rcnn", scenes / "coco_mixed")
    table = data_table(cfg)
    for words in (
        *("format coco", "GeneralizedRCNN", "proposals, classes, boxes, masks", "random"),
        *("train images", "12", "val images", "2", "classes (3)", "ring 12, pair 19, disk 14"),
    ):
        assert words in table
    assert "300 epochs" not in args.data_settings and "epochs (the default" in args.data_settings
    cfg, _ = load("own/sanet", scenes / "class_masks")
    assert "losses of SANet" in data_table(cfg) and "background 12" in data_table(cfg)
    assert data_table(load("digits/fcn")[0]) == ""


def test_nothing_is_inherited_from_the_digits(load, scenes):
    cfg, _ = load("digits/ccnet_mask_rcnn", scenes / "coco_mixed")
    assert cfg.TEST.DETECTIONS_PER_IMAGE == 100
    assert cfg.MODEL.RPN.POST_NMS_TOPK_TEST >= 500 and cfg.MODEL.RPN.BATCH_SIZE_PER_IMAGE >= 128
    assert cfg.MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE >= 128
    assert cfg.MODEL.ANCHOR_GENERATOR.ASPECT_RATIOS == [[0.5, 1.0, 2.0]]
    semantic, _ = load("digits/ccnet", scenes / "class_masks")
    assert list(semantic.MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS) == []


def test_what_the_user_wrote_wins(load, scenes, root, tmp_path):
    base = root / "configs/own/mask_rcnn.yaml"
    middle = tmp_path / "middle.yaml"
    middle.write_text(yaml.safe_dump({"_BASE_": str(base), "SOLVER": {"MAX_ITER": 77}}))
    file = tmp_path / "mine.yaml"
    content = {"_BASE_": "middle.yaml", "INPUT": {"MIN_SIZE_TRAIN": [320]}}
    file.write_text(yaml.safe_dump(content))
    overlay = tmp_path / "limits.yaml"
    overlay.write_text(yaml.safe_dump({"TEST": {"DETECTIONS_PER_IMAGE": 7}}))
    words = ("MODEL.RPN.POST_NMS_TOPK_TEST", 55)
    cfg, args = load(file, scenes / "coco_mixed", *words, overlays=[str(overlay)])
    assert (cfg.SOLVER.MAX_ITER, cfg.TEST.DETECTIONS_PER_IMAGE) == (77, 7)
    assert list(cfg.INPUT.MIN_SIZE_TRAIN) == [320] and cfg.INPUT.MAX_SIZE_TRAIN >= 320
    assert cfg.MODEL.RPN.POST_NMS_TOPK_TEST == 55
    assert max(cfg.SOLVER.STEPS) <= 77
    assert "MAX_ITER" not in args.data_settings and "STEPS" in args.data_settings


@pytest.mark.parametrize(("words", "rate"), [((), 0.02 * 2 / 16), (("SOLVER.BASE_LR", 0.1), 0.1)])
def test_a_batch_size_on_the_command_line_is_used_as_written(load, scenes, words, rate):
    """configs/mask_rcnn.yaml is for 16 images on 8 processes."""
    words = ("MODEL.WEIGHTS", "", "SOLVER.IMS_PER_BATCH", 2, *words)
    cfg, args = load("mask_rcnn", scenes / "coco_mixed", *words)
    assert (cfg.SOLVER.IMS_PER_BATCH, cfg.SOLVER.REFERENCE_WORLD_SIZE) == (2, 0)
    assert pytest.approx(rate) == cfg.SOLVER.BASE_LR
    assert "SOLVER.REFERENCE_WORLD_SIZE" in args.data_settings
    kept, _ = load("mask_rcnn", scenes / "coco_mixed", "MODEL.WEIGHTS", "")
    assert (kept.SOLVER.IMS_PER_BATCH, kept.SOLVER.REFERENCE_WORLD_SIZE) == (16, 8)


def test_keys_of_the_user_are_those_of_files_outside_configs(root, tmp_path):
    assert user_keys(str(root / "configs/own/ccnet.yaml")) == set()
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    old, new = next(iter(RENAMED_KEYS.items()))
    section, name = old.rsplit(".", 1)
    assert section == "MODEL.SEM_SEG_HEAD"
    first.write_text(
        yaml.safe_dump(
            {
                "_BASE_": str(root / "configs/own/ccnet.yaml"),
                "MODEL": {"SEM_SEG_HEAD": {name: []}},
                "DATASETS": {"LABEL_MAPPING": {255: 1}},
            }
        )
    )
    second.write_text("_BASE_: [first.yaml]\nSEED: 3\n_OVERLAY_: {description: x}\n")
    assert user_keys(str(second)) == {"SEED", new, "DATASETS.LABEL_MAPPING"}


@pytest.mark.parametrize(
    ("config", "words", "more", "expected"),
    [
        ("own/mask_rcnn", ["SOLVER.MAX_ITER", 5], {"epochs": 3}, "remove one"),
        ("own/mask_rcnn", [], {"epochs": 0}, "--epochs must be at least 1, not 0"),
        ("own/mask_rcnn", [], {"val": "val.json"}, "--data .* is a folder"),
        ("own/mask_rcnn", [], {"data_format": "cocoo"}, "--data-format must be one of .*cocoo"),
        ("own/mask_rcnn", ["DATASETS.TRAIN", "('digits_train',)"], {}, "name different data"),
        ("own/mask_rcnn", ["MODEL.ROI_HEADS.NUM_CLASSES", 2], {}, "is 2, but the data has 3"),
        ("own/ccnet", ["MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3], {}, "is 3, but the data has 4"),
        ("own/ccnet", ["MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS", "[1, 2]"], {}, "has 2 values"),
        ("moving_cue/T5", [], {}, "clips of videos"),
        (
            "own/ccnet",
            ["MODEL.CONTEXT.META_ARCHITECTURE", "DenseSegmenter"],
            {},
            "no meta-architecture 'DenseSegmenter'; did you mean DenseSegmentor.*--import FILE",
        ),
        (
            "own/ccnet",
            ["DATASETS.LABEL_MAPPING", "{'x': 1}"],
            {},
            "a mapping of label values to classes, e.g. {255: 1}, not",
        ),
        ("own/mask_rcnn", ["INPUT.INTENSITY_RANGE", "[9, 3]"], {}, "low below high"),
    ],
)
def test_contradictions_are_rejected(load, scenes, config, words, more, expected):
    with pytest.raises(UserError, match=expected):
        load(config, scenes / "coco_mixed", *words, **more)


def test_epochs_and_iterations_of_a_file_are_rejected_with_its_name(load, scenes, root, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"_BASE_: {root}/configs/own/mask_rcnn.yaml\nSOLVER:\n  MAX_ITER: 5\n")
    for config, words, expected in (
        (file, [], "MAX_ITER .in .*mine.yaml. both"),
        ("own/mask_rcnn", ["SOLVER.MAX_ITER", 5], "MAX_ITER .on the command line. both"),
    ):
        with pytest.raises(UserError, match=expected):
            load(config, scenes / "coco_mixed", *words, epochs=3)


@pytest.mark.parametrize("option", ["images", "val", "val_images", "data_format", "epochs"])
def test_options_without_data_are_rejected(load, option):
    value = 3 if option == "epochs" else "x"
    with pytest.raises(UserError, match=f"--{option.replace('_', '-')} needs --data"):
        load("own/mask_rcnn", None, **{option: value})


def test_files_are_given_one_by_one(load, scenes):
    folder = scenes / "coco_mixed"
    options = {"images": "train", "val": "val.json", "val_images": "val"}
    more = {key: str(folder / name) for key, name in options.items()}
    cfg, _ = load("own/mask_rcnn", folder / "train.json", **more)
    assert [len(records) for records in task_data(cfg).splits.values()] == [12, 2]
    assert str(folder / "val.json") == cfg.DATASETS.OWN.VAL


def test_a_run_knows_its_data_and_its_classes(load, scenes, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(scenes / "coco_mixed", folder)
    cfg, _ = load("own/mask_rcnn", folder, epochs=2)
    recorded = tmp_path / "config.yaml"
    recorded.write_text(cfg.dump())
    again, _ = load(recorded)
    assert yaml.safe_load(again.dump()) == yaml.safe_load(cfg.dump())
    moved = tmp_path / "moved"
    folder.rename(moved)
    gone, _ = load(recorded)  # class names are known without the data
    assert MetadataCatalog.get(gone.DATASETS.TEST[0]).thing_classes == CLASSES
    with pytest.raises(UserError, match=f"{folder}, does not exist any more.*--data"):
        task_data(gone)
    # The same classes in another order are the same classes.
    for name in ("train", "val"):
        content = json.loads((moved / f"{name}.json").read_text())
        content["categories"] = [
            {"id": i + 11, "name": c["name"]} for i, c in enumerate(reversed(content["categories"]))
        ]
        number = {CLASSES.index(c["name"]) + 1: c["id"] for c in content["categories"]}
        for annotation in content["annotations"]:
            annotation["category_id"] = number[annotation["category_id"]]
        (moved / f"{name}.json").write_text(json.dumps(content))
    found, _ = load(recorded, moved)
    assert str(moved) == found.DATASETS.OWN.ROOT and found.SOLVER == cfg.SOLVER
    assert list(found.DATASETS.OWN.CLASSES) == CLASSES
    kinds = [a["category_id"] for r in task_data(found).splits["train"] for a in r["annotations"]]
    expected, _ = load("own/mask_rcnn", scenes / "coco_mixed")
    before = [
        a["category_id"] for r in task_data(expected).splits["train"] for a in r["annotations"]
    ]
    assert kinds == before
    with pytest.raises(UserError, match="--epochs cannot change the schedule"):
        load(recorded, moved, epochs=3)
    content["categories"][0]["name"] = "square"
    (moved / "val.json").write_text(json.dumps(content))
    other = tmp_path / "other"
    shutil.copytree(moved, other)
    with pytest.raises(UserError, match="has the classes square, which the model was not trained"):
        load(recorded, other)


@pytest.mark.parametrize("kind", ["own/ccnet", "own/panoptic_fpn"])
def test_the_recorded_order_holds_for_labels(load, scenes, tmp_path, kind):
    source = "class_masks" if kind == "own/ccnet" else "coco_panoptic"
    cfg, _ = load(kind, scenes / source)
    record = task_data(cfg).splits["val"][0]
    expected = semantic_label(record)
    recorded = tmp_path / "config.yaml"
    content = yaml.safe_load(cfg.dump())
    own = content["DATASETS"]["OWN"]
    names = own["STUFF_CLASSES"]
    own["STUFF_CLASSES"] = names[:1] + names[:0:-1]
    recorded.write_text(yaml.safe_dump(content))
    other, _ = load(recorded)
    label = semantic_label(task_data(other).splits["val"][0])
    number = np.array([own["STUFF_CLASSES"].index(name) for name in names])
    assert (label == number[expected]).all()


def test_label_values_are_mapped(load, vectors):
    folder = vectors / "own_data" / "binary_masks_0_255"
    cfg, _ = load("own/ccnet", folder, "DATASETS.LABEL_MAPPING", "{255: 1}")
    assert label_mapping(cfg) == {255: 1}
    label = semantic_label(task_data(cfg).splits["train"][0])
    assert set(np.unique(label)) == {0, 1}
    batch = next(iter(build_train_loader(cfg)))
    assert all(set(item["sem_seg"].unique().tolist()) <= {0, 1, 255} for item in batch)


def test_label_values_of_registered_datasets_are_mapped(load, tmp_path, monkeypatch):
    label = np.zeros((32, 32), np.uint8)
    label[:16] = 255
    Image.fromarray(label).save(tmp_path / "label.png")
    Image.new("RGB", (32, 32)).save(tmp_path / "image.png")
    record = {
        **{"file_name": str(tmp_path / "image.png"), "height": 32, "width": 32, "image_id": 0},
        "sem_seg_file_name": str(tmp_path / "label.png"),
    }
    monkeypatch.setattr(DatasetCatalog, "data", {"mine": lambda: [record]})
    monkeypatch.setattr(MetadataCatalog, "data", {})
    MetadataCatalog.get("mine").set(evaluator_type="sem_seg", stuff_classes=["a", "b"])
    words = ("DATASETS.TRAIN", "('mine',)", "DATASETS.TEST", "('mine',)")
    mapped = ("DATASETS.LABEL_MAPPING", "{255: 1}", "SOLVER.IMS_PER_BATCH", 1)
    cfg, _ = load("digits/fcn", None, *words, *mapped)
    assert set(np.unique(semantic_label(DatasetCatalog.get("mine")[0]))) == {0, 1}
    item = next(iter(build_train_loader(cfg)))[0]
    assert set(item["sem_seg"].unique().tolist()) == {0, 1}
    load("digits/fcn", None, *words)
    assert set(np.unique(semantic_label(DatasetCatalog.get("mine")[0]))) == {0, 255}


def test_the_range_of_intensities_is_stored(load, tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for number in range(3):
            image = rng.integers(1000, 3000, (64, 64)).astype(np.uint16)
            mask = np.zeros((64, 64), np.uint8)
            mask[10:30, 10:30] = 1
            for kind, values in (("images", image), ("masks", mask)):
                folder = tmp_path / "deep" / split / kind
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(values).save(folder / f"{number}.png")
    options = {"data_format": "instance_labels"}
    cfg, args = load("own/mask_rcnn", tmp_path / "deep", **options)
    low, high = cfg.INPUT.INTENSITY_RANGE
    assert 1000 <= low < 1010 and 2990 < high <= 3000
    assert "INTENSITY_RANGE" in args.data_settings
    image = next(iter(build_train_loader(cfg)))[0]["image"]
    assert image.min() < 30 and image.max() > 225 and 100 < image.float().mean() < 155
    words = ("INPUT.INTENSITY_RANGE", "[0, 4000]")
    cfg, _ = load("own/mask_rcnn", tmp_path / "deep", *words, **options)
    assert list(cfg.INPUT.INTENSITY_RANGE) == [0, 4000]


def test_the_kind_of_a_model(load):
    for name, kind in (
        ("mask_rcnn", "detection"),
        ("own/panoptic_fpn", "panoptic"),
        ("cityscapes/ccnet_R_50_os8_769_60k", "semantic"),
    ):
        assert model_kind(load(name)[0]) == kind


def test_the_tables_are_written_into_the_log(load, scenes, tmp_path):
    words = ("OUTPUT_DIR", tmp_path)
    cfg, args = load("own/mask_rcnn", scenes / "coco_mixed", *words)
    start_run(cfg, f"{data_table(cfg)}\n\n{args.data_settings}")
    log = (tmp_path / "log.txt").read_text()
    assert log.startswith("Your data:") and "SOLVER.MAX_ITER" in log


def test_the_arguments_of_the_tools():
    for training in (False, True):
        parser = argparse.ArgumentParser()
        add_data_arguments(parser, training=training)
        args = parser.parse_args(["--data", "x", "--import", "a.py", "--import", "b"])
        assert (args.data, args.imports) == ("x", ["a.py", "b"])
        assert hasattr(args, "epochs") == training


@pytest.mark.parametrize(
    ("config", "words", "expected"),
    [
        (
            "own/mask_rcnn",
            ["MODEL.CONTEXT.BLOCKS", "[{'at': 'backbone.fpn_output3', 'block': 'Mine'}]"],
            "unknown context block 'Mine' in MODEL.CONTEXT.BLOCKS",
        ),
        ("own/ccnet", ["MODEL.SEM_SEG_HEAD.BLOCKS", "[{'block': 'Mine'}]"], "block 'Mine'"),
        ("own/ccnet", ["MODEL.SEM_SEG_HEAD.NAME", "MineHead"], "SEM_SEG_HEADS has no 'MineHead'"),
        ("own/mask_rcnn", ["MODEL.ROI_MASK_HEAD.NAME", "Mine"], "ROI_MASK_HEAD has no 'Mine'"),
        ("own/mask_rcnn", ["MODEL.META_ARCHITECTURE", "Mine"], "META_ARCH has no 'Mine'"),
    ],
)
def test_code_that_was_not_imported_is_named(load, config, words, expected):
    with pytest.raises(UserError, match=f"{expected}.*--import FILE"):
        check_model(load(config, None, *words)[0])


def test_a_dataset_that_was_not_imported_is_named():
    with pytest.raises(UserError, match=r"there is no dataset 'mine_train'.*--import FILE"):
        check_dataset("mine_train")


def test_training_data_with_crowd_regions_only_is_rejected(load, scenes, tmp_path):
    shutil.copytree(scenes / "coco_mixed", tmp_path / "data")
    cfg, _ = load("own/mask_rcnn", tmp_path / "data")
    check_objects(cfg)
    for record in task_data(cfg).splits["train"]:
        record["annotations"] = []
    with pytest.raises(UserError, match=r"no image of .*_train has an object"):
        check_objects(cfg)
    cfg, _ = load("own/ccnet", tmp_path / "data")
    check_objects(cfg)


@pytest.mark.parametrize(
    ("key", "value"), [("KIND", "'BN'"), ("KIND", "True"), ("SPLITS", "[1]"), ("CLASSES", "x")]
)
def test_recorded_data_is_checked_before_it_is_registered(load, scenes, key, value):
    cfg, _ = load("own/mask_rcnn", scenes / "coco_mixed")
    recorded = [f"DATASETS.OWN.{name}" for name in ("ROOT", "NAME", "KIND", "SPLITS", "CLASSES")]
    words = [w for name in recorded for w in (name, str(cfg.DATASETS.OWN[name.split(".")[-1]]))]
    with pytest.raises(UserError, match=f"DATASETS.OWN.{key}"):
        load("own/mask_rcnn", None, *words, f"DATASETS.OWN.{key}", value)
