"""Preparation can be interrupted and continued, and keeps existing files and the source."""

import hashlib
import os
import time
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from ccsa.data.family import find_family
from ccsa.data.formats.label_images import is_complete_png, read_label_image
from ccsa.data.preparation.lookup_tables import identity_table, relabel
from ccsa.data.preparation.plans import SourceMissing, execute
from ccsa.data.semantic import FAMILIES
from ccsa.errors import UserError
from ccsa.utils.files import STALE_AFTER
from ccsa.utils.threads import map_in_threads


def contents(root: Path) -> dict[Path, str]:
    files = (path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_second_run_makes_nothing_and_the_source_is_untouched(name, tmp_path, layouts, prepare):
    layouts.LAYOUTS[name](tmp_path)
    source = contents(tmp_path)
    first = prepare(name, tmp_path)
    made = contents(tmp_path)
    assert first.written > 0 and first.kept == 0
    assert source.items() <= made.items()
    assert not [path for path in made if ".partial" in path.name]
    second = prepare(name, tmp_path)
    assert second.written == 0 and second.kept == first.written
    assert contents(tmp_path) == made


def test_a_half_written_label_is_made_anew(tmp_path, layouts, prepare):
    layouts.ade20k(tmp_path)
    prepare("ade20k", tmp_path)
    folder = tmp_path / "ADEChallengeData2016" / "annotations_detectron2" / "training"
    whole, empty = folder / "ADE_train_00000001.png", folder / "ADE_train_00000002.png"
    labels = read_label_image(whole)
    whole.write_bytes(whole.read_bytes()[:-20])
    empty.write_bytes(b"")
    assert not is_complete_png(whole)
    outcome = prepare("ade20k", tmp_path)
    assert (outcome.written, outcome.kept) == (2, 1)
    assert np.array_equal(read_label_image(whole), labels)
    assert np.array_equal(read_label_image(empty), labels)


def test_only_what_a_killed_run_left_is_removed(tmp_path, layouts, prepare):
    layouts.ade20k(tmp_path)
    folder = tmp_path / "ADEChallengeData2016" / "annotations_detectron2" / "training"
    folder.mkdir(parents=True)
    old, new = folder / ".a.1.partial.png", folder / ".b.2.partial.png"
    for part in (old, new):
        part.write_bytes(b"half")
    then = time.time() - STALE_AFTER - 10
    os.utime(old, (then, then))
    prepare("ade20k", tmp_path)
    assert not old.exists() and new.exists()


def test_an_interrupted_run_leaves_whole_labels_and_no_list(tmp_path, layouts, prepare):
    layouts.pascal_context(tmp_path)
    (tmp_path / "VOC2010" / "trainval" / "2008_000003.mat").write_bytes(b"not a MATLAB file")
    with pytest.raises(UserError, match=r"cannot read LabelMap of .*2008_000003.mat"):
        prepare("pascal_context", tmp_path)
    made = list((tmp_path / "VOC2010" / "annotations_detectron2").rglob("*"))
    assert all(is_complete_png(path) for path in made if path.is_file())
    assert not (tmp_path / "VOC2010" / "ImageSets" / "SegmentationContext").exists()


def test_a_list_that_is_there_is_kept_and_said_to_differ(tmp_path, layouts):
    layouts.pascal_voc(tmp_path)
    path = tmp_path / "VOCdevkit/VOC2012/ImageSets/SegmentationAug/train_aug.txt"
    layouts.write_lines(path, ["/JPEGImages/2007_000032.jpg /SegmentationClassAug/2007_000032.png"])
    before = path.read_text()
    plan = FAMILIES["pascal_voc"].plan(tmp_path)
    execute(plan, "pascal_voc")
    assert path.read_text() == before
    assert any("names other images" in note for note in plan.notes)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_source_that_is_not_there_is_named(name, tmp_path):
    family = FAMILIES[name]
    with pytest.raises(SourceMissing) as error:
        family.plan(tmp_path)
    assert str(error.value.path).startswith(str(tmp_path))
    with pytest.raises(UserError, match=r"was not found: .* Get it from") as user_error:
        family.make_plan(tmp_path)
    assert str(error.value.path) in str(user_error.value)


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"ade20k"}))  # Detectron2 loads it
def test_datasets_say_where_to_get_them_or_to_prepare_them(name, catalog, layouts):
    family = FAMILIES[name]
    split = family.splits(catalog)[0].name
    with pytest.raises(UserError) as error:
        DatasetCatalog.get(split)
    message = str(error.value)
    assert str(catalog) in message and family.home in message and family.layout in message
    layouts.LAYOUTS[name](catalog)
    with pytest.raises(
        UserError, match=rf"not prepared: .* not exist; .*prepare_dataset.py {name}"
    ):
        DatasetCatalog.get(split)


def test_values_that_a_dataset_does_not_have_are_refused(tmp_path, layouts, prepare):
    layouts.camvid(tmp_path)
    bad = tmp_path / "CamVid" / "trainannot" / "0001TP_006690.png"
    layouts.write_gray(bad, layouts.spread(range(14)))
    with pytest.raises(UserError, match=rf"{bad} contains the label value 12"):
        prepare("camvid", tmp_path)
    with pytest.raises(UserError, match="label value 300"):
        relabel(np.array([[0, 300]]), identity_table(21), bad)
    with pytest.raises(UserError, match="label value -1"):
        relabel(np.array([[0, -1]]), identity_table(21), bad)


@pytest.mark.parametrize(
    ("path", "write"),
    [
        ("VOC2012/SegmentationClass/2007_000032.png", "text"),
        ("VOC2012/SegmentationClass/2007_000032.png", "colour"),
        ("VOCaug/dataset/cls/2008_000002.mat", "text"),
    ],
)
def test_sources_that_cannot_be_read_are_named(path, write, tmp_path, layouts, prepare):
    layouts.pascal_voc(tmp_path)
    bad = tmp_path / "VOCdevkit" / path
    if write == "text":
        bad.write_text("nothing")
    else:
        layouts.write_photo(bad)
    with pytest.raises(UserError, match=rf"{bad.name}.*replace it with an intact copy"):
        prepare("pascal_voc", tmp_path)


def test_an_unwritable_place_is_named(tmp_path, layouts, prepare):
    layouts.ade20k(tmp_path)
    (tmp_path / "ADEChallengeData2016" / "annotations_detectron2").write_text("a file")
    with pytest.raises(UserError, match="cannot write"):
        prepare("ade20k", tmp_path)


def test_threads_drop_what_has_not_begun_after_an_error():
    done = []

    def work(number: int) -> int:
        time.sleep(0.002)
        if number == 3:
            raise UserError("three")
        done.append(number)
        return number

    with pytest.raises(UserError, match="three"):
        list(map_in_threads(work, list(range(500)), "test"))
    assert len(done) < 100


def test_unknown_names_get_near_misses():
    with pytest.raises(UserError, match=r"did you mean pascal_voc"):
        find_family("voc", FAMILIES)
    with pytest.raises(UserError, match=r"did you mean lip\?"):
        find_family("lip_sem_seg_train", FAMILIES)
    with pytest.raises(UserError, match=r"; available: cityscapes, ade20k, lip"):
        find_family("xyzzy", FAMILIES)
