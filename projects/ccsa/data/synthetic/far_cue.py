"""The far_cue dataset: the class of a pixel depends only on a small cue far away.

A noisy image of 64x64 pixels contains one gray panel (12x12) and one cue (8x8) of one of four
colors, at least 20 pixels apart. The color of the cue determines the class of the panel's pixels;
everything else, including the cue, is ground. In the variant ``cross`` the cue is in the rows or
columns of the panel, in the variant ``any`` it is anywhere. A network whose receptive field does
not reach 20 pixels can only guess.

Panel and cue are aligned to a grid of 4 pixels, so that a network of stride 4 can reproduce their
edges. The files are stored under ``$DETECTRON2_DATASETS`` (default ``./datasets``) and written on
first use:

    far_cue/{cross,any}_{train,val}/0001.png           RGB images
    far_cue/sem_seg_{cross,any}_{train,val}/0001.png   0 ground, 1..4 panels

The registered names are ``far_cue_{cross,any}_{train,val}``.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import load_sem_seg
from tqdm import tqdm

from ccsa.data.paths import datasets_root
from ccsa.data.synthetic.storage import ensure_written, write_version
from ccsa.utils.images import write_image

VERSION = 1  # of the files; if another version is on disk, it is replaced
COUNTS = {"train": 2000, "val": 500}
SEED = 2020
VARIANTS = ("cross", "any")
FOLDERS = {f"{kind}{v}_{split}" for kind in ("", "sem_seg_") for v in VARIANTS for split in COUNTS}

CELL = 4  # pixels; sizes below are in cells of the grid
SIZE, PANEL, CUE = 16, 3, 2
GAP = 5  # minimal number of free cells between panel and cue, horizontally or vertically

# RGB of the cues, and of the classes in drawings: equal distances between all of them, around gray.
COLORS = {
    "red": (230, 20, 20),
    "green": (20, 230, 20),
    "blue": (20, 20, 230),
    "white": (230, 230, 230),
}
CLASSES = ("ground", *(f"{name} cue" for name in COLORS))
GROUND, PANEL_GRAY, NOISE = 128.0, 60.0, 20.0  # brightness, and the standard deviation of the noise


def draw_image(rng: np.random.Generator, variant: str) -> tuple[np.ndarray, np.ndarray]:
    """Return an RGB image (64, 64, 3) and its labels (64, 64), both uint8.

    Args:
        rng: the source of all randomness.
        variant: ``cross`` or ``any``.
    """
    panel, cue = draw_corners(rng, variant)
    label = int(rng.integers(len(COLORS))) + 1
    image = np.full((SIZE * CELL, SIZE * CELL, 3), GROUND)
    labels = np.zeros(image.shape[:2], np.uint8)
    where = pixels(panel, PANEL)
    image[where] = PANEL_GRAY
    labels[where] = label
    image[pixels(cue, CUE)] = list(COLORS.values())[label - 1]
    image += rng.normal(0, NOISE, image.shape)
    return np.clip(image.round(), 0, 255).astype(np.uint8), labels


def draw_corners(rng: np.random.Generator, variant: str) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column, in cells, of the upper left corners of panel and cue.

    All pairs that are far enough apart are equally likely.
    """
    while True:
        panel = rng.integers(0, SIZE - PANEL + 1, 2)
        cue = rng.integers(0, SIZE - CUE + 1, 2)
        free = np.maximum(cue - (panel + PANEL), panel - (cue + CUE))  # negative if they overlap
        if free.max() >= GAP and (variant == "any" or free.min() <= -CUE):
            return panel, cue


def pixels(corner: np.ndarray, side: int) -> tuple[slice, slice]:
    """Return the pixels of a square as slices; ``corner`` (2,) and ``side`` are in cells."""
    row, column = corner * CELL
    return np.s_[row : row + side * CELL, column : column + side * CELL]


def ensure_far_cue(root: Path | str | None = None) -> Path:
    """Return the folder ``root/far_cue``; write it if it is missing, incomplete or of another
    version, see :func:`ccsa.data.synthetic.storage.ensure_written`."""
    return ensure_written("far_cue", VERSION, FOLDERS, write_far_cue, root)


def write_far_cue(folder: Path, counts: dict[str, int] = COUNTS, seed: int = SEED) -> None:
    """Write the whole dataset into ``folder``, which must not exist."""
    for split, count in counts.items():
        for number, variant in enumerate(VARIANTS):
            name = f"{variant}_{split}"
            images, semantic = folder / name, folder / f"sem_seg_{name}"
            images.mkdir(parents=True)
            semantic.mkdir()
            rng = np.random.default_rng([seed, number, split == "val"])
            for index in tqdm(
                range(1, count + 1), desc=f"generating dataset far_cue_{name}", unit="image"
            ):
                image, labels = draw_image(rng, variant)
                write_image(images / f"{index:04d}.png", image)
                write_image(semantic / f"{index:04d}.png", labels)
    write_version(folder, VERSION, seed, counts)


def register_far_cue(root: Path) -> None:
    """Register both splits of both variants, stored in ``root/far_cue``.

    The files are written when a split is first loaded; the metadata is available at once.
    """
    folder = root / "far_cue"

    def load(name: str) -> list[dict]:
        ensure_far_cue(root)
        return load_sem_seg(str(folder / f"sem_seg_{name}"), str(folder / name), image_ext="png")

    for name in (f"{variant}_{split}" for variant in VARIANTS for split in COUNTS):
        register_split(folder, name, partial(load, name))


def register_split(folder: Path, name: str, load: Callable[[], list[dict]]) -> None:
    """Register the split ``name`` of the dataset in ``folder``. Its classes are the ground, and the
    panels by the color of their cue."""
    full_name = f"{folder.name}_{name}"
    DatasetCatalog.register(full_name, load)
    MetadataCatalog.get(full_name).set(
        evaluator_type="sem_seg",
        image_root=str(folder / name),
        sem_seg_root=str(folder / f"sem_seg_{name}"),
        ignore_label=255,
        stuff_classes=list(CLASSES),
        stuff_colors=[[150, 150, 150], *(list(color) for color in COLORS.values())],
        built_in=True,
    )


register_far_cue(datasets_root())
