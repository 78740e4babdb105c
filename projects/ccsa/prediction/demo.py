"""The drawing of images, videos and camera frames that ``tools/demo.py`` offers."""

import itertools
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from ccsa.errors import UserError
from ccsa.modeling.clip import Clip
from ccsa.prediction.coco_file import CocoFile
from ccsa.prediction.predictor import Predictor
from ccsa.prediction.result import Prediction
from ccsa.utils.images import write_image
from ccsa.visualization.videos import Video, video_writer

# An image whose longer side is below SMALL pixels is enlarged by a whole factor, to about ENLARGED.
SMALL = 320
ENLARGED = 480
LARGEST = 4000  # pixels of the longer side of a picture; the objects of a larger one take GiBs
_TITLE = "ccsa demo"
_STOP_KEYS = (27, ord("q"))  # Esc, q


class Demo:
    """Draw the predictions of a model, image after image, and measure the time.

    Args:
        predictor: the model.
        coco: a COCO file to which the predictions for images are added, or None.

    Attributes:
        images: the number of images predicted so far.
    """

    def __init__(self, predictor: Predictor, coco: CocoFile | None = None):
        self.predictor, self.coco = predictor, coco
        self.clip = predictor.clip or Clip(frames=1, labelled=0)
        self.images = 0
        self.model_seconds = self.seconds = 0.0

    def draw(self, frames: Sequence[np.ndarray], enlarge: bool = True) -> np.ndarray:
        """Return the labeled frame of a clip with its predictions drawn on it.

        Args:
            frames: the frames of a clip, each RGB of shape (H, W, 3), uint8; for a model that takes
                images, a single image.
            enlarge: enlarge a small image, so that labels fit on it, and shrink a picture whose
                longer side is above ``LARGEST`` pixels.
        """
        height, width = frames[self.clip.labelled].shape[:2]
        if enlarge and max(height, width) < SMALL:
            factor = math.ceil(ENLARGED / max(height, width))
            height, width = height * factor, width * factor
        start = time.perf_counter()
        longest = LARGEST if enlarge else 0
        drawn = self._predict(frames, (height, width)).draw(longest=longest)
        self.seconds += time.perf_counter() - start
        self.images += 1
        return drawn

    def _predict(self, frames: Sequence[np.ndarray], size: tuple[int, int]) -> Prediction:
        start = time.perf_counter()
        found = self.predictor(frames[0] if len(frames) == 1 else np.stack(frames), size=size)
        self.model_seconds += time.perf_counter() - start
        return found

    def draw_image(self, file: str, output: "Path | Window | None") -> bool:
        """Draw an image file into another file or into a window, and add what was predicted to the
        COCO file.

        Args:
            file: the image.
            output: None to draw nothing.

        Returns:
            False if the user ended the program in the window, otherwise True.

        Raises:
            UserError: a file cannot be read or written, or the model needs a video.
        """
        if self.clip.frames > 1:
            raise UserError(
                f"the model takes clips of {self.clip.frames} frames, and {file} is one image; "
                "name a video"
            )
        image = self.predictor.read(file)
        if self.coco is not None:  # in pixels of the image, whatever is drawn
            found = self._predict([image], (image.shape[0], image.shape[1]))
            self.coco.add(file, found)
            if output is None:
                self.images += 1
                self.seconds = self.model_seconds
        if output is None:
            return True
        drawn = self.draw([image])
        if isinstance(output, Window):
            return output.show(drawn)
        write_image(output, drawn)
        return True

    def draw_video(self, source: str | int, output: "Path | Window") -> bool:
        """Draw a video file, or a camera by its number, into a file or into a window.

        Returns:
            False if the user ended the program in the window, otherwise True.

        Raises:
            UserError: the video cannot be read or written.
        """
        video = Video(source)
        frames = iter(video)
        first = next(frames, None)
        if first is None:
            name = f"camera {source}" if isinstance(source, int) else f"video {source}"
            raise UserError(f"cannot read {name}; name another one")
        clips = self.clip.windows(itertools.chain([first], frames))
        drawings = tqdm(
            (self.draw(clip, enlarge=False) for clip in clips),
            desc=output.name if isinstance(output, Path) else str(source),
            unit="frame",
            total=len(video) or None,
        )
        if isinstance(output, Window):
            return all(output.show(drawn, wait=False) for drawn in drawings)
        with video_writer(output, video.fps, first.shape[:2]) as writer:
            for drawn in drawings:
                writer.write(drawn)
        return True

    @property
    def timing(self) -> str:
        """Return the seconds per image as text."""
        total, model = self.seconds / self.images, self.model_seconds / self.images
        return f"{total:.2f} s per image, {model:.2f} s of it in the model"


class Window:
    """A window on the screen.

    Raises:
        UserError: there is no display, or OpenCV was built without support for windows.
    """

    def __init__(self) -> None:
        fix = "write the drawings to files with --output"
        unix = sys.platform.startswith("linux")
        if unix and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError(f"there is no display to open a window on; {fix}")
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise UserError(f"this build of OpenCV cannot open windows; {fix}") from error

    def show(self, image: np.ndarray, wait: bool = True) -> bool:
        """Show an image.

        Args:
            image: RGB of shape (H, W, 3), uint8.
            wait: wait until a key is pressed.

        Returns:
            False if the user pressed Esc or q or closed the window, otherwise True.
        """
        cv2.imshow(_TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1)
        while True:
            if key in _STOP_KEYS or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:
                return False
            if key >= 0 or not wait:
                return True
            key = cv2.waitKey(50)
