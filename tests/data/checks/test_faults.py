"""Every kind of problem is found where it is planted, and nothing is found in clean data."""

import shutil

import pytest
from support import own_scenes
from support.data_faults import FAULTS

from ccsa.data.checks.own import check_folder
from ccsa.data.folder import read_folder
from ccsa.data.problems import KINDS
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
        with pytest.raises(UserError, match=fault.kind):
            found.check()
        found.check([fault.kind])


def test_at_least_thirty_kinds_are_planted():
    assert len({fault.kind for fault in FAULTS}) >= 50
