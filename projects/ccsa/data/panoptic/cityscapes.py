"""Cityscapes panoptic: as Detectron2 registers it, and with the labels for Panoptic FPN.

Detectron2's ``cityscapes_fine_panoptic_{train,val}`` has no instances, and its semantic labels are
those of the 19 classes. Panoptic FPN needs instances, and labels that are 0 on all things and 1..11
on stuff: this module makes ``cityscapes_fine_panoptic_{train,val}_separated`` from the same
panoptic files.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES
from detectron2.data.datasets.coco import load_coco_json

from ccsa.data.family import Family
from ccsa.data.formats.label_images import IGNORE
from ccsa.data.formats.panoptic_json import Annotation
from ccsa.data.panoptic.instances import instances_text
from ccsa.data.panoptic.splits import PanopticSplit, stuff_labels, stuff_plan
from ccsa.data.preparation.plans import Plan
from ccsa.data.semantic.cityscapes import PUBLISHED

_THINGS = [category for category in CITYSCAPES_CATEGORIES if category["isthing"]]
_STUFF = [category for category in CITYSCAPES_CATEGORIES if not category["isthing"]]
THINGS = {category["id"]: category["name"] for category in _THINGS}
THING_IDS = {number: i for i, number in enumerate(THINGS)}  # category id: class
LABELS = stuff_labels(THINGS, [category["id"] for category in _STUFF])


def splits(root: Path) -> list[PanopticSplit]:
    """Return the splits under ``root``: those of Detectron2, then those for Panoptic FPN."""
    folder = root / "cityscapes"
    return [*(_original(folder, *item) for item in PUBLISHED.items()), *separated(root)]


def separated(root: Path) -> list[PanopticSplit]:
    """Return the splits for Panoptic FPN under ``root``."""
    return [_separated(root / "cityscapes", *item) for item in PUBLISHED.items()]


def _city_file(folder: Path, suffix: str, annotation: Annotation) -> Path:
    """Return a file of an image, which is stored in the folder of its city."""
    stem = str(annotation.image_id)
    return folder / stem.partition("_")[0] / f"{stem}_{suffix}.png"


def _stuff_file(folder: Path, annotation: Annotation) -> Path:
    return folder / _stuff_name(annotation.image_id)


def _stuff_name(image_id: int | str) -> str:
    return f"{image_id}_gtFine_stuff.png"


def _original(root: Path, split: str, count: int) -> PanopticSplit:
    """Return a split as Detectron2 registers it."""
    fine, images = root / "gtFine", root / "leftImg8bit" / split
    return PanopticSplit(
        name=f"cityscapes_fine_panoptic_{split}",
        json_file=fine / f"cityscapes_panoptic_{split}.json",
        panoptic_root=fine / f"cityscapes_panoptic_{split}",
        image_root=images,
        label_root=fine / split,
        # The JSON names images <id>_gtFine_leftImg8bit.png, but no file has that name.
        image_of=partial(_city_file, images, "leftImg8bit"),
        label_of=partial(_city_file, fine / split, "gtFine_labelTrainIds"),
        published=count,
        group="cityscapes_panoptic",
    )


def _separated(root: Path, split: str, count: int) -> PanopticSplit:
    """Return a split with the instances and labels for Panoptic FPN."""
    source = _original(root, split, count)
    stuff = root / "gtFine" / f"cityscapes_panoptic_stuff_{split}"
    instances = root / "gtFine" / f"cityscapes_panoptic_instances_{split}.json"
    return replace(
        source,
        name=f"{source.name}_separated",
        label_root=stuff,
        label_of=partial(_stuff_file, stuff),
        labels=LABELS,
        instances_json=instances,
        made_by=dict.fromkeys((stuff, instances), CITYSCAPES.prepare_command),
    )


def plan(root: Path) -> Plan:
    """Return the plan of ``cityscapes_panoptic_stuff_*`` and
    ``cityscapes_panoptic_instances_*.json`` for each split whose panoptic JSON exists.

    Raises:
        SourceMissing: see :func:`ccsa.data.panoptic.splits.stuff_plan`.
    """
    result = stuff_plan(separated(root))
    for split in separated(root):
        if split.json_file.is_file() and split.instances_json:
            result.texts[split.instances_json] = partial(instances_text, split, THINGS)
    return result


def load(split: PanopticSplit, root: Path) -> list[dict[str, Any]]:
    """Return the records of a split for Panoptic FPN in Detectron2's format, with instances and
    ``sem_seg_file_name``.

    Raises:
        UserError: the dataset is not downloaded or not prepared.
    """
    if not split.image_root.exists():
        raise CITYSCAPES.not_downloaded(root, split.image_root)
    missing = next((path for path in split.made_by if not path.exists()), None)
    if missing:
        raise CITYSCAPES.unavailable(root, missing)
    records = load_coco_json(str(split.instances_json), str(split.image_root))
    for record in records:
        record["sem_seg_file_name"] = str(split.label_root / _stuff_name(record["image_id"]))
        for instance in record["annotations"]:
            instance["category_id"] = THING_IDS[instance["category_id"]]
    return records


def register_all(root: Path) -> None:
    """Register the splits for Panoptic FPN under ``root``; no file is read before one is loaded."""
    for split in separated(root):
        DatasetCatalog.register(split.name, partial(load, split, root))
        MetadataCatalog.get(split.name).set(
            evaluator_type="coco_panoptic_seg",
            json_file=str(split.instances_json),
            image_root=str(split.image_root),
            panoptic_root=str(split.panoptic_root),
            panoptic_json=str(split.json_file),
            sem_seg_root=str(split.label_root),
            ignore_label=IGNORE,
            thing_classes=list(THINGS.values()),
            thing_colors=[list(category["color"]) for category in _THINGS],
            thing_dataset_id_to_contiguous_id=THING_IDS,
            stuff_classes=["things", *(category["name"] for category in _STUFF)],
            stuff_colors=[[128, 128, 128], *(list(category["color"]) for category in _STUFF)],
            stuff_dataset_id_to_contiguous_id={
                0: 0,
                **{category["id"]: LABELS[category["id"]] for category in _STUFF},
            },
            prepare_command=CITYSCAPES.prepare_command,
        )


CITYSCAPES = Family(
    name="cityscapes_panoptic",
    title="Cityscapes panoptic",
    home="www.cityscapes-dataset.com; python tools/prepare_dataset.py cityscapes makes "
    "*_labelTrainIds.png, csCreatePanopticImgs of cityscapesscripts makes the panoptic files",
    layout="""\
cityscapes/
  leftImg8bit/{train,val}/<city>/*_leftImg8bit.png
  gtFine/{train,val}/<city>/*_gtFine_labelTrainIds.png
  gtFine/cityscapes_panoptic_{train,val}.json
  gtFine/cityscapes_panoptic_{train,val}/*_gtFine_panoptic.png""",
    splits=splits,
    plan=plan,
)
