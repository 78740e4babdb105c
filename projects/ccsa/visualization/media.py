"""Images and videos, in and out: what is named is found, what is drawn is written whole."""

import contextlib
import functools
import glob
import itertools
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from detectron2.data import detection_utils
from PIL import Image

from ccsa.errors import UserError
from ccsa.utils.files import atomic_write

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".jp2", ".gif", ".avif"),
)
WRITABLE_SUFFIXES = IMAGE_SUFFIXES[:7]
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
_CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".m4v": "mp4v", ".avi": "MJPG"}
_USUAL_FPS = 25.0


def find_inputs(names: Sequence[str]) -> list[str]:
    """Files that ``names`` (files, folders, globs, video URLs) stand for, in order, each once.

    Raises:
        UserError: names that nothing answers to, all of them listed.
    """
    found: list[str] = []
    lacking = []
    for name in names:
        path = Path(name).expanduser()
        if path.is_dir():
            known = IMAGE_SUFFIXES + VIDEO_SUFFIXES
            files = sorted(str(p) for p in path.iterdir() if p.suffix.lower() in known)
            lacking += [] if files else [f"{name} (a folder with no images or videos)"]
        elif path.exists() or "://" in name:
            files = [name if "://" in name else str(path)]
        else:
            files = sorted(glob.glob(str(path), recursive=True))
            files = [f for f in files if Path(f).is_file()]
            lacking += [] if files else [name]
        found += files
    if lacking:
        raise UserError(
            f"no such input: {', '.join(lacking)}; name images, folders, globs or videos"
        )
    return list(dict.fromkeys(found))


def is_video(file: str) -> bool:
    """Whether a file is a video: by its suffix, or by what can read it."""
    suffix = Path(file).suffix.lower()
    if suffix in IMAGE_SUFFIXES:
        return False
    if suffix in VIDEO_SUFFIXES or "://" in file:
        return True
    with contextlib.suppress(OSError), Image.open(file):
        return False
    return next(iter(Video(file)), None) is not None


def choose_targets(inputs: Sequence[str], output: str) -> list[Path]:
    """Where the drawing of each input goes: ``output`` is a folder, or for one input a file.

    Raises:
        UserError: a target that is there already, a file where a folder is needed, a format or a
            place that cannot be written.
    """
    path = Path(output).expanduser()
    to_file = path.suffix and not path.is_dir() and not output.endswith(os.sep)
    if to_file and len(inputs) > 1:
        raise UserError(f"--output {output} is one file for {len(inputs)} inputs; name a folder")
    targets = [path] if to_file else [path / name for name in _names(inputs)]
    if to_file:
        formats = tuple(_CODECS) if is_video(inputs[0]) else WRITABLE_SUFFIXES
        if path.suffix.lower() not in formats:
            raise UserError(
                f"--output {output}: {inputs[0]} can be written as {', '.join(formats)}"
            )
    there = [str(t) for t in targets if t.exists()]
    if there:
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        raise UserError(
            f"{', '.join(there[:3])}{more} would be overwritten; name another file or a new folder "
            "by --output"
        )
    parent = next(p for p in targets[0].absolute().parents if p.exists())
    if not (parent.is_dir() and os.access(parent, os.W_OK)):
        raise UserError(f"--output {output} cannot be written in {parent}; name another folder")
    return targets


def _names(inputs: Sequence[str]) -> list[str]:
    """File names of the drawings; inputs of one name are told apart by a number."""
    names: list[str] = []
    for file in inputs:
        path = Path(file)
        if is_video(file):
            suffix = path.suffix if path.suffix.lower() == ".avi" else usual_video_suffix()
        else:
            suffix = path.suffix if path.suffix.lower() in WRITABLE_SUFFIXES else ".png"
        numbers = itertools.count(2)
        name = path.stem + suffix
        while name in names:
            name = f"{path.stem}-{next(numbers)}{suffix}"
        names.append(name)
    return names


@functools.cache
def usual_video_suffix() -> str:
    """.mp4, or where this OpenCV has no encoder for it .avi, which needs none; a line says so."""
    with tempfile.TemporaryDirectory() as folder:
        codec = cv2.VideoWriter_fourcc(*_CODECS[".mp4"])
        writer = cv2.VideoWriter(str(Path(folder) / "probe.mp4"), codec, _USUAL_FPS, (64, 64))
        opened = writer.isOpened()
        writer.release()
    if not opened:
        print("this OpenCV cannot write .mp4 files; videos are written as .avi")
    return ".mp4" if opened else ".avi"


def read_image(file: str) -> np.ndarray:
    """(H, W, 3) RGB, uint8, upright by its EXIF tag.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return detection_utils.read_image(file, "RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"cannot read image {file} ({error}); put a good copy in its place"
        ) from error


def read_record(record: Mapping[str, Any]) -> np.ndarray:
    """The image of a dataset's record, or its clip (T, H, W, 3), as :func:`read_image`."""
    if "clip_file_names" not in record:
        return read_image(record["file_name"])
    return np.stack([read_image(file) for file in record["clip_file_names"]])


class Video:
    """Frames of a video file, a URL or a camera, (H, W, 3) RGB, uint8.

    ``len`` is what the file says of itself, 0 where it says nothing.
    """

    def __init__(self, source: str | int):
        cv2.utils.logging.setLogLevel(
            cv2.utils.logging.LOG_LEVEL_SILENT
        )  # errors are reported here
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        self.capture = cv2.VideoCapture(source)
        frames = self.capture.get(cv2.CAP_PROP_FRAME_COUNT)
        fps = self.capture.get(cv2.CAP_PROP_FPS)
        self.length = int(frames) if 0 < frames < 1e9 else 0
        self.fps = fps if 0 < fps < 1000 else _USUAL_FPS

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            there, frame = self.capture.read()
            if not there:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


@contextlib.contextmanager
def video_writer(path: Path, fps: float, size: tuple[int, int]) -> Iterator[cv2.VideoWriter]:
    """A writer for BGR frames of ``size`` (height, width); the video is complete or absent.

    Raises:
        UserError: this OpenCV cannot write such a file.
    """
    codec = cv2.VideoWriter_fourcc(*_CODECS[path.suffix.lower()])
    with atomic_write(path) as partial:
        writer = cv2.VideoWriter(str(partial), codec, fps, size[::-1])
        if not writer.isOpened():
            raise UserError(f"this OpenCV cannot write {path}; name an .avi file by --output")
        try:
            yield writer
        finally:
            writer.release()
