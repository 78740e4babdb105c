"""The segmentation datasets of CCNet and SANet; importing this registers them with Detectron2.

They lie under ``$DETECTRON2_DATASETS`` (default ``./datasets``); docs/DATASETS.md has the layouts.
"""

from collections.abc import Mapping
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog

from ccsa.data.semantic import ade20k, camvid, cityscapes, lip, pascal_context, pascal_voc
from ccsa.data.semantic.catalog import Family, Split, register
from ccsa.data.synthetic.storage import datasets_root
from ccsa.data.transforms.flips import RandomFlipWithSwap, SwapFlipTransform, flip_permutation
from ccsa.errors import UserError, suggestion

__all__ = [
    "FAMILIES",
    "Family",
    "RandomFlipWithSwap",
    "Split",
    "SwapFlipTransform",
    "find_family",
    "flip_permutation",
    "register_all",
]

FAMILIES: dict[str, Family] = {
    module.FAMILY.name: module.FAMILY
    for module in (cityscapes, ade20k, lip, pascal_context, pascal_voc, camvid)
}


def find_family(name: str, families: Mapping[str, Family] = FAMILIES) -> Family:
    """The family called ``name``.

    Raises:
        UserError: there is none; the nearest names and all known ones are listed.
    """
    if name in families:
        return families[name]
    owners = [f.name for f in families.values() for s in f.splits(Path()) if s.name == name]
    hint = suggestion((owners or [name])[0], list(families), limit=2, cutoff=0.4)
    raise UserError(f"there is no dataset called '{name}'{hint}")


def register_all(root: Path) -> None:
    """Register every split of every family, as it lies under ``root``."""
    for family in FAMILIES.values():
        for split in family.splits(root):
            register(family, split, root)
    for name in cityscapes.BUILT_IN:
        if name in DatasetCatalog:
            MetadataCatalog.get(name).stuff_colors = cityscapes.COLORS


register_all(datasets_root())
