"""Intervals of a metric, and whether the difference of two configurations is more than chance.

A metric varies with the images of the validation set and with the seed of training. Images are
resampled with the bootstrap, the same ones for all runs, because all runs were evaluated on the
same images. Seeds are few, so their variance is that of the sample, with Student's t. Runs that
share a seed are paired. The variance of a difference is the sum of both: the images' part contains
noise of single seeds as well, which makes the interval wider, never narrower.
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from ccsa.analysis.image_metrics import ImageMetric
from ccsa.errors import UserError

LEVEL = 0.95
SAMPLES = 1000  # of the bootstrap
SEED = 0


class Interval(NamedTuple):
    """A value with its 95 % interval, in the unit of the metric."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """The difference of two configurations.

    Attributes:
        value, low, high: the second one minus the first one, and its 95 % interval.
        seeds: the runs of each.
        images: the number of images.
        paired: whether the runs were paired by their seeds.
        between_seeds: the part of the variance that is due to seeds, from 0 to 1; None with one
            seed, for which it is unknown.
        sentence: what follows from the interval.
    """

    value: float
    low: float
    high: float
    seeds: tuple[int, int]
    images: int
    paired: bool
    between_seeds: float | None
    sentence: str

    @property
    def shown(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low > 0 or self.high < 0


@functools.lru_cache(maxsize=2)
def bootstrap_weights(images: int, samples: int = SAMPLES, seed: int = SEED) -> np.ndarray:
    """Return how often each image occurs in each resampled validation set, (samples, images)."""
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(images, np.full(images, 1 / images), samples).astype(float)
    weights.flags.writeable = False
    return weights


def interval(metric: ImageMetric, samples: int = SAMPLES) -> Interval:
    """Return the metric on all images and the percentiles of its bootstrap over images.

    The interval covers the choice of the images, not that of the seed. It is nan if there is only
    one image.
    """
    count = len(metric.images)
    value = float(metric.values(np.ones((1, count)))[0])
    if count < 2:
        return Interval(value, math.nan, math.nan)
    resampled = metric.values(bootstrap_weights(count, samples))
    resampled = resampled[~np.isnan(resampled)]
    if not len(resampled):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(value, float(low), float(high))


def interval_of_runs(runs: Sequence[ImageMetric], samples: int = SAMPLES) -> Interval:
    """Return the mean of a metric over the runs of one configuration, with its interval.

    With one run, this is :func:`interval`. With several, the interval covers seeds as well: it is
    symmetric, and its square is the sum of the squares for seeds and images.

    Raises:
        UserError: the runs were evaluated on different images.
    """
    if len(runs) == 1:
        return interval(runs[0], samples)
    count = _common_images(runs)
    values = _values(runs)
    square = _quantile(len(runs) - 1) ** 2 * float(np.var(values, ddof=1)) / len(runs)
    if count > 1:
        means = _resampled(runs, count, samples)
        square += _quantile(count - 1) ** 2 * _variance(means)
    value, half = float(values.mean()), math.sqrt(square)
    return Interval(value, value - half, value + half)


def difference(
    first: Sequence[ImageMetric],
    second: Sequence[ImageMetric],
    seeds: tuple[Sequence[int], Sequence[int]] | None = None,
    samples: int = SAMPLES,
) -> Difference:
    """Compare two configurations by the metric of their runs on the same images.

    Args:
        first, second: the metric of each run.
        seeds: the seeds of the runs; if both configurations have the same ones, each once, their
            runs are paired.
        samples: the size of the bootstrap.

    Raises:
        UserError: the runs were evaluated on different images.
    """
    count = _common_images([*first, *second])
    values = [_values(part) for part in (first, second)]
    value = float(values[1].mean() - values[0].mean())
    paired = seeds is not None and _same(*seeds)
    if seeds is not None and paired:
        order = [np.argsort(part) for part in seeds]
        spread = [np.var(values[1][order[1]] - values[0][order[0]], ddof=1) / len(first)]
        freedom = [len(first) - 1]
    else:
        spread = [np.var(v, ddof=1) / len(v) for v in values if len(v) > 1]
        freedom = [len(v) - 1 for v in values if len(v) > 1]
    over_seeds = float(sum(spread))
    # Satterthwaite's degrees of freedom of a sum of variances, as in Welch's t-test.
    parts = sum(v**2 / n for v, n in zip(spread, freedom, strict=True))
    over_images = 0.0
    if count > 1:
        over_images = _variance(
            _resampled(second, count, samples) - _resampled(first, count, samples)
        )
    # Each part has its own quantile: one for their sum would be too small with two seeds.
    square = _quantile(over_seeds**2 / parts) ** 2 * over_seeds if parts > 0 else 0.0
    square += _quantile(max(count - 1, 1)) ** 2 * over_images
    low, high = value - math.sqrt(square), value + math.sqrt(square)
    known = all(len(v) > 1 for v in values)
    total = over_seeds + over_images
    between = over_seeds / total if known and total else None
    counts = len(first), len(second)
    words = _sentence(value, low, high, counts, count, known)
    return Difference(value, low, high, counts, count, paired, between, words)


def _common_images(runs: Sequence[ImageMetric]) -> int:
    """Return the number of the images, which must be the same for all runs."""
    images = list(runs[0].images)
    if any(list(run.images) != images for run in runs):
        raise UserError(
            "the runs were evaluated on different images; evaluate all of them on one dataset"
        )
    return len(images)


def _values(runs: Sequence[ImageMetric]) -> np.ndarray:
    """Return the metric of each run on all images."""
    plain = np.ones((1, len(runs[0].images)))
    return np.array([float(run.values(plain)[0]) for run in runs])


def _resampled(runs: Sequence[ImageMetric], count: int, samples: int) -> np.ndarray:
    """Return the mean over the runs on each resampled validation set."""
    weights = bootstrap_weights(count, samples)
    return np.mean([run.values(weights) for run in runs], axis=0)


def _variance(values: np.ndarray) -> float:
    """Return the variance of the values that are defined; 0 for fewer than two."""
    values = values[~np.isnan(values)]
    return float(np.var(values, ddof=1)) if len(values) > 1 else 0.0


def _quantile(freedom: float) -> float:
    """Return the quantile of Student's t that bounds the interval."""
    return float(special.stdtrit(freedom, (1 + LEVEL) / 2))


def _same(first: Sequence[int], second: Sequence[int]) -> bool:
    return len(first) > 1 and len(set(first)) == len(first) and sorted(first) == sorted(second)


def _sentence(
    value: float, low: float, high: float, seeds: tuple[int, int], images: int, known: bool
) -> str:
    """Return what an interval of a difference says."""
    count = str(seeds[0]) if seeds[0] == seeds[1] else f"{seeds[0]} and {seeds[1]}"
    noun = "seed" if seeds == (1, 1) else "seeds"
    basis = f"{count} {noun} and {images:,} images"
    numbers = f"{value:+.2f} (95 % interval {low:+.2f} to {high:+.2f})"
    if not (low > 0 or high < 0):
        return f"No difference can be shown with {basis}: {numbers}."
    if not known:
        return (
            f"The trained models differ by {numbers} with {basis}; whether their configurations "
            "do, only several seeds of each can show."
        )
    return f"There is a difference of {numbers} with {basis}."
