"""The moving_cue dataset: the class of a pixel depends only on earlier frames.

A clip has five noisy frames of 32x32 pixels with the same gray panel (8x8). In the first four
frames a cue of the same size and of one of four colors crosses the image along the rows or columns
of the panel, by its own width per frame. In the last frame, which is labeled, the cue is gone. The
color of the cue determines the class of the panel's pixels; everything else is ground. A network
that sees only the last frame can only guess, whatever its receptive field.

The files are stored under ``$DETECTRON2_DATASETS`` (default ``./datasets``) and written on first
use:

    moving_cue/{train,val}/0001_1.png ... 0001_5.png   RGB frames of clip 1
    moving_cue/sem_seg_{train,val}/0001_5.png          0 ground, 1..4 panels

The registered names are ``moving_cue_{train,val}``, for video models.
"""

from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ccsa.data.paths import datasets_root
from ccsa.data.synthetic.far_cue import (
    CELL,
    COLORS,
    GROUND,
    NOISE,
    PANEL_GRAY,
    pixels,
    register_split,
)
from ccsa.data.synthetic.storage import ensure_written, write_version
from ccsa.utils.images import write_image

VERSION = 1  # of the files; if another version is on disk, it is replaced
COUNTS = {"train": 1000, "val": 250}
SEED = 2020
FRAMES = 5
SIZE, PANEL = 8, 2  # in cells, as in far_cue; the cue is as large as the panel
FOLDERS = {f"{kind}{split}" for kind in ("", "sem_seg_") for split in COUNTS}


def draw_clip(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return RGB frames (5, 32, 32, 3) and the labels of the last one (32, 32), both uint8."""
    label = int(rng.integers(len(COLORS))) + 1
    panel = rng.integers(0, SIZE - PANEL + 1, 2)
    clip = np.full((FRAMES, SIZE * CELL, SIZE * CELL, 3), GROUND)
    labels = np.zeros(clip.shape[1:3], np.uint8)
    labels[pixels(panel, PANEL)] = label
    clip[:, labels > 0] = PANEL_GRAY
    for frame, cue in zip(clip, _draw_path(rng, panel), strict=False):
        frame[pixels(cue, PANEL)] = list(COLORS.values())[label - 1]
    clip += rng.normal(0, NOISE, clip.shape)
    return np.clip(clip.round(), 0, 255).astype(np.uint8), labels


def _draw_path(rng: np.random.Generator, panel: np.ndarray) -> np.ndarray:
    """Return the corners (4, 2) of the cue, in cells, in all frames but the last."""
    axis = rng.integers(2)  # along which it moves
    path = np.tile(panel, (FRAMES - 1, 1))
    path[:, axis] = np.arange(0, SIZE, PANEL)[:: rng.choice([-1, 1])]
    return path


def ensure_moving_cue(root: Path | str | None = None) -> Path:
    """Return the folder ``root/moving_cue``; write it if it is missing, incomplete or of another
    version, see :func:`ccsa.data.synthetic.storage.ensure_written`."""
    return ensure_written("moving_cue", VERSION, FOLDERS, write_moving_cue, root)


def write_moving_cue(folder: Path, counts: dict[str, int] = COUNTS, seed: int = SEED) -> None:
    """Write the whole dataset into ``folder``, which must not exist."""
    for split, count in counts.items():
        images, semantic = folder / split, folder / f"sem_seg_{split}"
        images.mkdir(parents=True)
        semantic.mkdir()
        rng = np.random.default_rng([seed, split == "val"])
        for index in tqdm(
            range(1, count + 1), desc=f"generating dataset moving_cue_{split}", unit="clip"
        ):
            clip, labels = draw_clip(rng)
            for number, frame in enumerate(clip, 1):
                write_image(images / f"{index:04d}_{number}.png", frame)
            write_image(semantic / f"{index:04d}_{FRAMES}.png", labels)
    write_version(folder, VERSION, seed, counts)


def register_moving_cue(root: Path) -> None:
    """Register both splits, stored in ``root/moving_cue``.

    The files are written when a split is first loaded; the metadata is available at once.
    """
    folder = root / "moving_cue"

    def load(split: str) -> list[dict]:
        ensure_moving_cue(root)
        return [
            {
                "file_name": str(folder / split / labels.name),
                "sem_seg_file_name": str(labels),
                "frames_root": str(folder / split),
            }
            for labels in sorted((folder / f"sem_seg_{split}").glob("*.png"))
        ]

    for split in COUNTS:
        register_split(folder, split, partial(load, split))


register_moving_cue(datasets_root())
