"""Input and output files of the demo: images and videos that the user names, and where the drawing
of each one goes."""

import contextlib
import glob
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ccsa.errors import UserError
from ccsa.utils.files import real_path
from ccsa.visualization.videos import (
    VIDEO_SUFFIXES,
    WRITABLE_VIDEO_SUFFIXES,
    Video,
    default_video_suffix,
)

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".jp2", ".gif", ".avif"),
)
WRITABLE_SUFFIXES = IMAGE_SUFFIXES[:7]


def find_inputs(names: Sequence[str]) -> list[str]:
    """Return the image and video files that ``names`` refer to, in order and without duplicates.

    Args:
        names: files, folders, glob patterns and URLs of videos.

    Raises:
        UserError: some names match no file; the message lists all of them.
    """
    found: list[str] = []
    missing = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            known = IMAGE_SUFFIXES + VIDEO_SUFFIXES
            files = sorted(str(p) for p in path.iterdir() if p.suffix.lower() in known)
            missing += [] if files else [f"{name} (a folder with no images or videos)"]
        elif path.exists() or "://" in name:
            files = [name if "://" in name else str(path)]
        else:
            files = sorted(glob.glob(str(path), recursive=True))
            files = [f for f in files if Path(f).is_file()]
            missing += [] if files else [name]
        found += files
    if missing:
        raise UserError(
            f"no such input: {', '.join(missing)}; name images, folders, globs or videos"
        )
    return list(dict.fromkeys(found))


def is_video(file: str) -> bool:
    """Return whether a file is a video, by its suffix or, if that is unknown, by its content."""
    suffix = Path(file).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return False
    if suffix in VIDEO_SUFFIXES or "://" in file:
        return True
    with contextlib.suppress(OSError), Image.open(file):
        return False
    return next(iter(Video(file)), None) is not None


def choose_targets(inputs: Sequence[str], output: str, *, overwrite: bool = False) -> list[Path]:
    """Return the file to which the drawing of each input is written.

    Args:
        inputs: images and videos, see :func:`find_inputs`.
        output: a folder, or a file if there is only one input.
        overwrite: whether targets may exist already. An input is never overwritten.

    Raises:
        UserError: a target exists already or is an input, ``output`` is one file for several
            inputs, its format is not supported, or its folder is not writable.
    """
    path = Path(output).expanduser()
    to_file = path.suffix and not path.is_dir() and not output.endswith(os.sep)
    if to_file and len(inputs) > 1:
        raise UserError(f"--output {output} is one file for {len(inputs)} inputs; name a folder")
    targets = [path] if to_file else [path / name for name in _target_names(inputs)]
    if to_file:
        formats = WRITABLE_VIDEO_SUFFIXES if is_video(inputs[0]) else WRITABLE_SUFFIXES
        if path.suffix.lower() not in formats:
            raise UserError(
                f"--output {output}: {inputs[0]} can be written as {', '.join(formats)}"
            )
    existing = [target for target in targets if target.exists()]
    sources = {real_path(file) for file in inputs if "://" not in file}
    replaced = [t for t in existing if not overwrite or real_path(t) in sources]
    if replaced:
        names = ", ".join(map(str, replaced[:3]))
        more = f" and {len(replaced) - 3} more" if len(replaced) > 3 else ""
        fix = "" if overwrite else ", or allow it with --overwrite"
        raise UserError(
            f"{names}{more} would be overwritten; name another file or a new folder with "
            f"--output{fix}"
        )
    folders = [str(target) for target in existing if not target.is_file()]
    if folders:
        raise UserError(
            f"{folders[0]} is not a file and cannot be replaced; name another folder with --output"
        )
    parent = next(p for p in targets[0].absolute().parents if p.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UserError(
            f"--output {output} cannot be written because {parent} is not a writable folder; name "
            "another folder"
        )
    return targets


def _target_names(inputs: Sequence[str]) -> list[str]:
    """Return the file names of the drawings; a number is appended to repeated names."""
    names: list[str] = []
    for file in inputs:
        path = Path(file)
        if is_video(file):
            suffix = path.suffix if path.suffix.lower() == ".avi" else default_video_suffix()
        else:
            suffix = path.suffix if path.suffix.lower() in WRITABLE_SUFFIXES else ".png"
        numbers = itertools.count(2)
        name = path.stem + suffix
        while name in names:
            name = f"{path.stem}-{next(numbers)}{suffix}"
        names.append(name)
    return names
