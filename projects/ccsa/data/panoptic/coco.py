"""COCO panoptic, and the panoptic digits, which have the same layout.

Both are registered elsewhere: COCO by Detectron2, the digits by
:mod:`ccsa.data.synthetic.digits`.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from ccsa.data.family import Family
from ccsa.data.formats.panoptic_json import Annotation
from ccsa.data.panoptic.splits import PanopticSplit, nothing_to_prepare, stuff_labels, stuff_plan
from ccsa.data.preparation.plans import Plan
from ccsa.data.synthetic.digit_files import STUFF_IDS, THING_IDS
from ccsa.data.synthetic.digits import COUNTS, ensure_digits

DIGIT_LABELS = stuff_labels(list(THING_IDS), list(STUFF_IDS))
COCO_LABELS = stuff_labels(
    [c["id"] for c in COCO_CATEGORIES if c["isthing"]],
    [c["id"] for c in COCO_CATEGORIES if not c["isthing"]],
)
COCO_PUBLISHED = {"train2017": 118287, "val2017": 5000}


def _file_in(root: Path, suffix: str) -> Callable[[Annotation], Path]:
    """Return a function from an annotation to the file in ``root`` that is named like its PNG."""
    return lambda annotation: (root / annotation.file_name).with_suffix(suffix)


def _like_coco(
    root: Path, name: str, split: str, labels: dict[int, int], count: int, **others: Any
) -> PanopticSplit:
    """Return a split in the layout of COCO, stored in ``root``."""
    annotations = root / "annotations"
    images, stuff = root / split, root / f"panoptic_stuff_{split}"
    return PanopticSplit(
        name=name,
        json_file=annotations / f"panoptic_{split}.json",
        panoptic_root=root / f"panoptic_{split}",
        image_root=images,
        label_root=stuff,
        image_of=_file_in(images, ".jpg"),
        label_of=_file_in(stuff, ".png"),
        published=count,
        labels=labels,
        instances_json=annotations / f"instances_{split}.json",
        **others,
    )


def digit_splits(root: Path) -> list[PanopticSplit]:
    """Return the splits of the digits under ``root``."""
    folder, group = root / "digits", "digits_panoptic"
    return [
        _like_coco(
            *(folder, f"digits_{split}_panoptic_separated", split, DIGIT_LABELS, count), group=group
        )
        for split, count in COUNTS.items()
    ]


def coco_splits(root: Path) -> list[PanopticSplit]:
    """Return the splits of COCO panoptic under ``root``."""
    folder, splits = root / "coco", []
    for split, count in COCO_PUBLISHED.items():
        name = f"coco_2017_{split.removesuffix('2017')}_panoptic_separated"
        command = "python tools/prepare_dataset.py coco_panoptic"
        # Each split is a group of its own: train is large and may be left out.
        options = {"group": name, "made_by": {folder / f"panoptic_stuff_{split}": command}}
        splits.append(_like_coco(folder, name, split, COCO_LABELS, count, **options))
    return splits


def coco_plan(root: Path) -> Plan:
    """Return the plan of ``panoptic_stuff_{train,val}2017``: 0 for all things, 1..53 for stuff, 255
    for void.

    Raises:
        SourceMissing: see :func:`ccsa.data.panoptic.splits.stuff_plan`.
    """
    return stuff_plan(coco_splits(root))


DIGITS = Family(
    name="digits_panoptic",
    title="The panoptic digits dataset",
    home="python tools/check_dataset.py digits_panoptic, which writes it if it does not exist",
    layout="""\
digits/
  {train,val}/*.jpg, panoptic_{train,val}/*.png, panoptic_stuff_{train,val}/*.png
  annotations/{panoptic,instances}_{train,val}.json""",
    splits=digit_splits,
    plan=partial(nothing_to_prepare, digit_splits),
    write=ensure_digits,
)
COCO = Family(
    name="coco_panoptic",
    title="COCO panoptic",
    home="cocodataset.org ({train,val}2017.zip, annotations_trainval2017.zip, "
    "panoptic_annotations_trainval2017.zip and the two archives in it)",
    layout="""\
coco/
  {train,val}2017/*.jpg
  annotations/{instances,panoptic}_{train,val}2017.json
  panoptic_{train,val}2017/*.png""",
    splits=coco_splits,
    plan=coco_plan,
)
