"""The time and memory of COCO's metrics: pycocotools next to the evaluators of the extra fast-eval.

    python -m benchmarks.evaluation

Each evaluation is a process of its own, which reads the same files and is timed without reading
them. Its memory is the peak beyond the ground truth and the detections.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pycocotools.mask as coco_mask

from benchmarks.report import Section
from ccsa.evaluation.coco_metrics import BOUNDARY, FAST, REFERENCE, evaluate_coco, installed
from ccsa.utils.memory import peak_memory

IMAGES, OBJECTS, CLASSES = 5000, 36_000, 80  # those of COCO val2017
HEIGHT, WIDTH = 480, 640
CASES = (
    ("bbox", REFERENCE),
    ("bbox", FAST),
    ("bbox", BOUNDARY),
    ("segm", REFERENCE),
    ("segm", FAST),
    ("segm", BOUNDARY),
    ("boundary", BOUNDARY),
)


class Measurement(NamedTuple):
    """One evaluation: its time, the peak of memory beyond the data, and the AP in percent."""

    seconds: float
    bytes: int
    ap: float


def make_dataset(images: int = IMAGES, objects: int = OBJECTS, seed: int = 0) -> tuple[dict, list]:
    """Return irregular objects as polygons, one in a hundred of them a crowd region, and for each
    object a detection that is some pixels off and in one of five cases has another class."""
    rng = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    results = []
    for number in range(1, objects + 1):
        center = rng.uniform((30, 30), (WIDTH - 30, HEIGHT - 30))
        radii = np.exp(rng.uniform(1.5, 5)) * (1 + 0.2 * rng.standard_normal(24))
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        outline = center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
        found = outline + rng.normal(0, 2, 2) + rng.normal(0, 1, outline.shape)
        polygons = [p.clip(0, (WIDTH - 1, HEIGHT - 1)).ravel().tolist() for p in (outline, found)]
        mask, detected = (
            coco_mask.merge(coco_mask.frPyObjects([p], HEIGHT, WIDTH)) for p in polygons
        )
        entry = {
            "image_id": int(rng.integers(images)) + 1,
            "category_id": int(rng.integers(CLASSES)) + 1,
            "bbox": coco_mask.toBbox(mask).tolist(),
        }
        crowd = rng.random() < 0.01
        text = {"size": [HEIGHT, WIDTH], "counts": mask["counts"].decode()}
        annotations.append(
            {
                **entry,
                "id": number,
                "iscrowd": int(crowd),
                "area": float(coco_mask.area(mask)),
                "segmentation": text if crowd else [polygons[0]],
            }
        )
        other = int(rng.integers(CLASSES)) + 1
        result = {
            "bbox": coco_mask.toBbox(detected).tolist(),
            "score": float(rng.random()),
            "segmentation": {**text, "counts": detected["counts"].decode()},
        }
        category = other if rng.random() < 0.2 else entry["category_id"]
        results.append({**entry, **result, "category_id": category})
    truth = {
        "info": {},
        "images": [{"id": i, "height": HEIGHT, "width": WIDTH} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": i, "name": str(i)} for i in range(1, CLASSES + 1)],
    }
    return truth, results


def measure_here(folder: Path, task: str, evaluator: str) -> Measurement:
    """Evaluate the files of :func:`write_dataset` in this process."""
    truth = json.loads((folder / "truth.json").read_text())
    results = json.loads((folder / "results.json").read_text())
    before = peak_memory() or 0
    started = time.perf_counter()
    done = evaluate_coco(truth, results, task, evaluator=evaluator)
    seconds = time.perf_counter() - started
    return Measurement(seconds, (peak_memory() or 0) - before, done.metrics()["AP"])


def write_dataset(folder: Path, images: int = IMAGES, objects: int = OBJECTS) -> None:
    """Write truth.json and results.json to a folder."""
    for name, content in zip(("truth", "results"), make_dataset(images, objects), strict=True):
        (folder / f"{name}.json").write_text(json.dumps(content))


def coco_rates(
    images: int = IMAGES, objects: int = OBJECTS, log: Callable[[str], None] = lambda text: None
) -> Section:
    """Measure every evaluator that is installed, one after the other."""
    rows, records = [], []
    with tempfile.TemporaryDirectory() as folder:
        write_dataset(Path(folder), images, objects)
        for task, evaluator in CASES:
            if not installed(evaluator):
                continue
            log(f"{task} by {evaluator}")
            command = [sys.executable, "-m", "benchmarks.evaluation", "--case", folder, task]
            done = subprocess.run([*command, evaluator], capture_output=True, text=True, check=True)
            found = Measurement(*json.loads(done.stdout))
            memory = f"{found.bytes / 2**20:,.0f} MiB"
            rows.append([task, evaluator, f"{found.seconds:.1f}", memory, f"{found.ap:.6f}"])
            records.append({"task": task, "evaluator": evaluator, **found._asdict()})
    notes = [
        f"{images:,} images of {WIDTH} x {HEIGHT} pixels with {objects:,} objects and as many "
        f"detections, {CLASSES} classes",
        "memory: the peak beyond the ground truth and the detections",
        "bbox and segm are computed in every evaluation, boundary with `TEST.BOUNDARY_AP True`",
    ]
    headers = ["task", "evaluator", "seconds", "memory", "AP"]
    return Section("evaluation", "COCO's metrics", headers, rows, notes, records)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--objects", type=int, default=OBJECTS)
    parser.add_argument("--case", nargs=3, metavar=("FOLDER", "TASK", "EVALUATOR"), help="one")
    args = parser.parse_args()
    if args.case:
        folder, task, evaluator = args.case
        print(json.dumps(measure_here(Path(folder), task, evaluator)))
        return
    print(coco_rates(args.images, args.objects).markdown())


if __name__ == "__main__":
    main()
