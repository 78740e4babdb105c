"""PASCAL VOC 2012 segmentation, and its augmentation by the Semantic Boundaries Dataset (SBD).

VOC publishes labels as palette PNGs, which Detectron2's mapper would turn into brightness; so both
sources become plain indices in ``SegmentationClassAug``, and every split reads that. Where both
label an image, VOC's label stands. SBD's train part holds images of VOC's val: they are left out of
the list of the augmented set.
"""

from pathlib import Path

import numpy as np

from ccsa.data.formats.label_images import find, read_ids, voc_colors
from ccsa.data.formats.mat_files import read_sbd
from ccsa.data.preparation.plans import Job, Plan, SourceMissing, identity
from ccsa.data.semantic.catalog import Family, Split

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
COLORS = voc_colors(len(CLASSES))
LABELS: np.ndarray = identity(len(CLASSES))
SBD_PLACES = ("VOCaug/dataset", "benchmark_RELEASE/dataset", "VOCdevkit/VOCaug/dataset")


def voc_folder(root: Path, year: str) -> Path:
    """Where the VOC of a year lies: ``VOC2012``, as Detectron2 has it, or ``VOCdevkit/VOC2012``, as
    its archive unpacks."""
    unpacked = root / "VOCdevkit" / f"VOC{year}"
    return unpacked if unpacked.is_dir() else root / f"VOC{year}"


def splits(root: Path) -> list[Split]:
    voc = voc_folder(root, "2012")
    lists = voc / "ImageSets" / "Segmentation"
    augmented = voc / "ImageSets" / "SegmentationAug" / "train_aug.txt"
    return [
        Split(
            name=name,
            image_root=voc / "JPEGImages",
            label_root=voc / "SegmentationClassAug",
            classes=CLASSES,
            colors=COLORS,
            group=group,
            published=published,
            list_file=list_file,
        )
        for name, group, list_file, published in (
            ("voc_2012_sem_seg_train", "voc_2012", lists / "train.txt", 1464),
            ("voc_2012_sem_seg_val", "voc_2012", lists / "val.txt", 1449),
            ("voc_2012_aug_sem_seg_train", "voc_2012_aug", augmented, 10582),
        )
    ]


def plan(root: Path) -> Plan:
    voc = voc_folder(root, "2012")
    target = voc / "SegmentationClassAug"
    original = find(voc / "SegmentationClass", "*.png")
    if not original:
        raise SourceMissing(voc / "SegmentationClass" / "*.png")
    val_list = voc / "ImageSets" / "Segmentation" / "val.txt"
    if not val_list.is_file():
        raise SourceMissing(val_list)
    boundaries = [p for place in SBD_PLACES for p in find(root / place / "cls", "*.mat")]
    result = Plan([Job(source, {target / source.name: LABELS}) for source in original])
    named = {source.stem for source in original}
    for source in boundaries:
        if source.stem not in named:
            result.jobs.append(Job(source, {target / f"{source.stem}.png": LABELS}, read_sbd))
            named.add(source.stem)
    named |= {
        path.stem for path in find(target, "*.png")
    }  # a SegmentationClassAug that was fetched
    if len(named) > len(original):
        augmented = voc / "ImageSets" / "SegmentationAug" / "train_aug.txt"
        result.lists[augmented] = sorted(named - set(read_ids(val_list)))
    else:
        result.notes.append(
            f"no SBD labels ({root / SBD_PLACES[0]}/cls/*.mat), so voc_2012_aug_sem_seg_train is "
            "not made; voc_2012_sem_seg_train and voc_2012_sem_seg_val are"
        )
    return result


FAMILY = Family(
    name="pascal_voc",
    title="PASCAL VOC 2012",
    home=(
        "host.robots.ox.ac.uk/pascal/VOC/voc2012 (VOCtrainval_11-May-2012.tar) and, for the "
        "augmented set, the Semantic Boundaries Dataset (SBD, benchmark.tgz)"
    ),
    layout="""\
VOC2012/                                     or VOCdevkit/VOC2012
  JPEGImages/*.jpg
  SegmentationClass/*.png
  ImageSets/Segmentation/{train,val}.txt
VOCaug/dataset/cls/*.mat                     or benchmark_RELEASE/dataset/cls""",
    splits=splits,
    plan=plan,
)
