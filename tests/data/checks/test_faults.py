"""Every kind of problem is found where it is planted, and nothing is found in clean data."""

import shutil

import numpy as np
import pytest
from detectron2.data.detection_utils import check_image_size
from support import own_scenes
from support.data_faults import FAULTS

from ccsa.data.checks.own import check_folder, natural_kind
from ccsa.data.folder import read_folder
from ccsa.data.image_reader import read_image
from ccsa.data.problems import KINDS
from ccsa.data.tasks import derive, semantic_label
from ccsa.errors import UserError


def write_polygons(folder, scenes):
    """Write plain COCO with polygons."""
    own_scenes.write_coco(folder, scenes, lambda _, mask: own_scenes.contours(mask))


LAYOUTS = {
    "coco": own_scenes.write_coco_compressed,
    "coco_polygons": write_polygons,
    "roboflow": own_scenes.write_roboflow,
    "cvat": own_scenes.write_cvat,
    "yolo": own_scenes.write_yolo,
    "labelme": own_scenes.write_labelme,
    "class_masks": own_scenes.write_class_masks,
    "instance_labels": own_scenes.write_instance_labels,
    "coco_panoptic": own_scenes.write_coco_panoptic,
}
# What the writers of two programs always do, and the reader reports.
EXPECTED = {"roboflow": {"dropped_category"}, "cvat": {"masks_marked_crowd"}}


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    root = tmp_path_factory.mktemp("clean")
    scenes = own_scenes.make_scenes(14)
    for name, write in LAYOUTS.items():
        write(root / name, scenes)
    return root


def check(folder):
    return check_folder(read_folder(folder), cache=False).problems


def read_everything(folder):
    """Read every record as training does; what can be allowed must not keep it from that."""
    data = read_folder(folder)
    task = derive(data, natural_kind(data))
    assert task.splits["train"]
    for record in (record for records in task.splits.values() for record in records):
        image = read_image(record["file_name"])
        check_image_size(dict(record), image)
        if "sem_seg_file_name" in record or "labels" in record:
            label = semantic_label(record)
            assert label.shape == image.shape[:2]
            assert set(np.unique(label).tolist()) <= {*range(len(task.stuff_classes)), 255}
        for annotation in record.get("annotations", ()):
            assert len(annotation["bbox"]) == 4
            assert 0 <= annotation["category_id"] < len(task.thing_classes)
            if "segmentation" in annotation and isinstance(annotation["segmentation"], dict):
                assert annotation["segmentation"]["size"] == list(image.shape[:2])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_clean_folders_have_no_problems(clean, layout):
    found = check(clean / layout)
    assert set(found.kinds()) == EXPECTED.get(layout, set()), list(found)


@pytest.mark.parametrize("fault", FAULTS, ids=[f"{f.kind}-{i}" for i, f in enumerate(FAULTS)])
def test_a_planted_fault_is_found(clean, tmp_path, fault):
    folder = tmp_path / "data"
    shutil.copytree(clean / fault.layout, folder)
    fault.plant(folder)
    found = check(folder)
    assert fault.kind in found.kinds(), list(found)
    problem = next(p for p in found if p.kind == fault.kind)
    assert problem.severity == KINDS[fault.kind].severity
    assert problem.file.endswith(fault.file) and str(folder) in problem.file, problem
    assert len(problem.message) > 5
    others = set(found.kinds("error")) - {fault.kind} - EXPECTED.get(fault.layout, set())
    assert not others, list(found)
    if problem.severity == "error":
        if KINDS[fault.kind].can_be_allowed:
            read_everything(folder)
        with pytest.raises(UserError, match=fault.kind):
            found.check()
        found.check([fault.kind])


def test_at_least_thirty_kinds_are_planted():
    assert len({fault.kind for fault in FAULTS}) >= 50
