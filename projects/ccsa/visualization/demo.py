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
from detectron2.config import CfgNode
from PIL import Image
from torch import nn
from tqdm import tqdm

from ccsa.data.image_reader import intensity_range, read_image
from ccsa.errors import UserError
from ccsa.inference.predictor import Predictor
from ccsa.modeling.clip import Clip
from ccsa.utils.images import write_image
from ccsa.visualization.painter import class_metadata, draw_outputs
from ccsa.visualization.videos import Video, video_writer

# An image whose longer side is below SMALL pixels is enlarged by a whole factor, to about ENLARGED.
SMALL = 320
ENLARGED = 480
_TITLE = "ccsa demo"
_STOP_KEYS = (27, ord("q"))  # Esc, q


class Demo:
    """Draw the predictions of a model, image after image, and measure the time.

    Args:
        cfg: a configuration; the classes are those of its first test dataset.
        model: the model of that configuration, on its device.

    Attributes:
        images: the number of images drawn so far.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module):
        self.predictor = Predictor(cfg, model)
        self.clip = self.predictor.clip or Clip(frames=1, labelled=0)
        self.metadata = class_metadata(cfg.DATASETS.TEST[0] if cfg.DATASETS.TEST else "")
        self.intensity_range = intensity_range(cfg.INPUT.INTENSITY_RANGE)
        self.images = 0
        self.model_seconds = self.seconds = 0.0

    def draw(self, frames: Sequence[np.ndarray], enlarge: bool = True) -> np.ndarray:
        """Return the labeled frame of a clip with its predictions drawn on it.

        Args:
            frames: the frames of a clip, each RGB of shape (H, W, 3), uint8; for a model that takes
                images, a single image.
            enlarge: enlarge a small image, so that labels fit on it.
        """
        start = time.perf_counter()
        image = frames[self.clip.labelled]
        inputs = image if len(frames) == 1 else np.stack(frames)
        height, width = image.shape[:2]
        if enlarge and max(height, width) < SMALL:
            factor = math.ceil(ENLARGED / max(height, width))
            height, width = height * factor, width * factor
        outputs = self.predictor(inputs, (height, width))
        self.model_seconds += time.perf_counter() - start
        if image.shape[:2] != (height, width):
            enlarged = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
            image = np.asarray(enlarged)
        drawn = draw_outputs(image, outputs, self.metadata)
        self.seconds += time.perf_counter() - start
        self.images += 1
        return drawn

    def draw_image(self, file: str, output: "Path | Window") -> bool:
        """Draw an image file into another file or into a window.

        Returns:
            False if the user ended the program in the window, otherwise True.

        Raises:
            UserError: a file cannot be read or written, or the model needs a video.
        """
        image = read_image(file, intensity_range=self.intensity_range)
        if self.clip.frames > 1:
            raise UserError(
                f"the model takes clips of {self.clip.frames} frames, and {file} is one image; "
                "name a video"
            )
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
