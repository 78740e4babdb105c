"""The semantic segmentation datasets of CCNet and SANet; importing this package registers them.

They are stored under ``$DETECTRON2_DATASETS`` (default ``./datasets``); docs/DATASETS.md shows
their layouts. ``FAMILIES`` holds them by name.
"""

from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from ccsa.data.family import Family
from ccsa.data.paths import datasets_root
from ccsa.data.semantic import ade20k, camvid, cityscapes, lip, pascal_context, pascal_voc
from ccsa.data.semantic.splits import Split, register

__all__ = ["FAMILIES", "Family", "Split", "register_all"]

FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (cityscapes, ade20k, lip, pascal_context, pascal_voc, camvid)
}


def register_all(root: Path) -> None:
    """Register every split of every family, stored under ``root``."""
    for family in FAMILIES.values():
        for split in family.splits(root):
            register(family, split, root)
    for name in cityscapes.BUILT_IN:
        if name in DatasetCatalog:
            MetadataCatalog.get(name).stuff_colors = cityscapes.COLORS


register_all(datasets_root())
