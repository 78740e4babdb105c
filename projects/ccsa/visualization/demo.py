"""What tools/demo.py does with each image, video or camera frame."""

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

from ccsa.errors import UserError
from ccsa.inference.predictor import Predictor
from ccsa.modeling.clip import Clip
from ccsa.utils.images import write_image
from ccsa.visualization import media
from ccsa.visualization.painter import class_metadata, draw_outputs

# Pixels of the longer side: an image below the first is shown at about the second.
SMALL = 320
ENLARGED = 480
_TITLE = "ccsa demo"
_STOP_KEYS = (27, ord("q"))  # Esc, q


class Demo:
    """Draws what a model sees, image after image, and keeps the time."""

    def __init__(self, cfg: CfgNode, model: nn.Module):
        self.predictor = Predictor(cfg, model)
        self.clip = self.predictor.clip or Clip(frames=1, labelled=0)
        self.metadata = class_metadata(cfg.DATASETS.TEST[0] if cfg.DATASETS.TEST else "")
        self.images = 0
        self.model_seconds = self.seconds = 0.0

    def draw(self, frames: Sequence[np.ndarray], enlarge: bool = True) -> np.ndarray:
        """Draw predictions over the labelled frame of a clip of (H, W, 3) RGB, which is an image
        alone for most models; a small one is enlarged to carry the labels."""
        start = time.perf_counter()
        image = frames[self.clip.labelled]
        seen = image if len(frames) == 1 else np.stack(frames)
        height, width = image.shape[:2]
        if enlarge and max(height, width) < SMALL:
            factor = math.ceil(ENLARGED / max(height, width))
            height, width = height * factor, width * factor
        outputs = self.predictor(seen, (height, width))
        self.model_seconds += time.perf_counter() - start
        if image.shape[:2] != (height, width):
            enlarged = Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC)
            image = np.asarray(enlarged)
        drawn = draw_outputs(image, outputs, self.metadata)
        self.seconds += time.perf_counter() - start
        self.images += 1
        return drawn

    def draw_image(self, file: str, target: Path | None, window: "Window | None") -> bool:
        """Draw an image file to ``target``, or into the window; False if the user stopped there.

        Raises:
            UserError: it cannot be read or written, or the model needs a video.
        """
        image = media.read_image(file)
        if self.clip.frames > 1:
            raise UserError(
                f"the model sees clips of {self.clip.frames} frames, and {file} is one image; name "
                "a video"
            )
        drawn = self.draw([image])
        if window:
            return window.show(drawn)
        write_image(target, drawn)
        return True

    def draw_video(self, source: str | int, target: Path | None, window: "Window | None") -> bool:
        """Draw a video or a camera to ``target``, or into the window; False if the user stopped it.

        Raises:
            UserError: it cannot be read or written.
        """
        video = media.Video(source)
        frames = iter(video)
        first = next(frames, None)
        if first is None:
            what = f"camera {source}" if isinstance(source, int) else f"video {source}"
            raise UserError(f"cannot read {what}; name another one")
        clips = self.clip.windows(itertools.chain([first], frames))
        drawings = (self.draw(clip, enlarge=False) for clip in clips)
        name = str(source) if target is None else target.name
        drawings = tqdm(drawings, desc=name, unit="frame", total=len(video) or None)
        if window:
            return all(window.show(drawn, wait=False) for drawn in drawings)
        with media.video_writer(target, video.fps, first.shape[:2]) as writer:
            for drawn in drawings:
                writer.write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
        return True

    @property
    def timing(self) -> str:
        """Seconds per image, in words."""
        each, model = self.seconds / self.images, self.model_seconds / self.images
        return f"{each:.2f} s an image, {model:.2f} s of it in the model"


class Window:
    """A window on the screen.

    Raises:
        UserError: there is no display, or OpenCV was built without windows.
    """

    def __init__(self):
        cure = "write the drawings to files by --output"
        unix = sys.platform.startswith("linux")
        if unix and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            raise UserError(f"no display to open a window on; {cure}")
        try:
            cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL)
        except cv2.error as error:
            raise UserError(f"this OpenCV cannot open windows; {cure}") from error

    def show(self, image: np.ndarray, wait: bool = True) -> bool:
        """Show (H, W, 3) RGB until a key is pressed; False on Esc, q or a closed window."""
        cv2.imshow(_TITLE, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        key = cv2.waitKey(1)
        while True:
            if key in _STOP_KEYS or cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) < 1:
                return False
            if key >= 0 or not wait:
                return True
            key = cv2.waitKey(50)
