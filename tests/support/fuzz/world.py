"""What the mutations start from: small datasets in every format, and finished runs on them."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import torch.utils.tensorboard  # noqa: F401  imported once, not in every forked process
import yaml

from support import own_scenes
from support.forked import OK, run_forked

DATA = ("coco_mixed", "yolo", "labelme", "instance_labels", "coco_panoptic", "class_masks")
SIZES = dict.fromkeys(("MIN_SIZE_TEST", "MAX_SIZE_TEST", "MAX_SIZE_TRAIN"), 64)
SHORT = {
    "INPUT": {**SIZES, "MIN_SIZE_TRAIN": [64]},
    "SOLVER": {"IMS_PER_BATCH": 2, "MAX_ITER": 1, "CHECKPOINT_PERIOD": 9},
    "TEST": {"EVAL_PERIOD": 0, "REPORT": False},
}
TINY = {
    "semantic": (
        "ccnet",
        {
            "RESNETS": {"RES2_OUT_CHANNELS": 8, "STEM_OUT_CHANNELS": 8},
            "SEM_SEG_HEAD": {"CONVS_DIM": 8},
        },
    ),
    "instance": ("mask_rcnn", {}),
    "panoptic": ("panoptic_fpn", {}),
}
KINDS = {"class_masks": "semantic", "coco_panoptic": "panoptic"}  # the others are "instance"


class World(NamedTuple):
    """Folders that mutations copy from.

    Attributes:
        root: of the repository.
        folder: contains ``data/<format>``, ``<task>.yaml`` and the runs ``runs/<task>``.
    """

    root: Path
    folder: Path

    def data(self, name: str) -> Path:
        return self.folder / "data" / name

    def config(self, name: str) -> Path:
        """Return the configuration of the model for a dataset."""
        return self.folder / f"{KINDS.get(name, 'instance')}.yaml"

    def run(self, name: str) -> Path:
        """Return the run on a dataset: "class_masks", "coco_mixed" or "coco_panoptic"."""
        return self.folder / "runs" / KINDS.get(name, "instance")


def tool(name: str) -> ModuleType:
    """Return a module of the folder tools."""
    return importlib.import_module(f"tools.{name}")


def make_world(root: Path, folder: Path) -> World:
    """Write the datasets and train one iteration on each kind."""
    world = World(root, folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in DATA:
        write = (
            own_scenes.DIALECTS[name][0]
            if name in own_scenes.DIALECTS
            else own_scenes.write_class_masks
        )
        write(world.data(name), own_scenes.make_scenes(8))
    for task, (base, model) in TINY.items():
        content = {"_BASE_": str(root / f"configs/own/{base}.yaml"), **SHORT}
        content["MODEL"] = {"DEVICE": "cpu", **model}
        (folder / f"{task}.yaml").write_text(yaml.safe_dump(content))
    for name in ("class_masks", "coco_mixed", "coco_panoptic"):
        words = ["--config-file", world.config(name), "--data", world.data(name)]
        outcome = run_forked(tool("train_net"), [*words, "OUTPUT_DIR", world.run(name)], folder)
        assert outcome.kind == OK, outcome.text
    return world
