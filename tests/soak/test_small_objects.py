"""Tiles find small objects that resizing loses: the comparison of docs/RESULTS.md, on images of
half the size (about ten minutes on two cores)."""

import json

from support.run_tools import train

from ccsa.data.synthetic.small_objects import write_small_objects


def box_ap(folder):
    results = json.loads((folder / "results.json").read_text())["results"]
    return results["bbox"]["AP"] or 0.0  # None if nothing was detected


def test_tiles_find_objects_that_resizing_loses(root, tmp_path):
    write_small_objects(tmp_path / "datasets" / "small_objects", {"train": 8, "val": 3}, size=1500)
    found = {}
    for name, size in (("mask_rcnn", 0), ("mask_rcnn_resized", 400)):
        words = ["OUTPUT_DIR", name, "INPUT.MIN_SIZE_TEST", size]
        words += ["INPUT.MIN_SIZE_TRAIN", f"[{size}]"] if size else []
        train(root, tmp_path, *words, config=f"configs/small_objects/{name}.yaml")
        found[name] = box_ap(tmp_path / name)
    assert found["mask_rcnn"] >= 20, found
    assert found["mask_rcnn"] >= 2 * found["mask_rcnn_resized"], found
