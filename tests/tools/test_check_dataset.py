"""tools/check_dataset.py, run as a user runs it."""

import dataclasses
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import check_dataset as tool
import numpy as np
import pytest
from PIL import Image
from support import layouts

from ccsa.data import panoptic
from ccsa.data.preparation.plans import execute
from ccsa.data.problems import KINDS, kinds_table
from ccsa.data.semantic import FAMILIES
from ccsa.data.synthetic.digits import write_digits

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "check_dataset.py"


@pytest.fixture
def run(run_tool):
    return partial(run_tool, tool)


def prepared(name: str, root: Path) -> None:
    layouts.LAYOUTS[name](root)
    execute(FAMILIES[name].plan(root), name)


def test_a_good_dataset_is_a_table_and_status_0(tmp_path, run):
    prepared("lip", tmp_path)
    status, out, _ = run("lip", "--root", tmp_path)
    assert status == 0
    header, _, train, val, *notes = out.splitlines()
    assert header.split()[:4] == ["dataset", "images", "labels", "published"]
    assert train.split() == ["lip_sem_seg_train", "2", "2", "30,462", "0", "0", "0", "0"]
    assert val.split() == ["lip_sem_seg_val", "1", "1", "10,000", "0", "0", "0", "0"]
    assert notes[0].startswith(
        "note: lip_sem_seg_train has 2 images, 30,460 fewer than the published 30,462"
    )
    assert notes[-1] == "no problems found"


def test_trouble_is_named_and_status_2(tmp_path, run):
    prepared("lip", tmp_path)
    bad = tmp_path / "LIP" / "val_segmentations" / "7_5.png"
    layouts.write_gray(bad, layouts.spread([20]))
    status, out, err = run("lip", "--root", tmp_path)
    assert status == 2
    assert f"lip_sem_seg_val: bad labels: {bad} has labels 20; allowed are 0..19 and 255" in out
    assert "error: 1 of 2 splits have problems: lip_sem_seg_val" in err


def test_many_troubles_are_cut_short(tmp_path, run):
    prepared("ade20k", tmp_path)
    for number in range(7):
        layouts.write_photo(tmp_path / f"ADEChallengeData2016/images/validation/{number}.jpg")
    status, out, _ = run("ade20k", "--root", tmp_path)
    assert status == 2
    assert out.count("ade20k_sem_seg_val: missing: label") == 5
    assert "ade20k_sem_seg_val: missing: and 2 more" in out


def test_all_takes_what_is_there(tmp_path, run):
    prepared("lip", tmp_path)
    prepared("camvid", tmp_path)
    layouts.ade20k(tmp_path)
    status, out, _ = run("--all", "--root", tmp_path)
    assert status == 0
    assert "lip_sem_seg_val" in out and "camvid_sem_seg_test" in out
    assert "note: Cityscapes was not found: " in out
    assert "note: ADE20K is not prepared: " in out


def test_all_writes_nothing(tmp_path, run, monkeypatch):
    def never(root):
        raise AssertionError("written")

    family = dataclasses.replace(panoptic.FAMILIES["digits_panoptic"], write=never)
    monkeypatch.setitem(tool.FAMILIES, "digits_panoptic", family)
    prepared("lip", tmp_path)
    status, out, _ = run("--all", "--root", tmp_path)
    assert status == 0 and "note: The panoptic digits dataset was not found" in out


def test_panoptic_digits_are_written_and_checked(tmp_path, run, monkeypatch):
    def few(root):
        write_digits(root / "digits", {"train": 1, "val": 2})

    family = dataclasses.replace(panoptic.FAMILIES["digits_panoptic"], write=few)
    monkeypatch.setitem(tool.FAMILIES, "digits_panoptic", family)
    status, out, _ = run("digits_panoptic", "--root", tmp_path)
    assert status == 0 and "no problems found" in out
    header, _, train, val, *_ = out.splitlines()
    assert header.split("  ")[-1].strip() == "bad labels" and "bad areas" in header
    assert train.split() == ["digits_train_panoptic_separated", "1", "1", "2,000", *"0000000"]
    assert val.split()[1:3] == ["2", "2"]

    # Together with a semantic dataset, each kind in a table of its own.
    prepared("lip", tmp_path)
    monkeypatch.setitem(tool.FAMILIES, "digits_panoptic", dataclasses.replace(family, write=None))
    png = tmp_path / "digits/panoptic_val/000002.png"
    png.unlink()
    status, out, err = run("--all", "--root", tmp_path)
    assert status == 2
    assert sum(line.startswith("dataset ") for line in out.splitlines()) == 2
    assert f"digits_val_panoptic_separated: missing: PNG {png} does not exist" in out
    assert "error: 1 of 4 splits have problems: digits_val_panoptic_separated" in err


