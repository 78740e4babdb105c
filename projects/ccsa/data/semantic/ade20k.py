"""ADE20K (ADEChallengeData2016), 150 classes.

Detectron2 registers ``ade20k_sem_seg_{train,val}``; this module adds the usual colors to their
metadata and makes the labels that they read: ``annotations_detectron2``, lowered by one.
"""

from pathlib import Path

from detectron2.data.datasets.builtin_meta import ADE20K_SEM_SEG_CATEGORIES

from ccsa.data.family import Family
from ccsa.data.formats.label_images import IGNORE
from ccsa.data.paths import list_files
from ccsa.data.preparation.lookup_tables import lookup_table
from ccsa.data.preparation.plans import Job, Plan, SourceMissing
from ccsa.data.semantic.ade20k_colors import COLORS
from ccsa.data.semantic.splits import Split

CLASSES = tuple(ADE20K_SEM_SEG_CATEGORIES)
# In the published labels 0 is void and 1..150 are the classes.
LOWERED = lookup_table({0: IGNORE, **{i + 1: i for i in range(len(CLASSES))}})
FOLDERS = {"train": ("training", 20210), "val": ("validation", 2000)}


def splits(root: Path) -> list[Split]:
    """Return the splits under ``root``."""
    return [
        Split(
            name=f"ade20k_sem_seg_{split}",
            image_root=root / "ADEChallengeData2016" / "images" / folder,
            label_root=root / "ADEChallengeData2016" / "annotations_detectron2" / folder,
            classes=CLASSES,
            colors=COLORS,
            group="ade20k",
            published=published,
        )
        for split, (folder, published) in FOLDERS.items()
    ]


def plan(root: Path) -> Plan:
    """Return the plan of ``annotations_detectron2``.

    Raises:
        SourceMissing: a folder has no published labels.
    """
    jobs = []
    base = root / "ADEChallengeData2016"
    for folder, _ in FOLDERS.values():
        target = base / "annotations_detectron2" / folder
        sources = list_files(base / "annotations" / folder, "*.png")
        if not sources:
            raise SourceMissing(base / "annotations" / folder / "*.png")
        jobs += [Job(source, {target / source.name: LOWERED}) for source in sources]
    return Plan(jobs)


FAMILY = Family(
    name="ade20k",
    title="ADE20K",
    home="sceneparsing.csail.mit.edu (ADEChallengeData2016.zip)",
    layout="""\
ADEChallengeData2016/
  images/{training,validation}/ADE_*.jpg
  annotations/{training,validation}/ADE_*.png""",
    splits=splits,
    plan=plan,
)
