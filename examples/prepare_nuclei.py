#!/usr/bin/env python
"""Write a folder of microscopy images with labeled nuclei: the example of docs/OWN_DATA.md.

    python examples/prepare_nuclei.py datasets/nuclei

The image is one fluorescence micrograph of 512 x 512 pixels with 125 labeled nuclei. It comes from
the wheel `stardist==0.9.2` on PyPI (BSD-3-Clause), of which nothing else is used; pip checks its
hash. The wheel names the 2018 Data Science Bowl as its source (Caicedo et al., Nature Methods 16,
2019), whose images are in the public domain (CC0, image set BBBC038v1 of the Broad Bioimage
Benchmark Collection).

The left part is cut into overlapping tiles for training, each turned by 0, 90, 180 or 270 degrees;
a nucleus at the edge of a tile is annotated as far as it is in the tile. The right part is one
image for validation. No pixel is in both parts. The border between them is the column that cuts
the fewest nuclei: a single one, of which 448 of 454 pixels belong to the right part. So all 36
nuclei of the validation image are whole, except where the micrograph itself ends.

    nuclei/train/images/*.tif       nuclei/train/masks/*.tif
    nuclei/val/images/right.tif     nuclei/val/masks/right.tif
    nuclei/classes.txt

A mask has one number per nucleus and 0 for the background; classes.txt names the class.
"""

import argparse
import itertools
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

WHEEL = "stardist==0.9.2"
SHA256 = "2316c0feb7bd5621e7a277cb3868df475c338943c591925c420ee3622c42f023"
# One build for every machine, so that the bytes are the same everywhere.
PLATFORM = (
    *("--only-binary=:all:", "--implementation", "cp", "--abi", "cp311"),
    *("--python-version", "3.11", "--platform", "manylinux_2_28_x86_64"),
)
BORDER = 333  # the first column of the validation part
TILE = 128  # rows and columns of a training tile
STEP = 32  # the distance between two tiles, at most


def fetch(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Download the wheel into ``folder``; return image and labels, (512, 512) uint16."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"{WHEEL} --hash=sha256:{SHA256}\n")
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q"]
    command += ["--no-deps", "--require-hashes", *PLATFORM, "-r", str(requirement)]
    if subprocess.run([*command, "-d", str(folder)]).returncode:
        sys.exit(f"error: pip cannot download {WHEEL}; its messages above say why")
    arrays = []
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        for name in ("img2d", "mask2d"):
            with wheel.open(f"stardist/data/images/{name}.tif") as file, Image.open(file) as image:
                arrays.append(np.array(image))
    return arrays[0], arrays[1]


def write_folder(folder: Path, image: np.ndarray, labels: np.ndarray) -> None:
    """Write the tiles of the left part and the whole right part into ``folder``."""
    folder.mkdir()
    (folder / "classes.txt").write_text("nucleus\n")
    for kind, values in (("images", image), ("masks", labels)):
        train, val = (folder / split / kind for split in ("train", "val"))
        train.mkdir(parents=True)
        val.mkdir(parents=True)
        for number, (y, x) in enumerate(itertools.product(*map(starts, (len(values), BORDER)))):
            # Nuclei look the same in every direction.
            tile = np.rot90(values[y : y + TILE, x : x + TILE], number % 4)
            save(tile, train / f"{y:03d}_{x:03d}.tif")
        save(values[:, BORDER:], val / "right.tif")


def starts(length: int) -> list[int]:
    """Return where tiles start, so that they cover ``length`` pixels and are evenly spread."""
    last = length - TILE
    return [round(last * index / -(-last // STEP)) for index in range(-(-last // STEP) + 1)]


def save(values: np.ndarray, file: Path) -> None:
    Image.fromarray(np.ascontiguousarray(values)).save(file)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a new folder")
    folder = parser.parse_args().folder
    if folder.exists():
        print(f"{folder} exists already and is used as it is")
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
        image, labels = fetch(Path(temporary))
        new = Path(temporary) / "nuclei"
        write_folder(new, image, labels)
        shutil.move(new, folder)  # complete, or absent
    tiles = len(list((folder / "train" / "images").iterdir()))
    print(f"{folder}: {tiles} training tiles and one validation image")


if __name__ == "__main__":
    main()
