"""Panoptic quality agrees with the published program and with sets of pixels."""

import json
import math
from collections import Counter

import numpy as np
import pytest
from support import panoptic_files as files

from ccsa.data.panoptic import Segment
from ccsa.evaluation import PanopticQuality, evaluate_files
from ccsa.evaluation.panoptic_quality import count_image, count_overlaps
from ccsa.evaluation.panoptic_tables import as_json

ISTHING = {c["id"]: bool(c["isthing"]) for c in files.CATEGORIES}
CAT, DOG, SKY, SEA = ISTHING


def test_published_results(vectors):
    folder = vectors / "panoptic_quality"
    places = [folder / name for name in ("gt.json", "gt", "pred.json", "pred")]
    quality, truth = evaluate_files(*places)
    expected = json.loads((folder / "expected.json").read_text())
    found = json.loads(json.dumps(as_json(quality.results())))
    assert found.keys() == expected.keys() and len(truth.annotations) == 12
    for group in ("All", "Things", "Stuff"):
        assert found[group] == pytest.approx(expected[group], rel=0, abs=1e-9)
    assert found["per_class"].keys() == expected["per_class"].keys()
    for number, qualities in expected["per_class"].items():
        assert found["per_class"][number] == pytest.approx(qualities, rel=0, abs=1e-9)


def slow_counts(truth, true_segments, predicted, predicted_segments, seen):
    """Compute the sums of each category from sets of pixels; ``seen`` counts its cases."""
    sums = {category: [0.0, 0, 0, 0] for category in ISTHING}

    def pixels(ids, number):
        return {(y, x) for y in range(len(ids)) for x in range(len(ids[0])) if ids[y][x] == number}

    void = pixels(truth, 0)
    true = {s.id: pixels(truth, s.id) for s in true_segments}
    found = {s.id: pixels(predicted, s.id) for s in predicted_segments}
    crowd_of = {}
    for s in true_segments:
        if s.iscrowd:
            crowd_of[s.category_id] = true[s.id]
    free = {s.id for s in predicted_segments}
    for s in true_segments:
        if s.iscrowd:
            seen["crowd"] += 1
            continue
        for p in predicted_segments:
            if p.category_id != s.category_id:
                continue
            iou = len(true[s.id] & found[p.id]) / len(true[s.id] | (found[p.id] - void))
            if iou > 0.5:
                sums[s.category_id][0] += iou
                sums[s.category_id][1] += 1
                free.remove(p.id)
                break
        else:
            sums[s.category_id][3] += 1
    for p in predicted_segments:
        if p.id not in free:
            continue
        ignored = void | crowd_of.get(p.category_id, set())
        if len(found[p.id] & ignored) > len(found[p.id]) / 2:
            seen["forgiven by void" if found[p.id] & void else "forgiven by crowd"] += 1
        else:
            sums[p.category_id][2] += 1
    return sums


def segments_of(infos):
    return [
        Segment(s["id"], s["category_id"], bool(s.get("iscrowd")), s.get("area")) for s in infos
    ]


