"""The check that images of more than 8 bits suit the range that maps them to 8 bits."""

import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ccsa.data.image_reader import check_range
from ccsa.data.problems import Problems

FEW = 0.05  # share of clipped pixels that is normal: the range usually excludes 0.2 %
MOST = 0.5


class IntensityCheck:
    """Counts the pixels of each split that a range of intensities clips.

    Args:
        intensity_range: (low, high), as ``INPUT.INTENSITY_RANGE``; None if no image needs one.

    Example:
        >>> check, problems = IntensityCheck((0, 1000)), Problems()
        >>> check("val", np.array([[500, 4000, 5000]], np.uint16))
        >>> check.finish("data", problems)
        >>> problems.kinds()
        ['mostly_outside_range']
    """

    def __init__(self, intensity_range: Sequence[float] | None = None):
        self.range = check_range(intensity_range) if intensity_range else None
        self._clipped: Counter[str] = Counter()
        self._pixels: Counter[str] = Counter()
        self._lock = threading.Lock()  # images are decoded in threads

    def __call__(self, split: str, values: np.ndarray) -> None:
        """Count the values of an image; those that are not finite are reported elsewhere."""
        if self.range is None:
            return
        finite = values[np.isfinite(values)]
        clipped = int(((finite < self.range[0]) | (finite > self.range[1])).sum())
        with self._lock:
            self._clipped[split] += clipped
            self._pixels[split] += finite.size

    def finish(self, source: str | Path, problems: Problems) -> None:
        """Report every split with many clipped pixels."""
        for split, pixels in self._pixels.items():
            share = self._clipped[split] / max(pixels, 1)
            if share <= FEW or self.range is None:
                continue
            low, high = self.range
            kind = "mostly_outside_range" if share > MOST else "intensity_range"
            text = f"{split}: {share:.0%} of the pixels are outside {low:g} to {high:g}"
            problems.add(kind, source, text)
