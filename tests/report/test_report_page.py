"""The page of a report in a browser: no errors, no network, readable on a phone."""

import copy
import json
import re

import pytest
from support.browser import By, Keys, console_errors, open_page, requested_urls
from support.panoptic_digits import noisy_run

from ccsa.report.evaluation import report_data
from ccsa.report.page import render_report, write_report

HOSTILE = "</script><img src=x onerror='document.title=1'><!--"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    with noisy_run(tmp_path_factory.mktemp("page"), images=8) as run:
        found = report_data([run])
    points = {"iteration": list(range(40)), "value": [1 / (i + 1) for i in range(40)]}
    found["runs"][0]["curves"] = dict.fromkeys(
        ("total_loss", "loss_cls", "lr", "grad_norm"), points
    )
    found["runs"][0]["blocks"] = [{"path": "backbone.res4", "gamma": 0.5, "words": "It adds."}]
    return found


@pytest.fixture(scope="module")
def page(data, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "report.html"
    write_report(data, file)
    return file


@pytest.mark.parametrize("width", [390, 1600])
def test_the_page_needs_nothing_else_and_fits(page, width):
    assert page.stat().st_size < 3_000_000
    with open_page(page, width) as driver:
        assert console_errors(driver) == []
        assert [u for u in requested_urls(driver) if not u.startswith("file:")] == []
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        verdict = driver.find_element(By.CSS_SELECTOR, "header .verdict")
        assert "panoptic quality" in verdict.text and verdict.location["y"] < 200
        missing = driver.execute_script(
            "const wrong = i => !i.naturalWidth || i.naturalWidth > 320;"
            "return [...document.images].filter(wrong).length"
        )
        assert missing == 0
        targets = driver.execute_script(
            "return [...document.querySelectorAll('nav a')].map(a => a.getAttribute('href'))"
        )
        assert len(targets) == 10
        assert all(driver.find_elements(By.CSS_SELECTOR, target) for target in targets)


def test_tables_are_sorted_with_the_keyboard(page):
    with open_page(page) as driver:
        table = driver.find_element(By.CSS_SELECTOR, "table.sortable")

        def column(index):
            rows = table.find_elements(By.CSS_SELECTOR, "tbody tr")
            cells = [row.find_elements(By.CSS_SELECTOR, "th, td")[index].text for row in rows]
            return [float(text.replace("-", "-inf")) for text in cells]

        button = table.find_elements(By.TAG_NAME, "button")[2]
        button.send_keys(Keys.ENTER)
        assert column(2) == sorted(column(2), reverse=True)
        button.send_keys(Keys.ENTER)
        assert column(2) == sorted(column(2))
        table.find_elements(By.TAG_NAME, "button")[0].send_keys(Keys.ENTER)
        assert column(0) == list(range(10))


def test_light_and_dark(page):
    colors = []
    for scheme in ("light", "dark"):
        with open_page(page) as driver:
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
            script = (
                "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
            )
            colors.append(driver.execute_script(script))
    assert colors[0] == colors[1][::-1] or colors[0] != colors[1]
    assert sum(map(int, re.findall(r"\d+", colors[0][0])[:3])) > 600
    assert sum(map(int, re.findall(r"\d+", colors[1][0])[:3])) < 150


def test_names_cannot_break_out_of_the_page(data, tmp_path):
    hostile = copy.deepcopy(data)
    run = hostile["runs"][0]
    run["name"] = hostile["title"] = run["folder"] = HOSTILE
    run["classes"][0]["rows"][0]["name"] = HOSTILE
    run["detections"]["confusion"]["classes"][0] = HOSTILE
    run["worst"][0]["image"] = HOSTILE
    run["notes"].append(HOSTILE)
    hostile["verdict"]["sentences"].append(HOSTILE)
    text = render_report(hostile)
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert json.loads(found[1]) == json.loads(json.dumps(hostile))
    file = tmp_path / "hostile.html"
    file.write_text(text)
    with open_page(file) as driver:
        assert HOSTILE in driver.title
        assert console_errors(driver) == []
        assert HOSTILE in driver.find_element(By.TAG_NAME, "h1").text
