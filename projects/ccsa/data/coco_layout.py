"""Digit scenes in the folders and under the names of COCO, for trying COCO's configs without COCO.

coco/{train,val}2017/000001.jpg
coco/annotations/instances_{train,val}2017.json    all 80 categories, ten of them in use
"""

import json
import tempfile
from pathlib import Path

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from ccsa.data.digits import SEED, write_digits
from ccsa.errors import UserError


def write_as_coco(root: Path | str, train: int = 64, val: int = 16, seed: int = SEED) -> Path:
    """Write ``root/coco`` so that Detectron2's ``coco_2017_train`` and ``coco_2017_val`` load it.

    The digits 0 to 9 become the first ten categories of COCO, person to traffic light.

    Args:
        root: what ``$DETECTRON2_DATASETS`` names; ``root/coco`` must not exist.
        train: number of training scenes.
        val: number of validation scenes, of scans that the training scenes do not use.

    Raises:
        UserError: ``root/coco`` exists; real data is never touched.
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
    things = [thing for thing in COCO_CATEGORIES if thing["isthing"]]
    content = json.loads((digits / "annotations" / f"instances_{split}.json").read_text())
    coco_ids = {c["id"]: t["id"] for c, t in zip(content["categories"], things, strict=False)}
    for annotation in content["annotations"]:
        annotation["category_id"] = coco_ids[annotation["category_id"]]
    content["categories"] = [{"id": thing["id"], "name": thing["name"]} for thing in things]
    (coco / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))
    (digits / split).rename(coco / f"{split}2017")
