"""Every folder of tests/vectors/own_data, as tools/train_net.py --data sees it: a sentence before
training, or a run that starts.

The cases that are registered in Python are in tests/integration/test_import.py.
"""

import argparse
import re
from typing import NamedTuple

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

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