def random_pairs(seed, count):
    """Draw images of several sizes with crowds and void, some without segments or predictions."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        size = rng.integers(1, 13, 2)
        ids, true = files.paint(rng, size, int(rng.integers(0, 7)), crowds=0.2)
        predicted, guessed = files.disturb(rng, ids, true)
        if number % 7 == 0:
            predicted, guessed = files.paint(rng, size, 3)
        if number % 11 == 0:
            predicted, guessed = np.zeros_like(ids), []
        yield ids, segments_of(true), predicted, segments_of(guessed)


def test_against_sets_of_pixels():
    seen = Counter()
    total = {category: np.zeros(4) for category in ISTHING}
    for pair in random_pairs(3, 400):
        expected = slow_counts(*pair, seen)
        found = count_image(*pair)
        for category in ISTHING:
            np.testing.assert_allclose(found.get(category, [0] * 4), expected[category], atol=1e-12)
            total[category] += expected[category]
        seen["no segments"] += not pair[1]
        seen["nothing predicted"] += not pair[3]
    assert len(seen) == 5 and min(seen.values()) > 10, seen
    assert all((sums > 10).all() for sums in total.values()), total


def test_overlaps_of_maps_without_runs():
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 2**24, (2, 20, 30)) // 2**21 * 2**21
    expected = Counter(zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True))
    assert count_overlaps(truth, predicted) == expected


def map_of(*rows):
    return np.array([[int(c) for c in row] for row in rows])


def counts(truth, true_segments, predicted, predicted_segments):
    return count_image(map_of(*truth), true_segments, map_of(*predicted), predicted_segments)


def test_an_iou_of_one_half_is_no_match():
    half = counts(["1111"], [Segment(1, CAT)], ["1100"], [Segment(1, CAT)])
    assert half == {CAT: [0.0, 0, 1, 1]}
    more = counts(["1111"], [Segment(1, CAT)], ["1110"], [Segment(1, CAT)])
    assert more == {CAT: [0.75, 1, 0, 0]}


def test_void_is_left_out_of_the_union():
    found = counts(["110000"], [Segment(1, CAT)], ["555555"], [Segment(5, CAT)])
    assert found == {CAT: [1.0, 1, 0, 0]}  # with them it would be 2 / 6, and no match


def test_half_on_void_or_crowd_is_counted_and_more_is_forgiven():
    crowd = [Segment(1, CAT, iscrowd=True), Segment(2, SKY)]
    assert counts(["1122"], crowd, ["3333"], [Segment(3, CAT)])[CAT] == [0.0, 0, 1, 0]
    assert CAT not in counts(["1112"], crowd, ["3333"], [Segment(3, CAT)])
    assert counts(["1112"], crowd, ["3333"], [Segment(3, DOG)])[DOG] == [0.0, 0, 1, 0]
    assert CAT not in counts(["0012"], crowd, ["3333"], [Segment(3, CAT)])  # void and crowd


def test_of_several_crowds_of_a_category_the_last_counts():
    """The last crowd region of a category counts, as in panopticapi."""
    crowds = [Segment(1, CAT, iscrowd=True), Segment(2, CAT, iscrowd=True)]
    assert counts(["1112"], crowds, ["3333"], [Segment(3, CAT)])[CAT] == [0.0, 0, 1, 0]
    assert counts(["1222"], crowds, ["3333"], [Segment(3, CAT)]) == {}


def test_the_area_of_the_json_counts():
    """The area is that of the JSON, as in panopticapi, or counted in pixels if it has none."""
    for area, iou in ((8, 0.5), (5, 0.8), (None, 1.0), (0, 1.0)):
        found = counts(["1111"], [Segment(1, CAT, area=area)], ["1111"], [Segment(1, CAT)])
        assert found == {CAT: [iou, 1, 0, 0] if iou > 0.5 else [0.0, 0, 1, 1]}


def test_averages_are_of_the_classes_that_occur():
    quality = PanopticQuality(ISTHING)
    quality.add({CAT: [1.5, 2, 1, 1], SKY: [0.0, 0, 0, 2]})
    results = quality.results()
    assert results["per_class"][CAT] == {"pq": 0.5, "sq": 0.75, "rq": pytest.approx(2 / 3)}
    assert results["per_class"][SKY] == {"pq": 0.0, "sq": 0.0, "rq": 0.0}
    assert all(math.isnan(results["per_class"][c]["pq"]) for c in (DOG, SEA))
    assert results["All"]["pq"] == 0.25 and results["All"]["n"] == 2
    assert results["Things"]["pq"] == 0.5 and results["Things"]["n"] == 1
    assert results["Stuff"]["pq"] == 0.0 and results["Stuff"]["n"] == 1
    written = as_json(results)
    assert written["per_class"][str(DOG)] == {"pq": 0.0, "sq": 0.0, "rq": 0.0}  # as panopticapi


def test_nothing_at_all_is_nan_and_can_be_written():
    quality = PanopticQuality(ISTHING)
    quality.add(count_image(np.zeros((3, 4), int), [], np.zeros((3, 4), int), []))
    results = quality.results()
    for group in ("All", "Things", "Stuff"):
        assert results[group]["n"] == 0 and math.isnan(results[group]["pq"])
    json.dumps(as_json(results), allow_nan=False)


def test_maps_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 4\)"):
        counts(["1111"], [], ["1"], [])
