"""Every kind of problem is found, counted and named."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from PIL import Image

from ccsa.data.checks import check_family, examples
from ccsa.data.formats.label_images import misread_reason
from ccsa.data.semantic import FAMILIES
from ccsa.errors import UserError


@pytest.fixture
def lip(catalog, layouts, prepare):
    layouts.lip(catalog)
    prepare("lip", catalog)
    return catalog / "LIP"


def rows(root, name="lip") -> dict[str, list]:
    reports, _ = check_family(FAMILIES[name], root)
    return {report.split.name: report.row()[1:] for report in reports}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_good_dataset_has_no_trouble(name, tmp_path, layouts, prepare):
    layouts.LAYOUTS[name](tmp_path)
    prepare(name, tmp_path)
    reports, _ = check_family(FAMILIES[name], tmp_path)
    assert reports
    assert examples(reports) == []
    for report in reports:
        assert report.images == report.labels > 0
        published = report.split.published
        assert f"fewer than the published {published:,}" in report.note()


def test_missing_files_are_counted(lip):
    (lip / "train_images" / "77_471474.jpg").unlink()
    (lip / "val_segmentations" / "7_5.png").unlink()
    found = rows(lip.parent)
    assert found["lip_sem_seg_train"] == [1, 2, 30462, 1, 0, 0, 0]
    assert found["lip_sem_seg_val"] == [1, 0, 10000, 1, 0, 0, 0]


def test_corrupt_files_are_counted(lip):
    image = lip / "train_images" / "77_471474.jpg"
    image.write_bytes(image.read_bytes()[:-200])
    (lip / "train_segmentations" / "77_471474.png").write_bytes(b"no image")
    reports, _ = check_family(FAMILIES["lip"], lip.parent)
    assert reports[0].row()[4:] == [0, 2, 0, 0]
    text = "\n".join(examples(reports))
    assert str(image) in text and "77_471474.png" in text


def test_sizes_that_differ_are_counted(lip, layouts):
    layouts.write_photo(lip / "val_images" / "7_5.jpg", (24, 30))
    reports, _ = check_family(FAMILIES["lip"], lip.parent)
    assert reports[1].row()[4:] == [0, 0, 1, 0]
    assert "7_5.jpg is 30x24" in examples(reports)[0] and "7_5.png is 32x24" in examples(reports)[0]


def test_an_image_turned_by_its_exif_is_seen_as_detectron2_sees_it(lip, layouts):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((32, 24, 3), np.uint8)
    Image.fromarray(pixels).save(lip / "val_images" / "7_5.jpg", exif=exif)
    assert rows(lip.parent)["lip_sem_seg_val"][3:] == [0, 0, 0, 0]


def test_labels_out_of_range_are_counted(lip, layouts):
    layouts.write_gray(lip / "val_segmentations" / "7_5.png", layouts.spread([0, 19, 20, 200, 255]))
    reports, _ = check_family(FAMILIES["lip"], lip.parent)
    assert reports[1].row()[4:] == [0, 0, 0, 1]
    assert "labels 20, 200; allowed are 0..19 and 255" in examples(reports)[0]


def test_labels_that_would_be_misread_are_counted_and_refused(lip, layouts):
    layouts.write_palette(lip / "val_segmentations" / "7_5.png", layouts.spread(range(20)))
    Image.new("RGB", (32, 24)).save(lip / "train_segmentations" / "77_471474.png")
    found = rows(lip.parent)
    assert found["lip_sem_seg_val"][-1] == found["lip_sem_seg_train"][-1] == 1
    with pytest.raises(UserError, match="a color palette, which would be read as brightness"):
        DatasetCatalog.get("lip_sem_seg_val")
    with pytest.raises(UserError, match="mode RGB"):
        DatasetCatalog.get("lip_sem_seg_train")


def test_a_grey_palette_is_read_right():
    image = Image.fromarray(np.arange(20, dtype=np.uint8)[None]).convert("P")
    image.putdata(list(range(20)))
    image.putpalette([value for i in range(20) for value in (i, i, i)])
    assert misread_reason(image) is None
    assert np.array_equal(np.array(image.convert("L")), np.arange(20)[None])


def test_lists_with_trouble_are_named(lip):
    (lip / "train_id.txt").write_text("77_471474\n77_471474\n")
    (lip / "val_id.txt").write_text("\n")
    reports, _ = check_family(FAMILIES["lip"], lip.parent)
    text = "\n".join(examples(reports))
    assert "77_471474 is listed twice" in text
    assert "val_id.txt is empty" in text


def test_a_split_that_is_not_there_is_trouble_if_its_sibling_is(lip):
    (lip / "val_id.txt").unlink()
    assert rows(lip.parent)["lip_sem_seg_val"] == [0, 0, 10000, 1, 0, 0, 0]


def test_a_packaging_that_is_not_there_is_only_noted(tmp_path, layouts, prepare):
    layouts.camvid_full(tmp_path)
    prepare("camvid", tmp_path)
    reports, notes = check_family(FAMILIES["camvid"], tmp_path)
    assert [r.split.group for r in reports] == ["camvid_full"] * 3
    assert len(notes) == 1 and "camvid_sem_seg_train" in notes[0]


def test_files_without_a_partner_are_found_where_there_is_no_list(tmp_path, layouts, prepare):
    layouts.ade20k(tmp_path)
    prepare("ade20k", tmp_path)
    layouts.write_photo(tmp_path / "ADEChallengeData2016/images/training/ADE_train_00000009.jpg")
    layouts.write_photo(tmp_path / "ADEChallengeData2016/images/training/._ADE_train_00000001.jpg")
    assert rows(tmp_path, "ade20k")["ade20k_sem_seg_train"] == [3, 2, 20210, 1, 0, 0, 0]


def test_what_is_not_there_or_not_prepared_is_said(tmp_path, layouts):
    with pytest.raises(UserError, match=r"LIP.* was not found: .* does not exist\. "):
        check_family(FAMILIES["lip"], tmp_path)
    layouts.lip(tmp_path)
    with pytest.raises(
        UserError, match=r"not prepared: .* does not exist; run python tools/prepare"
    ):
        check_family(FAMILIES["lip"], tmp_path)
