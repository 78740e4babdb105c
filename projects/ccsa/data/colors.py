"""Colors of classes that a dataset does not give any."""

import colorsys


def class_colors(count: int) -> list[list[int]]:
    """Return ``count`` colors (RGB, 0 to 255) that differ as much as possible from one another.

    Hues advance by the golden ratio, so that neighboring indices differ most, and brightness and
    saturation alternate.

    Example:
        >>> len(class_colors(3)), class_colors(3) == class_colors(5)[:3]
        (3, True)
    """
    colors = []
    for i in range(count):
        hue = (0.58 + i * 0.618033988749895) % 1.0
        saturation = (0.85, 0.6, 0.95)[i % 3]
        value = (0.95, 0.8, 0.65)[i // 3 % 3]
        colors.append([round(255 * c) for c in colorsys.hsv_to_rgb(hue, saturation, value)])
    return colors