def test_nothing_there_is_status_2(tmp_path, run):
    status, _, err = run("--all", "--root", tmp_path)
    assert status == 2 and "ready under" in err
    status, _, err = run("lip", "--root", tmp_path)
    assert status == 2 and "LIP (Look Into Person) was not found" in err


def test_an_unknown_name_lists_the_known_ones(run):
    status, _, err = run("lips")
    assert status == 2
    assert "did you mean lip?" in err
    assert all(name in err for name in (*FAMILIES, *panoptic.FAMILIES))


def test_from_the_shell_no_traceback_shows(tmp_path):
    command = [sys.executable, str(TOOL), "lip", "--root", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


# Data of any origin.

OWN = ROOT / "tests" / "vectors" / "own_data"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CCSA_CACHE", str(tmp_path / "cache"))


def test_a_clean_folder_is_status_0_with_a_preview_and_json(tmp_path, run):
    files = tmp_path / "drawn.png", tmp_path / "found.json"
    data = OWN / "rle_under_polygon_format"
    status, out, _ = run("--data", data, "--preview", files[0], "--json", files[1])
    assert status == 0
    assert "(coco): 4 train, 4 val images" in out and "2 classes: a, b" in out
    assert "8 images checked: no problems found" in out
    with Image.open(files[0]) as drawn:
        assert min(drawn.size) > 800
    found = json.loads(files[1].read_text())
    assert found["errors"] == 0 and found["kinds"] == {} and found["images"]["train"] == 4


def test_an_error_is_a_row_and_status_2(tmp_path, run):
    case = OWN / "val_label_out_of_range_counts_as_hit"
    status, out, err = run("--data", case, "--json", tmp_path / "found.json")
    assert status == 2 and not err
    assert "label_out_of_range" in out and "4 errors" in out and "000001.png" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["kinds"]["label_out_of_range"]["count"] == 4
    assert found["kinds"]["label_out_of_range"]["severity"] == "error"
    assert found["problems"][0]["file"].endswith("val_labels/000001.png")


def test_warnings_only_are_status_0(run):
    status, out, _ = run("--data", OWN / "annotation_without_segmentation")
    assert status == 0 and "missing_mask" in out and "1 warning" in out


def test_a_json_file_with_its_images(run):
    case = OWN / "bbox_as_text"
    status, out, _ = run("--data", case / "train.json", "--images", case / "train")
    assert status == 2 and "invalid_box" in out and "annotation 4" in out


def test_registered_datasets_of_an_imported_file(tmp_path, run):
    case = OWN / "rle_under_polygon_format"
    code = tmp_path / "my_data_sets.py"
    code.write_text(
        "from detectron2.data.datasets import register_coco_instances\n"
        f"for split in ('train', 'val'):\n"
        f"    register_coco_instances(f'imported_{{split}}', {{}}, "
        f"f'{case}/{{split}}.json', f'{case}/{{split}}')\n"
    )
    preview = tmp_path / "drawn.png"
    words = ("imported_train", "imported_val", "--import", code, "--preview", preview)
    status, out, err = run(*words)
    assert status == 0, err
    assert "4 train, 4 val images" in out and "8 images checked: no problems found" in out
    assert preview.exists()


def test_a_label_mapping_of_the_training_is_a_key(run):
    data = ("--data", OWN / "binary_masks_0_255")
    status, out, _ = run(*data)
    assert status == 2 and "LABEL_MAPPING {255: 1}" in out
    for words in ((*data, "DATASETS.LABEL_MAPPING", "{255: 1}"),
                  ("DATASETS.LABEL_MAPPING", "{255: 1}", *data)):  # fmt: skip
        status, out, err = run(*words)
        assert status == 0 and "no problems found" in out, out + err


def test_registered_labels_are_mapped_as_well(tmp_path, run):
    case = OWN / "binary_masks_0_255"
    code = tmp_path / "my_masks.py"
    code.write_text(
        "from detectron2.data import DatasetCatalog, MetadataCatalog\n"
        "from detectron2.data.datasets import load_sem_seg\n"
        f"DatasetCatalog.register('masks_train', lambda: load_sem_seg('{case}/train_labels', "
        f"'{case}/train', image_ext='jpg'))\n"
        "MetadataCatalog.get('masks_train').set(stuff_classes=['bg', 'a'], ignore_label=255)\n"
    )
    words = ("masks_train", "--import", code)
    assert run(*words)[0] == 2
    status, out, err = run(*words, "DATASETS.LABEL_MAPPING", "{255: 1}")
    assert status == 0, out + err


def test_allowed_kinds_are_listed_but_pass(run):
    data = ("--data", OWN / "bbox_as_text")
    assert run(*data)[0] == 2
    status, out, _ = run(*data, "DATASETS.ALLOW", "['invalid_box']")
    assert status == 0 and "invalid_box" in out


def save_deep(folder, split, low, high):
    values = np.linspace(low, high, 64 * 48).reshape(48, 64).astype(np.uint16)
    labels = np.zeros((48, 64), np.uint16)
    for number in range(1, 7):
        labels[8 * number - 6 : 8 * number - 2, 5 * number : 5 * number + 6] = number
    for kind, pixels in (("images", values), ("masks", labels)):
        (folder / split / kind).mkdir(parents=True)
        Image.fromarray(pixels).save(folder / split / kind / "1.tif")


def test_the_range_of_intensities_is_that_of_training_or_a_key(tmp_path, run):
    save_deep(tmp_path / "data", "train", 1000, 2000)
    save_deep(tmp_path / "data", "val", 6000, 7000)
    data = ("--data", tmp_path / "data")
    status, out, _ = run(*data)
    assert status == 2 and "mostly_outside_range" in out
    status, out, _ = run(*data, "INPUT.INTENSITY_RANGE", "[0, 8000]")
    assert status == 0 and "outside" not in out
    status, _, err = run(*data, "INPUT.INTENSITY_RANGE", "[8000, 0]")
    assert status == 2 and "low below high" in err


def test_a_configuration_says_what_the_data_is_for(run, root, tmp_path):
    data = ("--data", OWN / "empty_segmentation_everywhere")
    config = ("--config-file", root / "configs/own/mask_rcnn.yaml")
    assert run(*data)[0] == 0
    status, out, _ = run(*data, *config)
    assert status == 2 and "mostly_without_masks" in out
    assert run(*data, *config, "MODEL.MASK_ON", "False")[0] == 0
    status, _, err = run(*data, "--config-file", root / "configs/own/ccnet.yaml")
    assert status == 2 and "no mask, which a semantic model needs" in err
    recorded = tmp_path / "config.yaml"
    recorded.write_text(
        f"_BASE_: {config[1]}\nDATASETS: {{OWN: {{ROOT: {data[1]}}}}}\nMODEL: {{MASK_ON: false}}\n"
    )
    status, out, _ = run("--config-file", recorded)
    assert status == 0 and "empty_segmentation_everywhere (coco)" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("SOLVER.MAX_ITER", "3"), "SOLVER.MAX_ITER has no effect on a check without --config"),
        (("DATASETS.LABEL_MAPING", "{1: 2}"), "LABEL_MAPPING"),
        (("DATASETS.LABEL_MAPPING", "[3]"), "a mapping of label values to classes"),
        (("DATASETS.ALLOW", "['no_such']"), "there is no kind of problem 'no_such'"),
        (("--with", "R_50"), "--with R_50 needs --config-file"),
    ],
)
def test_keys_that_are_wrong_or_without_effect_are_rejected(run, words, message):
    status, _, err = run("--data", OWN / "val_labels_rgb", *words)
    assert status == 2 and message in err and "Traceback" not in err


def test_a_misspelt_registered_dataset_is_named_with_near_misses(run):
    status, _, err = run("digits_trian")
    assert status == 2 and "did you mean" in err and "digits_train" in err


def test_an_unchanged_dataset_is_taken_from_the_cache(run, monkeypatch):
    data = ("--data", OWN / "val_labels_rgb")
    first = run(*data)
    monkeypatch.setattr("ccsa.data.checks.dataset.check_image", None)
    assert run(*data) == first


def test_all_kinds_are_listed(run):
    status, out, _ = run("--kinds")
    assert status == 0
    assert all(f"| `{kind}` |" in out for kind in KINDS)


def test_the_documentation_has_the_table_of_kinds():
    """The table is the output of --kinds."""
    assert kinds_table() in (ROOT / "docs" / "OWN_DATA.md").read_text()
