"""Every folder of tests/vectors/own_data, as tools/train_net.py --data sees it: a sentence before
training, or a run that starts.

The cases that are registered in Python are in tests/engine/test_dataset_checks.py.
"""

import argparse
import json
import re
import shutil
from typing import NamedTuple

import compare_runs
import demo
import pytest
import train_net
from detectron2.data import DatasetCatalog, MetadataCatalog
from support import own_scenes
from support.run_tools import call

from ccsa.engine import check_run, setup_cfg
from ccsa.engine.dataset_checks import check_own_data
from ccsa.errors import UserError

BOXES = ("MODEL.MASK_ON", "False")


class Case(NamedTuple):
    """What must happen with a folder.

    Attributes:
        folder: its name.
        config: the configuration in ``configs/own``.
        options: KEY VALUE pairs.
        rejected: a pattern of the sentence that stops the run; empty if the run starts.
        reported: the kinds of problems in the table.
    """

    folder: str
    config: str = "mask_rcnn"
    options: tuple[str, ...] = ()
    rejected: str = ""
    reported: tuple[str, ...] = ()


CASES = [
    Case("rle_under_polygon_format"),
    Case("annotation_without_segmentation", reported=("missing_mask",)),
    Case("annotation_without_segmentation", "panoptic_fpn", reported=("missing_mask",)),
    Case("annotation_without_segmentation", "ccnet", reported=("missing_mask",)),
    Case("empty_segmentation_everywhere", rejected=r"no mask.*MODEL.MASK_ON False"),
    Case("empty_segmentation_everywhere", options=BOXES),
    Case("empty_segmentation_everywhere", "ccnet", rejected="no mask"),
    Case("val_without_iscrowd"),
    Case("val_without_area"),
    Case("category_count_differs_from_num_classes"),
    Case(
        "category_count_differs_from_num_classes",
        options=("MODEL.ROI_HEADS.NUM_CLASSES", "2"),
        rejected=r"MODEL.ROI_HEADS.NUM_CLASSES is 2, but the data has 3 classes \(.*remove the key",
    ),
    Case(
        "category_count_differs_from_num_classes",
        "panoptic_fpn",
        options=("MODEL.SEM_SEG_HEAD.NUM_CLASSES", "3"),
        rejected="MODEL.SEM_SEG_HEAD.NUM_CLASSES is 3, but the data has 2 classes",
    ),
    Case("val_labels_rgb", "ccnet", reported=("label_rgb",)),
    Case("binary_masks_0_255", "ccnet", rejected=r"255.*LABEL_MAPPING \{255: 1\}"),
    Case("binary_masks_0_255", "ccnet", options=("DATASETS.LABEL_MAPPING", "{255: 1}")),
    Case("image_with_crowds_alone", options=("INPUT.CROP.ENABLED", "True")),
    Case("category_id_as_text", reported=("quoted_number",)),
    Case("bbox_as_text", rejected=r"train\.json.*000\d+\.jpg|train\.json.*annotation"),
    Case("some_boxes_without_polygon", reported=("missing_mask",)),
    Case("train_label_out_of_range", "sanet", rejected=r"train_labels.*\.png.* 7"),
    Case("val_label_out_of_range_counts_as_hit", "ccnet", rejected=r"val_labels.*\.png.* 5"),
    Case("val_label_of_half_size", "ccnet", rejected=r"\.png.*32.*64|\.png.*64.*32"),
    Case("train_and_val_number_classes_differently", reported=("classes_numbered_differently",)),
    Case("more_detections_than_100", options=("TEST.DETECTIONS_PER_IMAGE", "300")),
    Case("boxes_without_polygons_mask_off", options=BOXES),
]


def arguments(root, folder, config, *options, **more):
    return argparse.Namespace(
        config_file=str(root / "configs" / "own" / f"{config}.yaml"),
        data=str(folder),
        opts=["MODEL.DEVICE", "cpu", *options],
        **{"num_gpus": 1, "num_machines": 1, "eval_only": False, "resume": False, **more},
    )


@pytest.fixture(autouse=True)
def separate(tmp_path, monkeypatch):
    """Keep results of checks and registered datasets to one test."""
    monkeypatch.setenv("CCSA_CACHE", str(tmp_path / "cache"))
    names = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def name_of(case):
    return "-".join([case.folder, case.config, *case.options])


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_the_cases_are_rejected_or_train(root, vectors, case):
    folder = vectors / "own_data" / case.folder
    args = arguments(root, folder, case.config, *case.options)
    if case.rejected:
        with pytest.raises(UserError) as error:
            check_run(setup_cfg(args), args)
        text = str(error.value)
        assert re.search(case.rejected, text), text
        assert "\n" not in text
        return
    cfg = setup_cfg(args)
    check_run(cfg, args)
    kinds = check_own_data(cfg).problems.kinds()
    assert set(case.reported) <= set(kinds), kinds


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    drawn = own_scenes.make_scenes(7)
    for name in ("coco_mixed", "coco_panoptic", "yolo"):
        own_scenes.DIALECTS[name][0](folder / name, drawn)
    own_scenes.write_class_masks(folder / "class_masks", drawn)
    return folder


