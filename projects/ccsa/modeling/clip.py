"""Clips of video: the number of frames, their distance, and which frame is labeled.

A model that is trained on clips declares it on its meta-architecture, as a class attribute
``takes_clips = True``; :func:`takes_clips` reads it, and the settings are the keys of
``INPUT.CLIP``.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple, TypeVar

from detectron2.config import CfgNode
from detectron2.modeling import META_ARCH_REGISTRY

from ccsa.errors import at_least, one_of

LABELED = {"last": lambda frames: frames - 1, "middle": lambda frames: frames // 2}
SOURCES = ("raw", "labelled")

Frame = TypeVar("Frame")


class Clip(NamedTuple):
    """The frames of a clip, in order of time.

    Attributes:
        frames: the number of frames T.
        labelled: the index of the labeled frame, 0 to T - 1.
        step: the distance of consecutive frames, in frames of the source.
        source: ``raw`` (all frames of the video) or ``labelled`` (only frames with labels).

    Example:
        >>> Clip(frames=5, labelled=2, step=3).offsets
        [-6, -3, 0, 3, 6]
    """

    frames: int
    labelled: int
    step: int = 1
    source: str = "raw"

    @classmethod
    def of(cls, cfg: CfgNode) -> "Clip":
        """Return the clip that the keys of ``INPUT.CLIP`` describe.

        Raises:
            UserError: a key is out of its range.
        """
        keys = cfg.INPUT.CLIP
        at_least(1, **{"INPUT.CLIP.FRAMES": keys.FRAMES, "INPUT.CLIP.STEP": keys.STEP})
        labelled = one_of(LABELED, keys.LABELLED, "INPUT.CLIP.LABELLED")(keys.FRAMES)
        source = one_of(SOURCES, keys.SOURCE, "INPUT.CLIP.SOURCE")
        return cls(keys.FRAMES, labelled, keys.STEP, source)

    @property
    def offsets(self) -> list[int]:
        """Return the offset of each frame from the labeled one, in frames of the source."""
        return [self.step * (i - self.labelled) for i in range(self.frames)]

    def windows(self, frames: Iterable[Frame]) -> Iterator[list[Frame]]:
        """Yield one clip for each frame of a video, in order.

        Beyond the ends of the video its first or last frame is repeated. A frame is kept only as
        long as a clip needs it.

        Example:
            >>> ["".join(window) for window in Clip(frames=3, labelled=1).windows("abc")]
            ['aab', 'abc', 'bcc']
        """
        before, after = -self.offsets[0], self.offsets[-1]
        window: deque[Frame] = deque(maxlen=before + 1 + after)
        for frame in _repeat_ends(frames, before, after):
            window.append(frame)
            if len(window) == window.maxlen:
                yield list(window)[:: self.step]


def _repeat_ends(items: Iterable[Frame], before: int, after: int) -> Iterator[Frame]:
    """Yield the items; the first one ``before`` and the last one ``after`` more times."""
    last: list[Frame] = []  # empty before the first item
    for item in items:
        yield from [item] * (1 if last else before + 1)
        last = [item]
    yield from last * after


def takes_clips(cfg: CfgNode) -> bool:
    """Return whether the meta-architecture of a configuration, also inside ContextModel, declares
    that its inputs are clips: ``takes_clips = True`` in the class.

    An unknown meta-architecture takes no clips; building the model reports it.
    """
    name = cfg.MODEL.META_ARCHITECTURE
    if name == "ContextModel":
        name = cfg.MODEL.CONTEXT.META_ARCHITECTURE
    return name in META_ARCH_REGISTRY and bool(
        getattr(META_ARCH_REGISTRY.get(name), "takes_clips", False)
    )
