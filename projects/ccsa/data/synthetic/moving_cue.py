"""The moving_cue dataset: what a pixel is can be read off earlier frames alone.

A clip of five noisy frames, 32x32, all with the same grey panel, 8x8. In the first four a cue, as
large and of one of four colours, crosses the picture along the panel's rows or columns, its own
width a frame; in the last frame, which is labelled, it is gone. Pixels of the panel have the class
that the cue's colour names; all else is ground. A network that sees the last frame alone can only
guess, however far it sees in it.

Under ``$DETECTRON2_DATASETS`` (default ``./datasets``), written on first use:

    moving_cue/{train,val}/0001_1.png ... 0001_5.png   RGB frames of clip 1
    moving_cue/sem_seg_{train,val}/0001_5.png          0 the ground, 1..4 panels

Registered are ``moving_cue_{train,val}``, for video models.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from ccsa.data.synthetic.far_cue import (
    CELL,
    COLOURS,
    GROUND,
    NOISE,
    PANEL_GREY,
    pixels,
    register_split,
)
from ccsa.data.synthetic.storage import datasets_root, ensure_written, write_stamp
from ccsa.utils.images import write_image

VERSION = 1  # of what is written; another one on disk is written anew
COUNTS = {"train": 1000, "val": 250}
SEED = 2020
FRAMES = 5
SIZE, PANEL = 8, 2  # in cells, as in far_cue; the cue is as large as the panel
FOLDERS = {f"{kind}{split}" for kind in ("", "sem_seg_") for split in COUNTS}


def draw_clip(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Frames (5, 32, 32, 3) RGB and the last one's labels (32, 32), both uint8."""
    label = int(rng.integers(len(COLOURS))) + 1
    panel = rng.integers(0, SIZE - PANEL + 1, 2)
    clip = np.full((FRAMES, SIZE * CELL, SIZE * CELL, 3), GROUND)
    labels = np.zeros(clip.shape[1:3], np.uint8)
    labels[pixels(panel, PANEL)] = label
    clip[:, labels > 0] = PANEL_GREY
    for frame, cue in zip(clip, _path(rng, panel), strict=False):
        frame[pixels(cue, PANEL)] = list(COLOURS.values())[label - 1]
    clip += rng.normal(0, NOISE, clip.shape)
    return np.clip(clip.round(), 0, 255).astype(np.uint8), labels


def _path(rng: np.random.Generator, panel: np.ndarray) -> np.ndarray:
    """(4, 2) corners of the cue, in cells, in all frames but the last."""
    axis = rng.integers(2)  # along which it moves
    path = np.tile(panel, (FRAMES - 1, 1))
    path[:, axis] = np.arange(0, SIZE, PANEL)[:: rng.choice([-1, 1])]
    return path


def ensure_moving_cue(root: Path | str | None = None) -> Path:
    """The folder ``root/moving_cue``, written if it is not there, incomplete or of another version;
    see :func:`ccsa.data.synthetic.storage.ensure_written`."""
    return ensure_written("moving_cue", VERSION, FOLDERS, write_moving_cue, root)


def write_moving_cue(folder: Path, counts: dict[str, int] = COUNTS, seed: int = SEED) -> None:
    """Write the whole dataset into ``folder``, which must not exist."""
    for split, count in counts.items():
        images, semantic = folder / split, folder / f"sem_seg_{split}"
        images.mkdir(parents=True)
        semantic.mkdir()
        rng = np.random.default_rng([seed, split == "val"])
        for index in tqdm(range(1, count + 1), desc=f"drawing moving_cue_{split}", unit="clip"):
            clip, labels = draw_clip(rng)
            for number, frame in enumerate(clip, 1):
                write_image(images / f"{index:04d}_{number}.png", frame)
            write_image(semantic / f"{index:04d}_{FRAMES}.png", labels)
    write_stamp(folder, VERSION, seed, counts)


def register_moving_cue(root: Path) -> None:
    """Register both splits. They lie in ``root/moving_cue``, written there when first loaded; the
    metadata is there at once."""
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
        register_split(folder, split, lambda split=split: load(split))


register_moving_cue(datasets_root())
