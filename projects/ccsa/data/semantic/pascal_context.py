"""PASCAL Context: 59 classes, or 60 with the background, in either of the two orders in use.

* ``pascal_context_{59,60}_sem_seg_*``: the order of the publication's ``59_labels.txt``;
* ``pascal_context_{59,60}_sorted_sem_seg_*``: by id in the 459-class maps, which is alphabetical;
  the order of PyTorch-Encoding, mmsegmentation and the weights trained with them.

The score is the same under either; names and colours are not. Each has label files of its own, so
that neither can be read as the other. With 60 classes 0 is the background; with 59 the background
is ignored and all labels are one lower. A class has one colour in all of them, a VOC class its VOC
one.
"""

from pathlib import Path

import numpy as np

from ccsa.data.formats.label_images import IGNORE, find, read_ids, voc_colors
from ccsa.data.formats.mat_files import read_context
from ccsa.data.preparation.plans import Job, Plan, SourceMissing, table
from ccsa.data.semantic.catalog import Family, Split
from ccsa.data.semantic.pascal_context_classes import ROWS
from ccsa.data.semantic.pascal_voc import voc_folder

RAW_IDS = 460  # 0..459
PUBLISHED = {"train": 4998, "val": 5105}
NAMES = ("background", *(name for name, _ in ROWS))
# order: canonical labels, 0..59, in that order
ORDERS = {
    "": list(range(60)),
    "_sorted": [0, *sorted(range(1, 60), key=lambda label: ROWS[label - 1][1])],
}


def _variants() -> dict[str, tuple[list[int], bool]]:
    """Name of each variant: its canonical labels in order, whether it has the background."""
    return {
        f"{count}{suffix}": (order, count == 60)
        for suffix, order in ORDERS.items()
        for count in (59, 60)
    }


def _lookup(order: list[int], background: bool, source: list[int], size: int) -> np.ndarray:
    """From the values of a source, of which ``source[label]`` means canonical ``label``, to labels
    in ``order``. Any other value is background."""
    lowered = 0 if background else 1
    mapping = {source[label]: place - lowered for place, label in enumerate(order) if label}
    return table(mapping, size, other=0 if background else IGNORE)


def splits(root: Path) -> list[Split]:
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
    """From the 459-class maps, or else from ``SegmentationClassContext`` as mmsegmentation writes
    it: 0..59 in the sorted order."""
    voc = voc_folder(root, "2010")
    raw_ids = [0, *(raw for _, raw in ROWS)]
    reading: dict = {"read": read_context}
    size, source = RAW_IDS, raw_ids
    files = find(voc / "trainval", "*.mat")
    files = files or find(root / "pascal_context" / "trainval", "*.mat")
    if not files:
        files, reading = find(voc / "SegmentationClassContext", "*.png"), {}
        size, source = 60, [ORDERS["_sorted"].index(label) for label in range(60)]
    if not files:
        raise SourceMissing(voc / "trainval" / "*.mat")
    tables = {
        voc / "annotations_detectron2" / f"context_{variant}": _lookup(*what, source, size)
        for variant, what in _variants().items()
    }
    jobs = [
        Job(path, {folder / f"{path.stem}.png": t for folder, t in tables.items()}, **reading)
        for path in files
    ]
    return Plan(jobs, lists=_lists(voc, {path.stem for path in files}))


def _lists(voc: Path, labelled: set[str]) -> dict[Path, list[str]]:
    """The lists of the two splits: those that are there, else VOC 2010's own of its whole trainval,
    which have as many images."""
    lists = {}
    for split in PUBLISHED:
        path = voc / "ImageSets" / "SegmentationContext" / f"{split}.txt"
        whole = voc / "ImageSets" / "Main" / f"{split}.txt"
        if whole.is_file():
            lists[path] = [name for name in read_ids(whole) if name in labelled]
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
