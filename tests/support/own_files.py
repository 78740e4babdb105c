"""Small images and COCO files of annotation programs, and what was read from them."""

import json
from pathlib import Path

from PIL import Image

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]


def save_image(file: Path, value: int = 0, size: tuple[int, int] = (64, 48)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, 100, 50)).save(file)
    return file


def write_json(file: Path, content: object) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


def coco(*names: str, categories: list | None = None, **fields: object) -> dict:
    """Return COCO JSON with one square in each image; ``fields`` replace those of annotations."""
    return {
        "images": [
            {"id": i, "file_name": name, "width": 64, "height": 48} for i, name in enumerate(names)
        ],
        "annotations": [
            {
                **{"id": i + 1, "image_id": i, "category_id": 1, "bbox": [10, 10, 20, 20]},
                **{"segmentation": [SQUARE], "area": 400, "iscrowd": 0},
                **fields,
            }
            for i in range(len(names))
        ],
        "categories": categories or [{"id": 1, "name": "cell"}],
    }


def kinds(data):
    return data.problems.kinds()


def files(data, split="train"):
    return [Path(record["file_name"]).name for record in data.splits[split]]


def boxes(data, split="train"):
    return [a["bbox"] for record in data.splits[split] for a in record["annotations"]]


def write_images(folder, *names):
    for number, name in enumerate(names):
        save_image(folder / name, number)
