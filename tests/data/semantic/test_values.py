"""The label that each published value becomes."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from ccsa.data.formats.id_lists import read_id_list
from ccsa.data.formats.label_images import read_label_image
from ccsa.data.semantic.camvid import CLASSES, frame_split
from ccsa.data.semantic.camvid_classes import RAW_COLORS
from ccsa.data.semantic.pascal_voc import voc_colors
from ccsa.errors import UserError

AUGMENTED = "voc_2012_aug_sem_seg_train"


def first_labels(name: str) -> np.ndarray:
    return read_label_image(DatasetCatalog.get(name)[0]["sem_seg_file_name"])


def test_cityscapes_ids_become_train_ids(catalog, layouts, prepare):
    layouts.cityscapes(catalog)
    prepare("cityscapes", catalog)
    labels = first_labels("cityscapes_sem_seg_train").ravel()[:35]
    assert labels[[7, 8, 11, 26, 33]].tolist() == [0, 1, 2, 13, 18]
    ignored = [*range(7), 9, 10, 14, 15, 16, 18, 29, 30, 34]
    assert set(labels[ignored]) == {255}
    assert sorted(labels[labels != 255]) == list(range(19))
    theirs = DatasetCatalog.get("cityscapes_fine_sem_seg_train")
    ours = DatasetCatalog.get("cityscapes_sem_seg_train")
    files = [{(r["file_name"], r["sem_seg_file_name"]) for r in rs} for rs in (theirs, ours)]
    assert files[0] == files[1]


def test_ade20k_is_lowered_by_one(catalog, layouts, prepare):
    layouts.ade20k(catalog)
    prepare("ade20k", catalog)
    labels = first_labels("ade20k_sem_seg_val").ravel()[:151]
    assert labels.tolist() == [255, *range(150)]


def test_voc_label_stands_where_sbd_has_one_too(catalog, layouts, prepare):
    layouts.pascal_voc(catalog)
    prepare("pascal_voc", catalog)
    folder = catalog / "VOCdevkit" / "VOC2012" / "SegmentationClassAug"
    both, sbd_alone = (read_label_image(folder / f"{name}.png") for name in layouts.SBD_IDS[::2])
    assert both.ravel()[:22].tolist() == [*range(21), 255]
    assert sbd_alone.ravel()[:21].tolist() == list(range(20, -1, -1))


def test_voc_augmented_list_has_no_image_of_val(catalog, layouts, prepare):
    layouts.pascal_voc(catalog)
    prepare("pascal_voc", catalog)
    names = {r["file_name"].rsplit("/")[-1][:-4] for r in DatasetCatalog.get(AUGMENTED)}
    assert names == {*layouts.VOC_IDS["train"], "2008_000002", "2008_000003"}


def test_voc_without_sbd_still_gives_train_and_val(catalog, layouts, prepare):
    layouts.pascal_voc(catalog, sbd=False)
    prepare("pascal_voc", catalog)
    assert len(DatasetCatalog.get("voc_2012_sem_seg_val")) == 2
    with pytest.raises(
        UserError, match=r"train_aug\.txt does not exist; run .*dataset.py pascal_voc"
    ):
        DatasetCatalog.get(AUGMENTED)


def test_context_orders_name_the_same_pixels(catalog, layouts, prepare):
    layouts.pascal_context(catalog)
    prepare("pascal_context", catalog)
    named, colored = {}, {}
    for variant in ("59", "60", "59_sorted", "60_sorted"):
        name = f"pascal_context_{variant}_sem_seg_val"
        metadata = MetadataCatalog.get(name)
        labels = first_labels(name).ravel()[:460]
        names = np.array([*metadata.stuff_classes, *["void"] * (256 - len(metadata.stuff_classes))])
        named[variant] = names[labels]
        colored[variant] = dict(zip(metadata.stuff_classes, metadata.stuff_colors, strict=True))
    raw = named["60"]
    assert raw[[2, 23, 397, 284, 427, 458]].tolist() == [
        *("aeroplane", "bicycle", "table", "person", "tvmonitor", "wood")
    ]
    assert (raw == "background").sum() == 460 - 59
    assert np.array_equal(raw, named["60_sorted"])
    assert np.array_equal(np.where(raw == "background", "void", raw), named["59"])
    assert np.array_equal(named["59"], named["59_sorted"])
    assert colored["60"] == colored["60_sorted"]
    assert colored["59"] == colored["59_sorted"]


def test_context_orders_are_those_of_the_publication_and_the_alphabet(catalog):
    canonical = MetadataCatalog.get("pascal_context_59_sem_seg_val").stuff_classes
    alphabetical = MetadataCatalog.get("pascal_context_59_sorted_sem_seg_val").stuff_classes
    voc = MetadataCatalog.get("voc_2012_sem_seg_val").stuff_classes
    same = {"diningtable": "table"}
    assert canonical[:20] == [same.get(name, name) for name in voc[1:]]
    assert alphabetical == sorted(canonical)
    assert canonical != alphabetical


def test_context_from_the_converted_files_equals_that_from_the_maps(catalog, layouts, prepare):
    layouts.pascal_context(catalog)
    prepare("pascal_context", catalog)
    voc = catalog / "VOC2010"
    made = voc / "annotations_detectron2"
    converted = voc / "SegmentationClassContext"
    (made / "context_60_sorted").rename(converted)
    (voc / "trainval").rename(voc / "elsewhere")
    expected = {p: read_label_image(p) for p in made.glob("context_*/*.png")}
    made.rename(voc / "before")
    prepare("pascal_context", catalog)
    assert len(expected) == 9
    for path, labels in expected.items():
        assert np.array_equal(read_label_image(path), labels)
    for path in converted.glob("*.png"):
        again = made / "context_60_sorted" / path.name
        assert np.array_equal(read_label_image(again), read_label_image(path))


def test_camvid_void_is_255_in_both_packagings(catalog, layouts, prepare):
    layouts.camvid(catalog)
    layouts.camvid_full(catalog)
    prepare("camvid", catalog)
    assert first_labels("camvid_sem_seg_test").ravel()[:12].tolist() == [*range(11), 255]
    assert first_labels("camvid_full_sem_seg_test").ravel()[:5].tolist() == layouts.RAW_LABELS
    for split, names in layouts.FRAMES.items():
        for group in ("camvid", "camvid_full"):
            records = DatasetCatalog.get(f"{group}_sem_seg_{split}")
            assert [r["file_name"].rsplit("/")[-1] for r in records] == [f"{n}.png" for n in names]


def test_camvid_gray_labels_serve_as_well(catalog, layouts, prepare):
    layouts.camvid_full(catalog, gray_labels=True)
    prepare("camvid", catalog)
    assert first_labels("camvid_full_sem_seg_val").ravel()[:5].tolist() == layouts.RAW_LABELS


def test_camvid_raw_colours_are_31_in_the_order_of_the_classes():
    colors = [color for group in RAW_COLORS.values() for color in group]
    assert tuple(RAW_COLORS) == CLASSES
    assert len(set(colors)) == len(colors) == 31  # and void


@pytest.mark.parametrize(
    ("frame", "split"),
    [
        *(("0001TP_008520", "train"), ("0001TP_008550", "test"), ("0006R0_f00930", "train")),
        *(("0016E5_07920", "train"), ("0016E5_07959", "val"), ("0016E5_08159", "val")),
        *(("0016E5_08190", "train"), ("Seq05VD_f00000", "test")),
    ],
)
def test_camvid_frames_are_split_as_in_the_lists(frame, split):
    assert frame_split(frame) == split


def test_lip_is_read_where_others_lay_it(catalog, layouts, prepare):
    layouts.lip(catalog)
    folder = catalog / "LIP"
    for archive in ("TrainVal_images", "TrainVal_parsing_annotations"):
        for path in (folder / archive).iterdir():
            path.rename(folder / path.name)
    prepare("lip", catalog)
    assert not (folder / "val_images").is_symlink()
    assert len(DatasetCatalog.get("lip_sem_seg_train")) == 2


@pytest.mark.parametrize("nested", [False, True])
def test_lip_is_linked_into_the_layout_that_is_read(nested, catalog, layouts, prepare):
    layouts.lip(catalog, nested)
    prepare("lip", catalog)
    folder = catalog / "LIP"
    assert (folder / "train_images").is_symlink()
    assert not (folder / "train_images").readlink().is_absolute()  # the folder may be moved
    expected = ["100034_483681", "77_471474"] if nested else ["77_471474", "100034_483681"]
    assert read_id_list(folder / "train_id.txt") == expected
    assert first_labels("lip_sem_seg_train").ravel()[:20].tolist() == list(range(20))


def test_voc_colours_are_those_of_the_publication():
    colors = voc_colors(256)
    assert colors[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert colors[15] == [192, 128, 128] and colors[20] == [0, 64, 128]
    assert colors[255] == [224, 224, 192]
