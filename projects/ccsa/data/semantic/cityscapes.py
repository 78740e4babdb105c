"""Cityscapes, fine annotations, 19 classes.

Detectron2 registers ``cityscapes_fine_sem_seg_{train,val,test}`` with an evaluator that needs the
package cityscapesscripts. ``cityscapes_sem_seg_{train,val}`` of this module read the same files and
are scored by SemSegEvaluator, which needs no other package and computes the same confusion matrix
over trainIds.
"""

from pathlib import Path

from ccsa.data.family import Family
from ccsa.data.formats.label_images import IGNORE
from ccsa.data.paths import list_files
from ccsa.data.preparation.lookup_tables import lookup_table
from ccsa.data.preparation.plans import Job, Plan, SourceMissing
from ccsa.data.semantic.splits import Split

# label (trainId): name, id in *_labelIds.png, RGB
_ROWS = [
    ("road", 7, [128, 64, 128]),
    ("sidewalk", 8, [244, 35, 232]),
    ("building", 11, [70, 70, 70]),
    ("wall", 12, [102, 102, 156]),
    ("fence", 13, [190, 153, 153]),
    ("pole", 17, [153, 153, 153]),
    ("traffic light", 19, [250, 170, 30]),
    ("traffic sign", 20, [220, 220, 0]),
    ("vegetation", 21, [107, 142, 35]),
    ("terrain", 22, [152, 251, 152]),
    ("sky", 23, [70, 130, 180]),
    ("person", 24, [220, 20, 60]),
    ("rider", 25, [255, 0, 0]),
    ("car", 26, [0, 0, 142]),
    ("truck", 27, [0, 0, 70]),
    ("bus", 28, [0, 60, 100]),
    ("train", 31, [0, 80, 100]),
    ("motorcycle", 32, [0, 0, 230]),
    ("bicycle", 33, [119, 11, 32]),
]
CLASSES = tuple(name for name, _, _ in _ROWS)
COLORS = [color for _, _, color in _ROWS]
# Every other id, including 255 (the license plate, id -1), is ignored.
TRAIN_IDS = lookup_table({raw: label for label, (_, raw, _) in enumerate(_ROWS)}, other=IGNORE)
BUILT_IN = [f"cityscapes_fine_sem_seg_{split}" for split in ("train", "val", "test")]
PUBLISHED = {"train": 2975, "val": 500}


def splits(root: Path) -> list[Split]:
    """Return the splits under ``root``."""
    return [
        Split(
            name=f"cityscapes_sem_seg_{split}",
            image_root=root / "cityscapes" / "leftImg8bit" / split,
            label_root=root / "cityscapes" / "gtFine" / split,
            classes=CLASSES,
            colors=COLORS,
            group="cityscapes",
            published=published,
            image_suffix="_leftImg8bit.png",
            label_suffix="_gtFine_labelTrainIds.png",
        )
        for split, published in PUBLISHED.items()
    ]


def plan(root: Path) -> Plan:
    """Return the plan of ``*_labelTrainIds.png`` next to each ``*_labelIds.png``, where Detectron2
    reads them.

    Raises:
        SourceMissing: no ``*_labelIds.png`` exists.
    """
    folder = root / "cityscapes" / "gtFine"
    sources = list_files(folder, "*/*/*_gtFine_labelIds.png")
    if not sources:
        raise SourceMissing(folder / "train" / "*" / "*_gtFine_labelIds.png")
    return Plan(
        [
            Job(source, {source.with_name(_train_ids_name(source.name)): TRAIN_IDS})
            for source in sources
        ]
    )


def _train_ids_name(name: str) -> str:
    return name.replace("_labelIds.png", "_labelTrainIds.png")


FAMILY = Family(
    name="cityscapes",
    title="Cityscapes",
    home="www.cityscapes-dataset.com (gtFine_trainvaltest.zip, leftImg8bit_trainvaltest.zip)",
    layout="""\
cityscapes/
  leftImg8bit/{train,val,test}/<city>/*_leftImg8bit.png
  gtFine/{train,val,test}/<city>/*_gtFine_labelIds.png""",
    splits=splits,
    plan=plan,
)
