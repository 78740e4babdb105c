"""Where datasets are stored, and the listing of their files."""

import os
from pathlib import Path


def datasets_root() -> Path:
    """Return the folder of all datasets: ``$DETECTRON2_DATASETS``, by default ``./datasets``."""
    return Path(os.getenv("DETECTRON2_DATASETS", "datasets")).expanduser()


def list_files(folder: Path, pattern: str) -> list[Path]:
    """Return the files in ``folder`` that match a glob pattern, sorted.

    Hidden files are left out: some archive programs leave ``._name`` next to every file. The list
    is empty if the folder does not exist.
    """
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
