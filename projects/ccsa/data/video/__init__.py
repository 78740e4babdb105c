"""Video: clips of several frames as one training sample."""

from ccsa.data.video.clips import frame_of, with_clips
from ccsa.data.video.mapper import ClipInput, ClipMapper

__all__ = ["ClipInput", "ClipMapper", "frame_of", "with_clips"]
