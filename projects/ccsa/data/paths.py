"""Where datasets are stored, and the listing of their files."""

import argparse
import os
from pathlib import Path


def datasets_root() -> Path:
    """Return the folder of all datasets: ``$DETECTRON2_DATASETS``, by default ``./datasets``."""
    return Path(os.getenv("DETECTRON2_DATASETS", "datasets")).expanduser()


def add_root_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--root FOLDER``, a Path, by default that of :func:`datasets_root`."""
    parser.add_argument(
        "--root",
        type=Path,
        default=datasets_root(),
        metavar="FOLDER",
        help="the folder of all datasets; default: $DETECTRON2_DATASETS, otherwise ./datasets",
    )


def list_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files in ``folder`` that match a glob pattern, sorted.

    Hidden files are left out: some archive programs leave ``._name`` next to every file. The list
    is empty if the folder does not exist.
    """
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
