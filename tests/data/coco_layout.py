"""COCO's folder layout, filled with digit scenes, so that Detectron2's own ``coco_2017_train`` and
``coco_2017_val`` load without a download.

    coco/{train,val}2017/000001.jpg
    coco/annotations/instances_{train,val}2017.json    COCO's 80 categories, digits as ten of them
"""

import json
import tempfile
from pathlib import Path

from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from ccsa.data.digits import write_digits

CATEGORIES = [c for c in COCO_CATEGORIES if c["isthing"]]
DIGIT_IDS = [CATEGORIES[8 * digit]["id"] for digit in range(10)]  # spread, gaps of COCO's included


def write_coco_layout(root: Path, train: int = 8, val: int = 4) -> Path:
    """Write ``root/coco``, which must not exist, with that many scenes, and return it."""
    coco = Path(root) / "coco"
    (coco / "annotations").mkdir(parents=True)
    categories = [{"id": c["id"], "name": c["name"], "supercategory": "thing"} for c in CATEGORIES]
    with tempfile.TemporaryDirectory(dir=coco) as folder:
        digits = Path(folder) / "digits"
        write_digits(digits, {"train": train, "val": val})
        for split in ("train", "val"):
            (digits / split).rename(coco / f"{split}2017")
            content = json.loads((digits / "annotations" / f"instances_{split}.json").read_text())
            for annotation in content["annotations"]:
                annotation["category_id"] = DIGIT_IDS[annotation["category_id"] - 1]
            content["categories"] = categories
            file = coco / "annotations" / f"instances_{split}2017.json"
            file.write_text(json.dumps(content))
    return coco
