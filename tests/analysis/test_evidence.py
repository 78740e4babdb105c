"""Intervals are those of resampled datasets, and comparisons rarely find a difference by chance."""

import copy

import numpy as np
import pytest
from support.coco_data import CASES, dataset

from ccsa.analysis.detections import match_images
from ccsa.analysis.evidence import bootstrap_weights, difference, interval
from ccsa.analysis.image_metrics import AveragePrecision, MeanQuality, PixelMetric
from ccsa.errors import UserError
from ccsa.evaluation.coco_metrics import REFERENCE, evaluate_coco
from ccsa.evaluation.panoptic_quality import PanopticQuality


@pytest.mark.parametrize("task", ["bbox", "segm"])
@pytest.mark.parametrize("case", CASES)
def test_ap_of_all_images_is_that_of_pycocotools(case, task):
    truth, results = dataset(**CASES[case])
    matches = match_images(truth, results, task)
    expected = evaluate_coco(truth, results, task, evaluator=REFERENCE)
    weights = np.ones((1, len(matches)))
    assert AveragePrecision(matches).values(weights) == pytest.approx(
        expected.metrics()["AP"], abs=1e-9
    )
    ap50 = AveragePrecision(matches, [0])
    assert ap50.values(weights) == pytest.approx(expected.metrics()["AP50"], abs=1e-9)
    by_class = dict(
        zip(ap50.classes, AveragePrecision(matches).class_values(weights)[0], strict=True)
    )
    assert by_class == pytest.approx(
        {k: v for k, v in expected.category_ap().items() if not np.isnan(v)}, abs=1e-9
    )


def repeated(truth, results, weights):
    """Return a dataset in which image i occurs weights[i] times, under new ids."""
    images, annotations, found = [], [], []
    for image, count in zip(truth["images"], weights, strict=True):
        for _ in range(count):
            number = len(images) + 1
            images.append({**image, "id": number})
            for part, copies in ((truth["annotations"], annotations), (results, found)):
                for entry in part:
                    if entry["image_id"] == image["id"]:
                        copies.append({**copy.deepcopy(entry), "image_id": number})
    for i, annotation in enumerate(annotations, 1):
        annotation["id"] = i
    return {**truth, "images": images, "annotations": annotations}, found


def test_weights_repeat_images_as_a_resampled_dataset_does():
    truth, results = dataset(crowds=0.1, images=10)
    for i, result in enumerate(results):
        result["score"] = (i * 7919 % 10007) / 10007  # equal scores are sorted by their image
    metric = AveragePrecision(match_images(truth, results, "segm"))
    weights = bootstrap_weights(10, 5, seed=3)
    values = metric.values(weights)
    assert np.ptp(values) > 1
    weights = weights.astype(int)
    for row, value in zip(weights, values, strict=True):
        expected = evaluate_coco(*repeated(truth, results, row), "segm", evaluator=REFERENCE)
        assert value == pytest.approx(expected.metrics()["AP"], abs=1e-9)
    found = interval(metric, samples=200)
    low, high = np.quantile(metric.values(bootstrap_weights(10, 200)), [0.025, 0.975])
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    assert found.low < found.value < found.high


def test_miou_and_panoptic_quality_of_weighted_images():
    rng = np.random.default_rng(0)
    correct = rng.integers(0, 50, (6, 3))
    counts = np.stack([correct, correct + rng.integers(0, 30, (6, 3)), correct + 9], 1)
    counts[:, :2, 2] = 0  # a class that is predicted and never labelled
    weights = np.array([[2, 0, 1, 1, 0, 3]])
    sums = (counts * weights[0][:, None, None]).sum(0)
    ious = [sums[0, k] / (sums[1, k] + sums[2, k] - sums[0, k]) for k in range(2)]
    assert PixelMetric("mIoU", range(6), counts).values(weights) == pytest.approx(
        100 * np.mean(ious)
    )

    images = {
        i: {k: [float(rng.random() * n), n, int(rng.integers(3)), 1] for k, n in ((1, 3), (7, 2))}
        for i in range(6)
    }
    quality = PanopticQuality({1: True, 7: False})
    for i, count in enumerate(weights[0]):
        for _ in range(count):
            quality.add(images[i])
    expected = 100 * quality.results()["All"]["pq"]
    assert MeanQuality(images).values(weights) == pytest.approx(expected, abs=1e-9)


class Mean:
    """A metric that is the mean of one value of each image."""

    def __init__(self, values):
        self.each, self.images = np.asarray(values), range(len(values))

    def values(self, weights):
        return weights @ self.each / weights.sum(1)


def simulated(rng, seeds, images, effect, seed_noise=1.0, image_noise=10.0):
    """Return the metrics of two configurations: images differ in difficulty, the same for all runs,
    seeds shift a run as a whole, and each run has noise of its own on each image."""
    difficulty = rng.normal(50, 20, images)
    return [
        [
            Mean(difficulty + rng.normal(shift, seed_noise) + rng.normal(0, image_noise, images))
            for _ in range(seeds)
        ]
        for shift in (0.0, effect)
    ]


@pytest.mark.parametrize(("seeds", "paired"), [(2, True), (5, True), (5, False)])
def test_equal_configurations_rarely_differ_and_different_ones_do(seeds, paired):
    rng = np.random.default_rng(7)
    numbers = (range(seeds),) * 2 if paired else None
    # The difference that is found with 5 seeds and 200 images, in the unit of the metric: four
    # times the standard deviation over seeds.
    claims = {
        effect: np.mean(
            [
                difference(*simulated(rng, seeds, 200, effect), numbers, samples=100).shown
                for _ in range(1000)
            ]
        )
        for effect in (0.0, 4.0)
    }
    assert claims[0.0] <= 0.065, claims
    if seeds == 5:
        assert claims[4.0] >= 0.8, claims


def test_the_sentence_states_seeds_images_and_interval():
    rng = np.random.default_rng(0)
    first, second = simulated(rng, 3, 100, 20.0)
    found = difference(first, second, ((1, 2, 3), (3, 1, 2)))
    assert found.paired and found.shown and found.seeds == (3, 3)
    numbers = f"{found.value:+.2f} (95 % interval {found.low:+.2f} to {found.high:+.2f})"
    assert found.sentence == f"There is a difference of {numbers} with 3 seeds and 100 images."
    same = difference(first, first[:2])
    assert same.sentence.startswith("No difference can be shown with 3 and 2 seeds and 100 images:")
    assert not same.paired and not same.shown
    alone = difference(first[:1], second[:1])
    assert alone.between_seeds is None and alone.shown
    assert "only several seeds of each can show" in alone.sentence
    itself = difference(first[:1], first[:1])
    assert (itself.value, itself.low, itself.high) == (0, 0, 0)
    assert itself.sentence.startswith("No difference can be shown with 1 seed and 100 images")
    with pytest.raises(UserError, match="different images"):
        difference(first, [Mean(np.zeros(3))])


def test_paired_seeds_without_noise_of_images_give_students_t():
    from scipy import stats

    values = np.array([[50.0, 52.0, 51.0], [52.5, 54.0, 53.9]])
    first, second = ([Mean(np.full(40, v)) for v in row] for row in values)
    found = difference(first, second, ((1, 2, 3),) * 2)
    expected = stats.ttest_rel(values[1], values[0]).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    found = difference(first, second)
    expected = stats.ttest_ind(values[1], values[0], equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
