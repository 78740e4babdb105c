"""The far_cue dataset: what a pixel is can be read off a small cue far away alone.

A noisy image, 64x64, holds one grey panel (12x12) and one cue (8x8) of one of four colours,
at least 20 pixels apart. Pixels of the panel have the class that the cue's colour names; all else,
the cue too, is ground. In the variant ``cross`` the cue lies in the panel's rows or columns, in the
variant ``any`` anywhere. A network that does not see 20 pixels far can only guess.

Both lie on a grid of 4 pixels, so that a network of stride 4 can draw their edges. Under
``$DETECTRON2_DATASETS`` (default ``./datasets``), written on first use:

    far_cue/{cross,any}_{train,val}/0001.png           RGB images
    far_cue/sem_seg_{cross,any}_{train,val}/0001.png   0 the ground, 1..4 panels

Registered are ``far_cue_{cross,any}_{train,val}``.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import load_sem_seg
from tqdm import tqdm

from ccsa.data.synthetic.storage import datasets_root, ensure_written, write_stamp
from ccsa.utils.images import write_image

VERSION = 1  # of what is written; another one on disk is written anew
COUNTS = {"train": 2000, "val": 500}
SEED = 2020
VARIANTS = ("cross", "any")
FOLDERS = {f"{kind}{v}_{split}" for kind in ("", "sem_seg_") for v in VARIANTS for split in COUNTS}

CELL = 4  # pixels; everything below is in cells of the grid
SIZE, PANEL, CUE = 16, 3, 2
GAP = 5  # free cells between panel and cue, at least, across or down

# RGB of the cues, and of the classes in drawings; around grey, each is as far from every other.
COLOURS = {
    "red": (230, 20, 20),
    "green": (20, 230, 20),
    "blue": (20, 20, 230),
    "white": (230, 230, 230),
}
CLASSES = ("ground", *(f"{name} cue" for name in COLOURS))
GROUND, PANEL_GREY, NOISE = 128.0, 60.0, 20.0  # brightness, and the noise's standard deviation


def draw_image(rng: np.random.Generator, variant: str) -> tuple[np.ndarray, np.ndarray]:
    """One RGB image (64, 64, 3) and its labels (64, 64), both uint8.

    Args:
        rng: where all randomness comes from.
        variant: cross or any.
    """
    panel, cue = place(rng, variant)
    label = int(rng.integers(len(COLOURS))) + 1
    image = np.full((SIZE * CELL, SIZE * CELL, 3), GROUND)
    labels = np.zeros(image.shape[:2], np.uint8)
    where = pixels(panel, PANEL)
    image[where] = PANEL_GREY
    labels[where] = label
    image[pixels(cue, CUE)] = list(COLOURS.values())[label - 1]
    image += rng.normal(0, NOISE, image.shape)
    return np.clip(image.round(), 0, 255).astype(np.uint8), labels


def place(rng: np.random.Generator, variant: str) -> tuple[np.ndarray, np.ndarray]:
    """Row and column, in cells, of the upper left corners of panel and cue: all pairs that are far
    enough apart are equally likely."""
    while True:
        panel = rng.integers(0, SIZE - PANEL + 1, 2)
        cue = rng.integers(0, SIZE - CUE + 1, 2)
        free = np.maximum(cue - (panel + PANEL), panel - (cue + CUE))  # below 0: they overlap
        if free.max() >= GAP and (variant == "any" or free.min() <= -CUE):
            return panel, cue


def pixels(corner: np.ndarray, side: int) -> tuple[slice, slice]:
    row, column = corner * CELL
    return np.s_[row : row + side * CELL, column : column + side * CELL]


def ensure_far_cue(root: Path | str | None = None) -> Path:
    """The folder ``root/far_cue``, written if it is not there, incomplete or of another version;
    see :func:`ccsa.data.synthetic.storage.ensure_written`."""
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
            for index in tqdm(range(1, count + 1), desc=f"drawing far_cue_{name}", unit="image"):
                image, labels = draw_image(rng, variant)
                write_image(images / f"{index:04d}.png", image)
                write_image(semantic / f"{index:04d}.png", labels)
    write_stamp(folder, VERSION, seed, counts)


def register_far_cue(root: Path) -> None:
    """Register both splits of both variants. They lie in ``root/far_cue``, written there when first
    loaded; the metadata is there at once."""
    folder = root / "far_cue"

    def load(name: str) -> list[dict]:
        ensure_far_cue(root)
        return load_sem_seg(str(folder / f"sem_seg_{name}"), str(folder / name), image_ext="png")

    for name in (f"{variant}_{split}" for variant in VARIANTS for split in COUNTS):
        register_split(folder, name, lambda name=name: load(name))


def register_split(folder: Path, name: str, load: Callable[[], list[dict]]) -> None:
    """Register ``name`` of the dataset in ``folder``, whose classes are panels by their cue's
    colour."""
    full_name = f"{folder.name}_{name}"
    DatasetCatalog.register(full_name, load)
    MetadataCatalog.get(full_name).set(
        evaluator_type="sem_seg",
        image_root=str(folder / name),
        sem_seg_root=str(folder / f"sem_seg_{name}"),
        ignore_label=255,
        stuff_classes=list(CLASSES),
        stuff_colors=[[150, 150, 150], *(list(colour) for colour in COLOURS.values())],
        built_in=True,
    )


register_far_cue(datasets_root())
