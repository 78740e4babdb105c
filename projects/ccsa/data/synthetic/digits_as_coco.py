"""Digit scenes in the layout of COCO, to try configurations of COCO without downloading it.

coco/{train,val}2017/000001.jpg
coco/annotations/instances_{train,val}2017.json    80 categories, of which ten are used
coco/annotations/panoptic_{train,val}2017.json     also 53 stuff categories, three are used
coco/panoptic_{train,val}2017/000001.png
"""

import json
import tempfile
from pathlib import Path

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from ccsa.data.synthetic.digit_files import THINGS
from ccsa.data.synthetic.digits import SEED, write_digits
from ccsa.errors import UserError


def write_as_coco(root: Path | str, train: int = 64, val: int = 16, seed: int = SEED) -> Path:
    """Write ``root/coco`` so that Detectron2's ``coco_2017_train`` and ``coco_2017_val`` load it.

    The digits 0 to 9 become the first ten categories of COCO, person to traffic light, and the
    grounds become its first three stuff categories. The published files of COCO panoptic are
    written as well; ``tools/prepare_dataset.py coco_panoptic`` makes the labels of Panoptic FPN.

    Args:
        root: the folder that ``$DETECTRON2_DATASETS`` names; ``root/coco`` must not exist.
        train: the number of training scenes.
        val: the number of validation scenes, whose scans no training scene uses.
        seed: of the random scenes.

    Returns:
        The folder ``root/coco``.

    Raises:
        UserError: ``root/coco`` exists; existing data is never touched.
    """
    coco = Path(root) / "coco"
    if coco.exists():
        raise UserError(f"{coco.absolute()} exists already; move it away, or name another folder")
    coco.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".coco-partial-", dir=coco.parent) as partial:
        digits, new = Path(partial) / "digits", Path(partial) / "new"
        write_digits(digits, {"train": train, "val": val}, seed)
        (new / "annotations").mkdir(parents=True)
        for split in ("train", "val"):
            _convert(digits, new, split)
        new.rename(coco)
    return coco


def _convert(digits: Path, coco: Path, split: str) -> None:
    """Move one split of the digits to the layout of COCO."""
    things = [category for category in COCO_CATEGORIES if category["isthing"]]
    stuff = [category for category in COCO_CATEGORIES if not category["isthing"]]
    _write(digits, coco, f"instances_{split}", things, [])
    _write(digits, coco, f"panoptic_{split}", things, stuff)
    (digits / split).rename(coco / f"{split}2017")
    (digits / f"panoptic_{split}").rename(coco / f"panoptic_{split}2017")


def _write(digits: Path, coco: Path, name: str, things: list[dict], stuff: list[dict]) -> None:
    """Write an annotation file with the categories of COCO instead of those of the digits."""
    content = json.loads((digits / "annotations" / f"{name}.json").read_text())
    own = content["categories"]  # things first
    first = len(THINGS)
    taken = [*zip(own[:first], things, strict=False), *zip(own[first:], stuff, strict=False)]
    coco_ids = {category["id"]: other["id"] for category, other in taken}
    for annotation in content["annotations"]:
        for item in annotation.get("segments_info", [annotation]):
            item["category_id"] = coco_ids[item["category_id"]]
    keys = ("id", "name", "isthing")
    content["categories"] = [{key: c[key] for key in keys} for c in [*things, *stuff]]
    (coco / "annotations" / f"{name}2017.json").write_text(json.dumps(content))
