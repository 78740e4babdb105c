"""Folders of runs of tiny models with random weights, as tools/train_net.py would leave them."""

import argparse
from pathlib import Path

import torch
import yaml
from detectron2.modeling import build_model

from ccsa.engine import setup_cfg


def write_run(folder: Path, config: dict, classes: dict | None = None, seed: int = 0) -> Path:
    """Write a run with a configuration and random weights, and return its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    torch.manual_seed(seed)
    model = build_model(setup_cfg(argparse.Namespace(config_file=str(file), opts=[])))
    entries = {"classes": classes} if classes else {}
    torch.save({"model": model.state_dict(), **entries}, folder / "model_final.pth")
    return folder


SEMANTIC = {
    "MODEL": {
        "META_ARCHITECTURE": "DenseSegmentor",
        "DEVICE": "cpu",
        "WEIGHTS": "",
        "BACKBONE": {"NAME": "PlainBackbone"},
        "PLAIN": {"CHANNELS": [8], "STRIDES": [4]},
        "SEM_SEG_HEAD": {
            "NAME": "CCNetHead",
            "IN_FEATURES": ["conv1"],
            "CONVS_DIM": 8,
            "NORM": "BN",
            "NUM_CLASSES": 13,
            "AUX": {"WEIGHT": 0.0},
        },
    },
    "DATASETS": {"TRAIN": ["digits_train_sem_seg"], "TEST": ["digits_val_sem_seg"]},
    "INPUT": {"MIN_SIZE_TEST": 0},
}
VIDEO = {
    "MODEL": {
        **SEMANTIC["MODEL"],
        "META_ARCHITECTURE": "VideoSemanticSegmentor",
        "SEM_SEG_HEAD": {
            **SEMANTIC["MODEL"]["SEM_SEG_HEAD"],
            "NAME": "VideoCCNetHead",
            "NUM_CLASSES": 5,
        },
    },
    "DATASETS": {"TEST": ["moving_cue_val"]},
    "INPUT": {"MIN_SIZE_TEST": 0, "CLIP": {"FRAMES": 3}},
}


def activate_blocks(folder: Path, gamma: float, scale: float = 0.1) -> None:
    """Set the gamma of the blocks in the weights of a run, and multiply those of query and key, so
    that attention is neither uniform nor on one position."""
    state = torch.load(folder / "model_final.pth")
    for name, value in state["model"].items():
        if name.endswith("gamma"):
            value.fill_(gamma)
        elif "query_conv.weight" in name or "key_conv.weight" in name:
            value.mul_(scale)
    torch.save(state, folder / "model_final.pth")
