"""One color for each object, where colors of classes would not tell objects apart."""

import colorsys
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import rgb_to_hsv, to_rgb

Color = tuple[float, float, float]  # RGB from 0 to 1

CROWDED = 12  # objects; with more, classes share their color no longer and labels shrink
_TONES = ((1.0, 1.0), (0.6, 1.0), (1.0, 0.7))  # saturation and value
_NEIGHBORS, _CANDIDATES = 6, 24


def object_colors(class_colors: Sequence, centers: np.ndarray) -> list[Color]:
    """Return a color for each object, different from those of its neighbors.

    Objects of one class get all hues. With several classes, the hues of a class stay around that of
    its own color.

    Args:
        class_colors: the color of each object's class, as Matplotlib accepts it.
        centers: (N, 2), the positions of the objects in pixels.

    Returns:
        N colors, each occurring once within its class.

    Example:
        >>> len(set(object_colors(["red"] * 20, np.arange(40).reshape(20, 2))))
        20
    """
    given = [to_rgb(color) for color in class_colors]
    classes = list(dict.fromkeys(given))
    result: list[Color] = [(0.0, 0.0, 0.0)] * len(given)
    for color in classes:
        members = [i for i, other in enumerate(given) if other == color]
        hue = float(rgb_to_hsv(color)[0])
        palette = _palette(len(members), hue, 1.0 if len(classes) == 1 else 0.6 / len(classes))
        for i, chosen in zip(members, _spread(palette, centers[members]), strict=True):
            result[i] = chosen
    return result


def _palette(count: int, hue: float, width: float) -> list[Color]:
    """Return colors whose hues are spread over a range of the given width around a hue."""
    shares = [((i * 0.618034 + 0.5) % 1 - 0.5) * width for i in range(count)]  # from 0 on
    tones = [_TONES[i % len(_TONES)] for i in range(count)]
    return [
        colorsys.hsv_to_rgb((hue + share) % 1, *tone)
        for share, tone in zip(shares, tones, strict=True)
    ]


def _spread(palette: list[Color], centers: np.ndarray) -> list[Color]:
    """Assign each color once, so that near objects get colors that differ most."""
    left = list(palette)
    order = np.lexsort((centers[:, 0], centers[:, 1]))
    chosen: dict[int, Color] = {}
    for i in order.tolist():
        known = list(chosen)
        distances = np.abs(centers[known] - centers[i]).sum(1) if known else np.empty(0)
        near = [chosen[known[k]] for k in np.argsort(distances, kind="stable")[:_NEIGHBORS]]
        best = max(left[:_CANDIDATES], key=lambda color: _contrast(color, near))
        left.remove(best)
        chosen[i] = best
    return [chosen[i] for i in range(len(palette))]


def _contrast(color: Color, others: Sequence[Color]) -> float:
    return min((float(np.abs(np.subtract(color, other)).sum()) for other in others), default=0.0)
