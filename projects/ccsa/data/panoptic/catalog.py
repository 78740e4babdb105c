"""What a panoptic dataset on disk is here, and the labels for Panoptic FPN that are made of COCO's.

The datasets are registered elsewhere: digits by this project, COCO and Cityscapes by Detectron2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from ccsa.data.digit_files import STUFF_IDS, THING_IDS
from ccsa.data.digits import COUNTS, ensure_digits
from ccsa.data.panoptic.annotations import Annotation, read_panoptic_json
from ccsa.data.panoptic.segments import read_segment_ids, relabel_segments
from ccsa.data.semantic import cityscapes
from ccsa.data.semantic.catalog import Family
from ccsa.data.semantic.prepare import Job, Plan, SourceMissing, identity
from ccsa.errors import UserError


@dataclass(frozen=True)
class PanopticSplit:
    """Images, the panoptic JSON with its PNGs, and the semantic labels that go with them."""

    name: str  # as registered
    json_file: Path
    panoptic_root: Path
    image_root: Path
    label_root: Path
    image_of: Callable[[Annotation], Path]
    label_of: Callable[[Annotation], Path]
    published: int
    group: str
    labels: dict[int, int] | None = None  # category id: label, where labels are made of segments
    instances_json: Path | None = None
    made_by: str = ""  # what makes the labels, in words

    def absent(self) -> Path | None:
        """What of the panoptic annotations is not there; without them the split is not there."""
        return next((p for p in (self.json_file, self.panoptic_root) if not p.exists()), None)

    def incomplete(self) -> list[str]:
        """What else it needs and is not there, in words."""
        lacking = [p for p in (self.instances_json, self.image_root) if p and not p.exists()]
        words = [f"{place} is not there" for place in lacking]
        if not self.label_root.exists():
            words.append(f"{self.label_root} is not there{self.made_by}")
        return words


def stuff_labels(things: list[int], stuff: list[int]) -> dict[int, int]:
    """{category id: label} as Panoptic FPN wants them: 0 for all things, stuff from 1 on in the
    order of its category ids."""
    return dict.fromkeys(things, 0) | {number: i + 1 for i, number in enumerate(sorted(stuff))}


DIGIT_LABELS = stuff_labels(list(THING_IDS), list(STUFF_IDS))
COCO_LABELS = stuff_labels(
    [c["id"] for c in COCO_CATEGORIES if c["isthing"]],
    [c["id"] for c in COCO_CATEGORIES if not c["isthing"]],
)
COCO_PUBLISHED = {"train2017": 118287, "val2017": 5000}


def _beside(root: Path, suffix: str) -> Callable[[Annotation], Path]:
    """Files called as the PNGs, with another suffix."""
    return lambda annotation: (root / annotation.file_name).with_suffix(suffix)


def _like_coco(
    root: Path, name: str, split: str, labels: dict[int, int], count: int, **others: str
) -> PanopticSplit:
    """The layout of COCO, which the digits share."""
    annotations = root / "annotations"
    images, stuff = root / split, root / f"panoptic_stuff_{split}"
    return PanopticSplit(
        name=name,
        json_file=annotations / f"panoptic_{split}.json",
        panoptic_root=root / f"panoptic_{split}",
        image_root=images,
        label_root=stuff,
        image_of=_beside(images, ".jpg"),
        label_of=_beside(stuff, ".png"),
        published=count,
        labels=labels,
        instances_json=annotations / f"instances_{split}.json",
        **others,
    )


def digit_splits(root: Path) -> list[PanopticSplit]:
    folder, group = root / "digits", "digits_panoptic"
    return [
        _like_coco(
            *(folder, f"digits_{split}_panoptic_separated", split, DIGIT_LABELS, count), group=group
        )
        for split, count in COUNTS.items()
    ]


def coco_splits(root: Path) -> list[PanopticSplit]:
    folder, splits = root / "coco", []
    for split, count in COCO_PUBLISHED.items():
        name = f"coco_2017_{split.removesuffix('2017')}_panoptic_separated"
        made_by = "; python tools/prepare_dataset.py coco_panoptic makes it"
        # Either may be there alone: train is large.
        more = {"group": name, "made_by": made_by}
        splits.append(_like_coco(folder, name, split, COCO_LABELS, count, **more))
    return splits


def cityscapes_splits(root: Path) -> list[PanopticSplit]:
    return [_cityscapes(root / "cityscapes", *item) for item in cityscapes.PUBLISHED.items()]


def _cityscapes(root: Path, split: str, count: int) -> PanopticSplit:
    fine, images = root / "gtFine", root / "leftImg8bit" / split

    def file(folder: Path, suffix: str, annotation: Annotation) -> Path:
        stem = str(annotation.image_id)
        return folder / stem.partition("_")[0] / f"{stem}_{suffix}.png"

    return PanopticSplit(
        name=f"cityscapes_fine_panoptic_{split}",
        json_file=fine / f"cityscapes_panoptic_{split}.json",
        panoptic_root=fine / f"cityscapes_panoptic_{split}",
        image_root=images,
        label_root=fine / split,
        image_of=partial(file, images, "leftImg8bit"),
        label_of=partial(file, fine / split, "gtFine_labelTrainIds"),
        published=count,
        group="cityscapes_panoptic",
    )


def coco_plan(root: Path) -> Plan:
    """``panoptic_stuff_{train,val}2017``: 0 all things, 1..53 stuff, 255 void, for each split whose
    JSON is there."""
    plan = Plan()
    for split in coco_splits(root):
        if not split.json_file.is_file():
            plan.notes.append(f"{split.name} is not made: no {split.json_file.absolute()}")
            continue
        if not split.panoptic_root.is_dir():
            raise SourceMissing(split.panoptic_root)
        truth = read_panoptic_json(split.json_file)
        plan.jobs += [
            Job(
                split.panoptic_root / annotation.file_name,
                {split.label_of(annotation): identity(len(set(COCO_LABELS.values())))},
                partial(_read_labels, annotation=annotation),
            )
            for annotation in truth.annotations.values()
        ]
    if not plan.jobs:
        raise SourceMissing(coco_splits(root)[0].json_file)
    return plan


def _read_labels(source: Path, annotation: Annotation) -> np.ndarray:
    """(H, W) labels of a PNG of COCO.

    Raises:
        UserError: it cannot be read, or a segment has a category that COCO does not have.
    """
    try:
        return relabel_segments(read_segment_ids(source), annotation.segments, COCO_LABELS)
    except KeyError as error:
        raise UserError(
            f"image {annotation.image_id} ({source}) has the unknown category {error}; "
            "put a good copy of its JSON in its place"
        ) from error


def _no_plan(splits: Callable[[Path], list[PanopticSplit]], root: Path) -> Plan:
    """Nothing is made of it here: what is absent must be got."""
    raise SourceMissing(next((p for split in splits(root) if (p := split.absent())), root))


DIGITS = Family(
    name="digits_panoptic",
    title="The panoptic digits dataset",
    home="python tools/check_dataset.py digits_panoptic, which writes them if they are not there",
    layout="""\
digits/
  {train,val}/*.jpg, panoptic_{train,val}/*.png, panoptic_stuff_{train,val}/*.png
  annotations/{panoptic,instances}_{train,val}.json""",
    splits=digit_splits,
    plan=partial(_no_plan, digit_splits),
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
CITYSCAPES = Family(
    name="cityscapes_panoptic",
    title="Cityscapes panoptic",
    home="www.cityscapes-dataset.com; python tools/prepare_dataset.py cityscapes makes "
    "*_labelTrainIds.png, csCreatePanopticImgs of cityscapesscripts the panoptic files",
    layout="""\
cityscapes/
  leftImg8bit/{train,val}/<city>/*_leftImg8bit.png
  gtFine/{train,val}/<city>/*_gtFine_labelTrainIds.png
  gtFine/cityscapes_panoptic_{train,val}.json
  gtFine/cityscapes_panoptic_{train,val}/*_gtFine_panoptic.png""",
    splits=cityscapes_splits,
    plan=partial(_no_plan, cityscapes_splits),
)
FAMILIES = {family.name: family for family in (DIGITS, COCO, CITYSCAPES)}
PREPARED = {COCO.name: COCO}  # those of which tools/prepare_dataset.py makes something
