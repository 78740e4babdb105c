"""Tables and charts of made-up values."""

import re

import numpy as np
import pytest
from PIL import Image

from ccsa.analysis.chart import draw_chart
from ccsa.analysis.comparison import Comparison, Row, three_digits
from ccsa.analysis.measure import Cost
from ccsa.analysis.runs import Spread

COST = Cost(parameters=1_234_567, flops=2_345_000_000, seconds=0.0123, memory=3 * 2**20)
ROWS = [
    Row("plain", 3, Spread([60.0, 61.0, 65.0]), 2**30, COST),
    Row("other/with_a_name_that_is_long", 1, Spread([40.0]), None, None),
]


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown_has_a_line_for_each_group_and_its_notes():
    lines = Comparison("mIoU", ROWS, ["first", "second"]).markdown().splitlines()
    assert cells(lines[0])[:5] == ["", "runs", "mIoU", "std", "min to max"]
    assert cells(lines[2]) == [
        *("plain", "3", "62.0", "2.6", "60.0 to 65.0", "1.23 M", "2.35 G", "12.3"),
        *("1.00 GiB", "3.0 MiB"),
    ]
    assert cells(lines[3]) == ["other/with_a_name_that_is_long", "1", "40.0", *["-"] * 7]
    assert lines[4:] == ["", "* first", "* second"]


def test_the_terminal_has_the_same_figures():
    comparison = Comparison("mIoU", ROWS, [])
    table = comparison.table().splitlines()
    assert re.split(r"\s{2,}", table[2].strip()) == cells(comparison.markdown().splitlines()[2])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0.00"),
        (0.1604, "0.160"),
        (9.876, "9.88"),
        (99.94, "99.9"),
        (99.96, "100"),
        (2e6 / 3, "666,667"),
    ],
)
def test_three_digits(value, text):
    assert three_digits(value) == text


@pytest.fixture
def drawn(tmp_path):
    def draw(rows):
        path = tmp_path / "chart.png"
        draw_chart(Comparison("mIoU", rows, []), path)
        return np.asarray(Image.open(path).convert("RGB")).astype(int)

    return draw


def bars(picture):
    """Return the number of pixels of each saturated color that fills an area: those of the bars."""
    saturated = picture[(picture.max(-1) - picture.min(-1)) > 60]
    colors, counts = np.unique(saturated, axis=0, return_counts=True)
    return {tuple(c): n for c, n in zip(colors.tolist(), counts.tolist(), strict=True) if n > 200}


def test_bars_are_as_long_as_the_means(drawn):
    rows = [Row(name, 1, Spread([v]), None, None) for name, v in (("a", 20.0), ("b", 60.0))]
    short, long = sorted(bars(drawn(rows)).values())
    assert long / short == pytest.approx(3, rel=0.1)


def test_every_line_has_a_colour_of_its_own(drawn):
    rows = [Row(f"run {i}", 1, Spread([50.0]), None, None) for i in range(9)]
    assert len(bars(drawn(rows))) >= 8  # one of the colors is gray


def test_nothing_is_cut_off(drawn):
    rows = [row._replace(cost=COST, name=row.name * 2) for row in ROWS]
    picture = drawn(rows)
    edges = (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:])
    assert all((edge == 255).all() for edge in edges)


def test_costs_are_drawn_where_all_lines_have_them(drawn):
    alone = drawn(ROWS)
    beside = drawn([row._replace(cost=COST) for row in ROWS])
    assert beside.shape[1] > 1.5 * alone.shape[1]


def test_values_of_0_and_none_at_all_draw(drawn):
    nothing = COST._replace(flops=0)
    assert drawn([Row("a", 2, Spread([0.0, 0.0]), None, nothing)]).size
    assert drawn([Row("a", 1, Spread([float("nan")]), None, None)]).size
