"""Reading and writing of videos with OpenCV, frame by frame in RGB."""

import contextlib
import functools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ccsa.errors import UserError
from ccsa.utils.files import atomic_write

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")
_CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".m4v": "mp4v", ".avi": "MJPG"}
WRITABLE_VIDEO_SUFFIXES = tuple(_CODECS)
_DEFAULT_FPS = 25.0  # of sources that do not report a frame rate


class Video:
    """The frames of a video file, a URL or a camera, each RGB of shape (H, W, 3), uint8.

    ``len`` is the number of frames that the file reports, or 0 if it reports none.

    Args:
        source: a file, a URL, or the number of a camera.

    Attributes:
        fps: frames per second.
    """

    def __init__(self, source: str | int):
        # A video that cannot be read is reported by this package, not by OpenCV and FFmpeg.
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        self.capture = cv2.VideoCapture(source)
        frames = self.capture.get(cv2.CAP_PROP_FRAME_COUNT)
        fps = self.capture.get(cv2.CAP_PROP_FPS)
        self.length = int(frames) if 0 < frames < 1e9 else 0
        self.fps = fps if 0 < fps < 1000 else _DEFAULT_FPS

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[np.ndarray]:
        while True:
            success, frame = self.capture.read()
            if not success:
                return
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)


class VideoWriter:
    """Writes frames to a video file; see :func:`video_writer`."""

    def __init__(self, writer: cv2.VideoWriter):
        self._writer = writer

    def write(self, frame: np.ndarray) -> None:
        """Append a frame, RGB of shape (H, W, 3), uint8."""
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))


@contextlib.contextmanager
def video_writer(path: Path, fps: float, size: tuple[int, int]) -> Iterator[VideoWriter]:
    """Write a video file that is complete or absent.

    Args:
        path: the file; its suffix is one of ``WRITABLE_VIDEO_SUFFIXES``.
        fps: frames per second.
        size: height and width of the frames in pixels.

    Raises:
        UserError: this build of OpenCV cannot write such a file.
    """
    codec = cv2.VideoWriter.fourcc(*_CODECS[path.suffix.lower()])
    with atomic_write(path) as partial:
        writer = cv2.VideoWriter(str(partial), codec, fps, size[::-1])
        if not writer.isOpened():
            raise UserError(
                f"this build of OpenCV cannot write {path}; name an .avi file with --output"
            )
        try:
            yield VideoWriter(writer)
        finally:
            writer.release()


@functools.cache
def default_video_suffix() -> str:
    """Return ``.mp4``, or ``.avi`` if this build of OpenCV has no encoder for ``.mp4``.

    The second case is reported once on standard output.
    """
    with tempfile.TemporaryDirectory() as folder:
        codec = cv2.VideoWriter.fourcc(*_CODECS[".mp4"])
        writer = cv2.VideoWriter(str(Path(folder) / "probe.mp4"), codec, _DEFAULT_FPS, (64, 64))
        opened = writer.isOpened()
        writer.release()
    if not opened:
        print("this build of OpenCV cannot write .mp4 files; videos are written as .avi")
    return ".mp4" if opened else ".avi"