RUNS = {
    "detection": ("mask_rcnn", "coco_mixed", ("--with", "criss_cross"), ()),
    "boxes": ("mask_rcnn", "yolo", (), BOXES),
    "semantic": ("ccnet", "class_masks", (), ()),
    "three losses": ("sanet", "coco_mixed", (), ()),
    "panoptic": ("panoptic_fpn", "coco_panoptic", ("--with", "sa"), ()),
    "panoptic from objects": ("panoptic_fpn", "coco_mixed", (), ()),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_a_run_from_a_folder_to_the_drawn_result(run_tool, root, scenes, tmp_path, name):
    config, data, options, keys = RUNS[name]
    command = ["--config-file", root / f"configs/own/{config}.yaml", "--data", scenes / data]
    words = ["SOLVER.MAX_ITER", 2, "OUTPUT_DIR", tmp_path / "run", "MODEL.DEVICE", "cpu", *keys]
    status, out, err = run_tool(train_net, *command, *options, *words)
    assert status == 0, err
    assert out.startswith("Your data:") and "Settings that follow from the data:" in out
    assert json.loads((tmp_path / "run/results.json").read_text())["results"]
    for file in ("predictions.png", "model_final.pth", "config.yaml"):
        assert (tmp_path / "run" / file).exists()
    assert "Your data:" in (tmp_path / "run/log.txt").read_text()


@pytest.fixture(scope="module")
def finished(root, scenes, tmp_path_factory):
    """Return the folder of a run of two iterations, and a copy of its data that can be moved."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(scenes / "coco_mixed", folder / "data")
    call(
        *(root, folder, "train_net.py", "--config-file", root / "configs/own/mask_rcnn.yaml"),
        *("--data", "data", "SOLVER.MAX_ITER", 2),
        *("OUTPUT_DIR", folder / "run", "MODEL.DEVICE", "cpu"),
    )
    return folder


@pytest.mark.slow
def test_the_run_folder_is_enough(run_tool, finished, tmp_path):
    run, config = finished / "run", finished / "run/config.yaml"
    status, _, err = run_tool(train_net, "--config-file", config, "--eval-only", "--resume")
    assert status == 0, err
    image = next((finished / "data/val").glob("*.png"))
    (finished / "data").rename(finished / "moved")
    image = finished / "moved/val" / image.name
    try:
        words = ("--input", image, "--output", tmp_path / "drawn.png")
        status, _, err = run_tool(demo, "--weights", run, *words, "--confidence-threshold", 0)
        assert status == 0 and (tmp_path / "drawn.png").exists(), err
        status, out, err = run_tool(compare_runs, run)
        assert status == 0 and "does not exist any more" in out and "--data" in out
        status, out, err = run_tool(compare_runs, run, "--data", finished / "moved")
        assert status == 0 and "is not measured" not in out
        resume = ("--config-file", config, "--resume")
        status, _, err = run_tool(train_net, *resume, "SOLVER.MAX_ITER", 3)
        assert status == 2 and "does not exist any more; name its new location by --data" in err
        words = ("--data", finished / "moved", "SOLVER.MAX_ITER", 3)
        status, _, err = run_tool(train_net, *resume, *words)
        assert status == 0, err
    finally:
        (finished / "moved").rename(finished / "data")


@pytest.mark.slow
def test_weights_of_other_classes_can_be_fine_tuned(run_tool, root, vectors, finished, tmp_path):
    folder = vectors / "own_data/train_and_val_number_classes_differently"
    command = ["--config-file", root / "configs/own/mask_rcnn.yaml", "--data", folder]
    words = ["MODEL.WEIGHTS", finished / "run/model_final.pth", "SOLVER.MAX_ITER", 1]
    output = ["OUTPUT_DIR", tmp_path / "run", "MODEL.DEVICE", "cpu"]
    status, _, err = run_tool(train_net, *command, *words, *output)
    assert status == 0, err
    log = (tmp_path / "run/log.txt").read_text()
    for layer in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_head.predictor"):
        assert re.search(
            rf"the layers that depend on classes start from random weights: .*{layer}", log
        ), layer
