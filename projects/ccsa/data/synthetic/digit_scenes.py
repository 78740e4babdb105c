"""Drawing of the digit scenes: handwritten digits on textured grounds.

The digits are real 8x8 scans, from scikit-learn's ``load_digits``. H and W are the size of a scene,
N is its number of digits. All randomness comes from the generator that is passed in.
"""

from typing import NamedTuple

import cv2
import numpy as np

from ccsa.errors import missing_package

SIZE = 160  # pixels, both sides
GROUNDS = ("sand", "stripes", "checks")
HELD_OUT = 0.2  # fraction of the scans that only validation scenes use

_Y, _X = np.mgrid[:SIZE, :SIZE].astype(float)  # pixels


class Scene(NamedTuple):
    """One scene; its digits are ordered from the back to the front."""

    image: np.ndarray  # (H, W, 3) RGB, uint8
    ground: np.ndarray  # (H, W), indices of GROUNDS
    masks: np.ndarray  # (N, H, W) bool, the visible parts of the digits
    classes: np.ndarray  # (N,)


def load_scans(split: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the scans (K, 8, 8) in [0, 1] and the classes (K,) of one split; ``val`` and ``train``
    have no scan in common."""
    try:
        from sklearn.datasets import load_digits  # imported here, because it takes a second
    except ModuleNotFoundError as error:
        install = "pip install '.[train]' in a clone of ccsa"
        raise missing_package("A dataset of digit scenes", "scikit-learn", install) from error

    digits = load_digits()
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(digits.target), bool)
    for digit in range(10):
        indices = rng.permutation(np.flatnonzero(digits.target == digit))
        held_out[indices[: round(HELD_OUT * len(indices))]] = True
    chosen = held_out if split == "val" else ~held_out
    return digits.images[chosen].astype(np.float32) / 16, digits.target[chosen]


def draw_scene(rng: np.random.Generator, scans: np.ndarray, classes: np.ndarray) -> Scene:
    """Return a scene with two to six digits on one or two grounds.

    A new digit hides at most a tenth of the visible part of any other; a digit for which no such
    position is found is left out.
    """
    image, ground = _draw_ground(rng)
    masks: list[np.ndarray] = []
    drawn: list[int] = []
    for _ in range(rng.integers(2, 7)):
        which = int(rng.integers(len(scans)))
        for _ in range(10):  # positions tried; a full scene takes no more digits
            ink = _draw_ink(rng, scans[which])
            mask = _filled(ink > 0.35)
            covered = [(mask & other).sum() / other.sum() for other in masks]
            if max(covered, default=0) <= 0.1:
                break
        else:
            continue
        masks = [other & ~mask for other in masks] + [mask]
        drawn.append(int(classes[which]))
        _paint(rng, image, ink, mask)
    image += rng.normal(0, 4, image.shape)
    pixels = np.clip(image, 0, 255).astype(np.uint8)[..., ::-1]  # drawn as BGR
    return Scene(pixels, ground, np.stack(masks), np.array(drawn))


def _draw_ink(rng: np.random.Generator, scan: np.ndarray) -> np.ndarray:
    """Return the amount of ink (H, W) of a scan at a random size, angle and position.

    Only its corners may be outside of the image. Values are between 0 and 1, and slightly beyond
    because of the cubic interpolation.
    """
    side = rng.uniform(36, 64)
    angle = rng.uniform(-15, 15)
    x, y = rng.uniform(side / 2, SIZE - side / 2, 2)
    matrix = cv2.getRotationMatrix2D((3.5, 3.5), angle, side / 8)
    matrix[:, 2] += x - 3.5, y - 3.5
    return cv2.warpAffine(scan, matrix, (SIZE, SIZE), flags=cv2.INTER_CUBIC)


def _filled(mask: np.ndarray) -> np.ndarray:
    """Return the filled outline of a digit: COCO polygons cannot have holes, so a 0 has none."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros(mask.shape, np.uint8), outlines, -1, 1, cv2.FILLED) > 0


def _paint(rng: np.random.Generator, image: np.ndarray, ink: np.ndarray, mask: np.ndarray) -> None:
    """Paint ink (H, W) of a random color on the image (H, W, 3), in place."""
    alpha = np.clip((ink - 0.25) / 0.2, 0, 1)
    x, y, w, h = cv2.boundingRect((alpha > 0).astype(np.uint8))
    box = np.s_[y : y + h, x : x + w]
    under, alpha = image[box], alpha[box][..., None]
    color = _ink_color(rng, under[mask[box]].mean())
    image[box] = under * (1 - alpha) + color * alpha


def _ink_color(rng: np.random.Generator, background: float) -> np.ndarray:
    """Return a color that is clearly darker or brighter than the mean of the pixels below it."""
    offset = rng.uniform(75, 120)
    darker = background - offset > 0 and (background + offset > 255 or rng.random() < 0.5)
    return background + (-offset if darker else offset) + rng.uniform(-30, 30, 3)


def _draw_ground(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return one ground, or two that a straight line separates: BGR (H, W, 3) float, and the
    indices of GROUNDS (H, W)."""
    first, second = rng.choice(len(GROUNDS), 2, replace=False)
    angle = rng.uniform(0, 2 * np.pi)
    across = (_X / SIZE - 0.5) * np.cos(angle) + (_Y / SIZE - 0.5) * np.sin(angle)
    beyond = across > rng.uniform(-0.2, 0.6)
    ground = np.where(beyond, second, first).astype(np.uint8)
    image = np.empty((SIZE, SIZE, 3))
    for index, where in ((first, ~beyond), (second, beyond)):
        image[where] = _texture(rng, GROUNDS[index], where)
    return image, ground


def _texture(rng: np.random.Generator, name: str, where: np.ndarray) -> np.ndarray:
    """Return a texture around a random muted color: (P, 3) float for the P true pixels of ``where``
    (H, W)."""
    angle, period = rng.uniform(0, np.pi), rng.uniform(9, 22)
    cos, sin, scale = np.cos(angle), np.sin(angle), 2 * np.pi / period
    if name == "sand":
        grain = rng.normal(0, 1, (SIZE, SIZE)).astype(np.float32)
        pattern = cv2.GaussianBlur(grain, (0, 0), 1.0)[where] * 3
    else:
        x, y = _X[where], _Y[where]
        pattern = np.sin((x * cos + y * sin) * scale)
        if name == "checks":
            pattern = np.sign(pattern * np.sin((y * cos - x * sin) * scale))
    color = rng.uniform(70, 185) + rng.uniform(-35, 35, 3)
    return color + rng.uniform(10, 20) * pattern[:, None]
