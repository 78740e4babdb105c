"""The metrics of a run, of all classes together and of each."""

from collections import Counter
from typing import Any

from ccsa.report.run_files import RunFiles

# Metrics that are shown of each class, by task, with their titles.
_OF_CLASSES = {
    "segm": {"AP": "mask AP"},
    "bbox": {"AP": "box AP"},
    "boundary": {"AP": "boundary AP"},
    "sem_seg": {"IoU": "IoU", "BoundaryIoU": "boundary IoU", "ACC": "accuracy"},
    "panoptic_seg": {"PQ": "PQ", "SQ": "SQ", "RQ": "RQ"},
}


def overall_metrics(files: RunFiles) -> dict[str, dict[str, float]]:
    """Return the metrics of each task without those of single classes, as in results.json."""
    kinds = ("min(IoU, B-Iou)", *(name for columns in _OF_CLASSES.values() for name in columns))
    starts = tuple(f"{name}-" for name in kinds)
    return {
        task: {key: value for key, value in values.items() if not key.startswith(starts)}
        for task, values in files.run.results.items()
    }


def class_metrics(files: RunFiles) -> list[dict[str, Any]]:
    """Return a table for each task.

    Returns:
        ``title`` of what is counted, ``columns``, and ``rows`` with ``name``, ``count`` (None if it
        is not known) and ``values``.
    """
    tables = []
    for kinds in (("segm", "bbox", "boundary"), ("sem_seg",), ("panoptic_seg",)):
        columns = [
            (task, metric, title)
            for task in kinds
            for metric, title in _OF_CLASSES[task].items()
            if any(key.startswith(f"{metric}-") for key in files.run.results.get(task, {}))
        ]
        if not columns:
            continue
        first = columns[0]
        start = f"{first[1]}-"
        names = [k[len(start) :] for k in files.run.results[first[0]] if k.startswith(start)]
        unit, counts = _counts(files, kinds[0])
        tables.append(
            {
                "unit": unit,
                "columns": [title for _, _, title in columns],
                "rows": [
                    {
                        "name": name,
                        "count": counts.get(name),
                        "values": [
                            files.run.results[task].get(f"{metric}-{name}")
                            for task, metric, _ in columns
                        ],
                    }
                    for name in names
                ],
            }
        )
    return tables


def _counts(files: RunFiles, task: str) -> tuple[str, dict[str, int]]:
    """Return what is counted, and how often each class occurs in the ground truth."""
    if task == "sem_seg":
        counts = files.semantic
        return "pixels", dict(zip(counts.classes, counts.pixels[:, 1].sum(0).tolist(), strict=True))
    if task == "panoptic_seg":
        found: Counter[int] = Counter()
        for image in files.panoptic.images.values():
            for number, (_, true, _, missed) in image.items():
                found[number] += int(true + missed)
        return "segments", {name: found[n] for n, name in files.panoptic.classes.items()}
    objects = [a["category_id"] for a in files.detections.truth["annotations"] if not a["iscrowd"]]
    seen = Counter(objects)
    return "objects", {name: seen[number] for number, name in files.categories.items()}
