"""What a clip is: how many frames, how far apart, which of them is labelled, where the others come
from. The keys are those of ``INPUT.CLIP``."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from detectron2.config import CfgNode

from ccsa.errors import UserError, at_least, one_of

LABELLED = {"last": lambda frames: frames - 1, "middle": lambda frames: frames // 2}
SOURCES = ("raw", "labelled")


class Clip(NamedTuple):
    """Frames in order of time.

    Attributes:
        frames: T.
        labelled: index of the labelled frame, 0 to T - 1.
        step: from one frame to the next, in frames of the source.
        source: ``raw``, all frames of the video, or ``labelled``, those with labels alone.
    """

    frames: int
    labelled: int
    step: int = 1
    source: str = "raw"

    @classmethod
    def of(cls, cfg: CfgNode) -> "Clip":
        """The clip that ``INPUT.CLIP`` describes.

        Raises:
            UserError: a key that is out of its range.
        """
        keys = cfg.INPUT.CLIP
        try:
            at_least(1, FRAMES=keys.FRAMES, STEP=keys.STEP)
            labelled = one_of(LABELLED, keys.LABELLED, "LABELLED")(keys.FRAMES)
            one_of(dict.fromkeys(SOURCES), keys.SOURCE, "SOURCE")
        except ValueError as error:
            raise UserError(f"INPUT.CLIP.{error}") from error
        return cls(keys.FRAMES, labelled, keys.STEP, keys.SOURCE)

    @property
    def offsets(self) -> list[int]:
        """Where the frames lie from the labelled one, in frames of the source."""
        return [self.step * (i - self.labelled) for i in range(self.frames)]

    def windows(self, frames: Iterable) -> Iterator[list]:
        """A clip for each of the ``frames`` of a video, in order; beyond its ends the first or last
        frame is repeated. Frames are held only as long as a clip needs them."""
        before, after = -self.offsets[0], self.offsets[-1]
        held: deque = deque(maxlen=before + 1 + after)
        for frame in _repeat_ends(frames, before, after):
            held.append(frame)
            if len(held) == held.maxlen:
                yield list(held)[:: self.step]


def _repeat_ends(items: Iterable, before: int, after: int) -> Iterator:
    """The items, the first ``before`` and the last ``after`` times more."""
    last: list = []  # none before the first
    for item in items:
        yield from [item] * (1 if last else before + 1)
        last = [item]
    yield from last * after


def takes_clips(cfg: CfgNode) -> bool:
    """Whether the model of a configuration is one of video."""
    model = cfg.MODEL
    wrapped = model.META_ARCHITECTURE == "ContextModel"
    name = model.CONTEXT.META_ARCHITECTURE if wrapped else model.META_ARCHITECTURE
    return name == "VideoSemanticSegmentor"
