"""PASCAL VOC 2012 segmentation, and its augmentation by the Semantic Boundaries Dataset (SBD).

VOC publishes labels as palette PNGs, whose colors Detectron2's mapper would convert to brightness.
Therefore the labels of both sources are written as plain indices to ``SegmentationClassAug``, which
every split reads. If both sources label an image, the label of VOC is used. The train part of SBD
contains images of VOC's val split; the list of the augmented set leaves them out.
"""

from pathlib import Path

import numpy as np

from ccsa.data.family import Family
from ccsa.data.formats.id_lists import read_id_list
from ccsa.data.formats.mat_files import read_sbd
from ccsa.data.paths import list_files
from ccsa.data.preparation.lookup_tables import identity_table
from ccsa.data.preparation.plans import Job, Plan, SourceMissing
from ccsa.data.semantic.splits import Split

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
)
LABELS: np.ndarray = identity_table(len(CLASSES))
SBD_FOLDERS = ("VOCaug/dataset", "benchmark_RELEASE/dataset", "VOCdevkit/VOCaug/dataset")


def voc_folder(root: Path, year: str) -> Path:
    """Return the folder of a year's VOC: ``VOCdevkit/VOC2012``, as the archive unpacks, if it
    exists, otherwise ``VOC2012``, as in Detectron2."""
    unpacked = root / "VOCdevkit" / f"VOC{year}"
    return unpacked if unpacked.is_dir() else root / f"VOC{year}"


def voc_colors(count: int) -> list[list[int]]:
    """Return the first ``count`` colors (RGB) of the color map of PASCAL VOC.

    Bit 7 - j of a channel is bit 3 j + channel of the index.

    Example:
        >>> voc_colors(3)
        [[0, 0, 0], [128, 0, 0], [0, 128, 0]]
    """
    bits = np.arange(count)[:, None] >> np.arange(3)
    colors = np.zeros((count, 3), int)
    for j in range(8):
        colors |= ((bits >> 3 * j) & 1) << (7 - j)
    return colors.tolist()


COLORS = voc_colors(len(CLASSES))


def splits(root: Path) -> list[Split]:
    """Return the splits under ``root``."""
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
    """Return the plan of ``SegmentationClassAug`` and of the list of the augmented set.

    Raises:
        SourceMissing: the labels or the val list of VOC do not exist.
    """
    voc = voc_folder(root, "2012")
    target = voc / "SegmentationClassAug"
    original = list_files(voc / "SegmentationClass", "*.png")
    if not original:
        raise SourceMissing(voc / "SegmentationClass" / "*.png")
    val_list = voc / "ImageSets" / "Segmentation" / "val.txt"
    if not val_list.is_file():
        raise SourceMissing(val_list)
    boundaries = [p for folder in SBD_FOLDERS for p in list_files(root / folder / "cls", "*.mat")]
    result = Plan([Job(source, {target / source.name: LABELS}) for source in original])
    labeled = {source.stem for source in original}
    for source in boundaries:
        if source.stem not in labeled:
            result.jobs.append(Job(source, {target / f"{source.stem}.png": LABELS}, read_sbd))
            labeled.add(source.stem)
    # Labels that exist already may be a downloaded SegmentationClassAug.
    labeled |= {path.stem for path in list_files(target, "*.png")}
    if len(labeled) > len(original):
        augmented = voc / "ImageSets" / "SegmentationAug" / "train_aug.txt"
        result.lists[augmented] = sorted(labeled - set(read_id_list(val_list)))
    else:
        result.notes.append(
            f"no SBD labels were found ({root / SBD_FOLDERS[0]}/cls/*.mat), so "
            "voc_2012_aug_sem_seg_train is not made; voc_2012_sem_seg_train and "
            "voc_2012_sem_seg_val are made"
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
