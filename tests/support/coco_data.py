"""Small COCO datasets with detections near their objects, for tests of metrics."""

import numpy as np
import pycocotools.mask as coco_mask

SIZE = 160


def blob(rng, center, radius):
    """Return the polygon [x, y, ...] of an irregular blob."""
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    radii = radius * rng.uniform(0.7, 1.3, 16)
    points = center + radii[:, None] * np.stack([np.cos(angles), np.sin(angles)], 1)
    return points.clip(0, SIZE - 1)


def rle(points):
    mask = coco_mask.merge(coco_mask.frPyObjects([points.ravel().tolist()], SIZE, SIZE))
    return {"size": [SIZE, SIZE], "counts": mask["counts"].decode()}


def annotation(points, **fields):
    mask = rle(points)
    return {
        "bbox": coco_mask.toBbox(mask).tolist(),
        "area": float(coco_mask.area(mask)),
        "segmentation": [points.ravel().tolist()],
        "iscrowd": 0,
        **fields,
    }


def dataset(seed=0, images=12, most=6, classes=4, crowds=0.0, radii=(3, 70), detections=1.2):
    """Return a dataset and detections near its objects, of which some have another class, and some
    the same score. One image in four has no object, one in five no detection."""
    rng = np.random.default_rng(seed)
    annotations, results = [], []
    for image in range(1, images + 1):
        for _ in range(0 if image % 4 == 0 else int(rng.integers(1, most + 1))):
            center, radius = rng.uniform(20, SIZE - 20, 2), rng.uniform(*radii)
            points, crowd = blob(rng, center, radius), int(rng.random() < crowds)
            kind = int(rng.integers(1, classes))  # the last class has no objects
            entry = annotation(points, id=len(annotations) + 1, image_id=image, category_id=kind)
            if crowd:
                entry |= {"iscrowd": 1, "segmentation": rle(points)}
            annotations.append(entry)
            for _ in range(0 if image % 5 == 0 else rng.poisson(detections)):
                moved = (points + rng.normal(0, radius / 12, points.shape)).clip(0, SIZE - 1)
                found = kind if rng.random() < 0.8 else int(rng.integers(1, classes + 1))
                mask = rle(moved)
                results.append(
                    {
                        "image_id": image,
                        "category_id": found,
                        "bbox": coco_mask.toBbox(mask).tolist(),
                        "score": round(float(rng.random()), 1 if rng.random() < 0.5 else 6),
                        "segmentation": mask,
                    }
                )
    truth = {
        "info": {},
        "images": [{"id": i, "width": SIZE, "height": SIZE} for i in range(1, images + 1)],
        "annotations": annotations,
        "categories": [{"id": i, "name": f"class {i}"} for i in range(1, classes + 1)],
    }
    return truth, results


CASES = {
    "ordinary": {},
    "crowds": {"seed": 1, "crowds": 0.4},
    "many detections": {"seed": 2, "images": 3, "most": 20, "detections": 20, "radii": (3, 20)},
    "small objects": {"seed": 3, "radii": (1, 6)},
    "large objects": {"seed": 4, "radii": (60, 90), "most": 3},
    "one class": {"seed": 5, "classes": 2},
    "one image": {"seed": 6, "images": 1, "most": 30},
}
