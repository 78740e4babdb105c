"""PASCAL Context: 59 classes, or 60 with the background, in either of the two orders in use.

* ``pascal_context_{59,60}_sem_seg_*``: the order of ``59_labels.txt`` of the publication.
* ``pascal_context_{59,60}_sorted_sem_seg_*``: the order of the ids in the 459-class label maps,
  which is alphabetical. PyTorch-Encoding, mmsegmentation and weights trained with them use it.

The scores are the same in both orders, but names and colors are not. Each order has its own label
files, so that one cannot be read as the other. With 60 classes, label 0 is the background; with 59
classes, the background is ignored and all labels are lower by one. A class has the same color
everywhere, and a class of VOC has the color of VOC.
"""

from pathlib import Path
from typing import Any

import numpy as np

from ccsa.data.family import Family
from ccsa.data.formats.id_lists import read_id_list
from ccsa.data.formats.label_images import IGNORE
from ccsa.data.formats.mat_files import read_context
from ccsa.data.paths import list_files
from ccsa.data.preparation.lookup_tables import lookup_table
from ccsa.data.preparation.plans import Job, Plan, SourceMissing
from ccsa.data.semantic.pascal_context_classes import ROWS
from ccsa.data.semantic.pascal_voc import voc_colors, voc_folder
from ccsa.data.semantic.splits import Split

RAW_IDS = 460  # 0..459
PUBLISHED = {"train": 4998, "val": 5105}
NAMES = ("background", *(name for name, _ in ROWS))
# suffix of the name: the canonical labels 0..59 in that order
ORDERS = {
    "": list(range(60)),
    "_sorted": [0, *sorted(range(1, 60), key=lambda label: ROWS[label - 1][1])],
}


def _variants() -> dict[str, tuple[list[int], bool]]:
    """Return, for the name of each variant, its canonical labels in order and whether it has the
    background."""
    return {
        f"{count}{suffix}": (order, count == 60)
        for suffix, order in ORDERS.items()
        for count in (59, 60)
    }


def _order_table(order: list[int], background: bool, source: list[int], size: int) -> np.ndarray:
    """Return the lookup table from published values to labels in ``order``.

    Args:
        order: the canonical labels in the wanted order.
        background: whether label 0 is the background.
        source: the published value of each canonical label; all other values are background.
        size: the number of published values.
    """
    offset = 0 if background else 1
    mapping = {source[label]: index - offset for index, label in enumerate(order) if label}
    return lookup_table(mapping, size, other=0 if background else IGNORE)


def splits(root: Path) -> list[Split]:
    """Return the splits of all variants under ``root``."""
    voc = voc_folder(root, "2010")
    palette = voc_colors(60)
    result = []
    for variant, (order, background) in _variants().items():
        labels = order if background else order[1:]
        for split, published in PUBLISHED.items():
            result.append(
                Split(
                    name=f"pascal_context_{variant}_sem_seg_{split}",
                    image_root=voc / "JPEGImages",
                    label_root=voc / "annotations_detectron2" / f"context_{variant}",
                    classes=tuple(NAMES[label] for label in labels),
                    colors=[palette[label] for label in labels],
                    group=f"pascal_context_{variant}",
                    published=published,
                    list_file=voc / "ImageSets" / "SegmentationContext" / f"{split}.txt",
                )
            )
    return result


def plan(root: Path) -> Plan:
    """Return the plan that starts from the 459-class label maps, or otherwise from
    ``SegmentationClassContext`` as mmsegmentation writes it: 0..59 in the sorted order.

    Raises:
        SourceMissing: neither exists, or no list of a split exists.
    """
    voc = voc_folder(root, "2010")
    raw_ids = [0, *(raw for _, raw in ROWS)]
    reading: dict[str, Any] = {"read": read_context}
    size, source = RAW_IDS, raw_ids
    files = list_files(voc / "trainval", "*.mat")
    files = files or list_files(root / "pascal_context" / "trainval", "*.mat")
    if not files:
        files, reading = list_files(voc / "SegmentationClassContext", "*.png"), {}
        size, source = 60, [ORDERS["_sorted"].index(label) for label in range(60)]
    if not files:
        raise SourceMissing(voc / "trainval" / "*.mat")
    made = voc / "annotations_detectron2"
    tables = {
        made / f"context_{variant}": _order_table(order, background, source, size)
        for variant, (order, background) in _variants().items()
    }
    jobs = [
        Job(path, {folder / f"{path.stem}.png": t for folder, t in tables.items()}, **reading)
        for path in files
    ]
    return Plan(jobs, lists=_lists(voc, {path.stem for path in files}))


def _lists(voc: Path, labeled: set[str]) -> dict[Path, list[str]]:
    """Return the lists of both splits, made from VOC 2010's lists of its whole trainval part, which
    name the published number of labeled images. A list that exists already needs no source.

    Raises:
        SourceMissing: neither the list nor its source exists.
    """
    lists = {}
    for split in PUBLISHED:
        path = voc / "ImageSets" / "SegmentationContext" / f"{split}.txt"
        whole = voc / "ImageSets" / "Main" / f"{split}.txt"
        if whole.is_file():
            lists[path] = [name for name in read_id_list(whole) if name in labeled]
        elif not path.is_file():
            raise SourceMissing(whole)
    return lists


FAMILY = Family(
    name="pascal_context",
    title="PASCAL Context",
    home=(
        "host.robots.ox.ac.uk/pascal/VOC/voc2010 (VOCtrainval_03-May-2010.tar) and "
        "cs.stanford.edu/~roozbeh/pascal-context (trainval.tar.gz)"
    ),
    layout="""\
VOC2010/                                         or VOCdevkit/VOC2010
  JPEGImages/*.jpg
  ImageSets/Main/{train,val}.txt                 or ImageSets/SegmentationContext/{train,val}.txt
  trainval/*.mat                                 or pascal_context/trainval/*.mat""",
    splits=splits,
    plan=plan,
)
