"""The images or clips that the attention explorer shows, and the attention of clips.

Dimensions: T frames per clip, (H, W) of a feature map.
"""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ccsa.errors import UserError
from ccsa.modeling.clip import Clip
from ccsa.prediction import Predictor
from ccsa.visualization.media import is_video
from ccsa.visualization.videos import Video


class Source(NamedTuple):
    """An image or a clip.

    Attributes:
        name: its name on the page.
        pixels: RGB of shape (H, W, 3), or (T, H, W, 3) for a clip, uint8.
        file: the image or the frame that is predicted; None for a video.
        frames: the names of the frames of a clip, in order of time; empty for an image.
    """

    name: str
    pixels: np.ndarray
    file: Path | None
    frames: tuple[str, ...] = ()


def read_sources(predictor: Predictor, files: Sequence[Path]) -> Iterator[Source]:
    """Yield what ``files`` hold for a model of images or of clips, one at a time.

    For a model of clips of T frames, T images that follow each other are the frames of one clip in
    order of time, and a video gives the clip whose predicted frame is in its middle.

    Raises:
        UserError: a file cannot be read, the frames of a clip have different sizes, or the number
            of frames is not a multiple of T.
    """
    clip = predictor.clip
    if clip is None:
        for file in files:
            yield Source(file.name, predictor.read(file), file)
        return
    videos = [file for file in files if is_video(str(file))]
    images = [file for file in files if file not in videos]
    if len(images) % clip.frames:
        raise UserError(
            f"the model takes clips of {clip.frames} frames, and {len(images)} images are not a "
            f"multiple of {clip.frames}; name the frames of each clip in order of time, or videos"
        )
    for start in range(0, len(images), clip.frames):
        frames = images[start : start + clip.frames]
        labeled = frames[clip.labelled]
        names = tuple(file.name for file in frames)
        yield Source(labeled.name, predictor.read_clip(frames), labeled, names)
    for file in videos:
        yield _middle_of(file, clip)


def _middle_of(file: Path, clip: Clip) -> Source:
    """Return the clip of a video whose predicted frame is in its middle."""
    video = Video(str(file))
    middle = len(video) // 2
    found = None
    for index, window in enumerate(itertools.islice(clip.windows(enumerate(video)), middle + 1)):
        if index in (0, middle):  # a video may have fewer frames than it reports
            found = window
    if found is None:
        raise UserError(f"cannot read video {file}; name another one")
    names = tuple(f"frame {number} of {file.name}" for number, _ in found)
    pixels = np.stack([frame for _, frame in found])
    return Source(names[clip.labelled], pixels, None, names)


def clip_weights(weights: Tensor) -> Tensor:
    """Return the weights of a block for one clip as (T, H, W, T + H + W).

    Args:
        weights: (1, T, H, W, T + H + W) of a block that attends to all frames, or (T, H, W, H + W)
            of one that processes each frame separately and gives other frames the weight 0.

    Example:
        >>> clip_weights(torch.ones(5, 2, 3, 2 + 3)).shape
        torch.Size([5, 2, 3, 10])
    """
    if weights.ndim == 5:
        return weights[0]
    others = weights.new_zeros(*weights.shape[:-1], len(weights))
    return torch.cat([others, weights], -1)


def clip_map(values: Tensor) -> Tensor:
    """Return values (1, T, H, W) or (T, H, W) of one clip as (T, H, W)."""
    return values[0] if values.ndim == 4 else values
