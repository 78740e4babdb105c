"""The attention explorer: its page from the command line, and how it behaves in Chromium."""

import json
import re

import explore as tool
import numpy as np
import pytest
import torch
from support.browser import (
    By,
    Keys,
    WebDriverWait,
    console_errors,
    hover,
    open_page,
    requested_urls,
    wait_for_redraw,
)

from ccsa.analysis import attended_by, attending_to, attention_maps
from ccsa.prediction import Predictor
from ccsa.report.explorer import explore
from ccsa.report.explorer_data import decoded_weights


@pytest.fixture(scope="module")
def page(explorer_runs, explorer_images, tmp_path_factory):
    """Return the page that the tool writes for both runs and both images."""
    file, monkeypatch = tmp_path_factory.mktemp("page") / "page.html", pytest.MonkeyPatch()
    weights = [word for run in explorer_runs for word in ("--weights", str(run))]
    words = [*weights, "--input", *map(str, explorer_images), "--output", str(file)]
    with monkeypatch.context() as context:
        context.setattr("sys.argv", ["explore.py", *words])
        tool.main()
    return file


@pytest.fixture(scope="module")
def truth(explorer_runs, explorer_images):
    """Return the maps of the second run for the first image, as the library computes them."""
    predictor = Predictor.from_run(explorer_runs[1])
    maps = attention_maps(predictor.model, [predictor.prepare(explorer_images[0])])
    ((found,),) = maps.criss_cross.values()
    return found


def data_of(page):
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def one_at(size, y, x):
    positions = torch.zeros(1, *size)
    positions[0, y, x] = 1
    return positions


@pytest.mark.parametrize("gamma", [None, 0.7])
def test_the_data_of_the_page_composes_to_the_attention_of_the_model(page, truth, gamma):
    block = data_of(page)["runs"][1]["images"][0]["blocks"][0]
    height, width = block["size"]
    assert (height, width) == truth.weights[0].shape[1:3] == (13, 18)
    shape = (1, height, width, height + width)
    stored = [decoded_weights(text, shape) for text in block["weights"]]
    assert len(stored) == 2 and block["gamma"] == pytest.approx(0.7)
    for y, x in [(0, 0), (12, 17), (5, 7)]:
        here = one_at((height, width), y, x)
        for product in (attended_by, attending_to):
            expected = product(truth.weights, here, gamma)
            torch.testing.assert_close(
                product(stored, here, gamma).float(), expected, atol=1e-3, rtol=0
            )
    entropy = -(truth.weights[0] * truth.weights[0].clamp_min(1e-9).log2()).sum(-1).mean()
    assert 0.5 < entropy < 4  # neither one position nor all of them
    relative = truth.contribution_norm.mean() / truth.input_norms[0].mean()
    assert block["relative"] == pytest.approx(float(relative), rel=1e-4)


def test_the_page_states_the_faithfulness_check(page, explorer_runs):
    checks = [r["images"][0]["blocks"][0]["check"] for r in data_of(page)["runs"]]
    assert all(0 < check[key] < 1 for check in checks for key in ("score", "attended", "random"))
    with open_page(page) as driver:
        wait(driver)
        found = [e.text for e in driver.find_elements(By.CSS_SELECTOR, "p.check")]
    for text, check in zip(found, checks, strict=True):
        for key in ("score", "attended", "random"):
            assert f"{check[key]:.3f}" in text


def test_feature_maps_above_the_limit_are_reduced(explorer_runs, explorer_images):
    predictor = Predictor.from_run(explorer_runs[1])
    (image,) = explore("run", predictor, explorer_images[:1], limit=9)["images"]
    (block,) = image["blocks"]
    assert block["original"] == [13, 18] and block["size"] == [7, 9]
    stored = decoded_weights(block["weights"][0], (7, 9, 16))
    torch.testing.assert_close(stored.sum(-1), torch.ones(7, 9).double(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "page.txt"], "must end with .html"),
        (["--output", "page.html", "--largest", "1"], "--largest must be at least 2"),
    ],
)
def test_bad_arguments_are_rejected(run_tool, explorer_runs, explorer_images, words, message):
    words = ["--weights", explorer_runs[0], "--input", explorer_images[0], *words]
    status, _, errors = run_tool(tool, *words)
    assert status == 2 and message in errors


@pytest.fixture(params=[1600, 390])
def browser(page, request):
    """Open the page at the widths of a screen and of a phone."""
    with open_page(page, width=request.param) as driver:
        wait(driver)
        yield driver


def wait(driver):
    WebDriverWait(driver, 20).until(lambda d: d.execute_script("return window.explorer.ready"))


def values(driver, view, panel):
    script = "return Array.from(explorer.views[arguments[0]].panels[arguments[1]].current)"
    return np.array(driver.execute_script(script, view, panel))


def position(driver, view=1):
    place = driver.execute_script("return explorer.views[arguments[0]].position", view)
    return divmod(place, 18)


def names(driver, view):
    script = "return explorer.views[arguments[0]].panels.map((p) => p.name)"
    return driver.execute_script(script, view)


def pixels(driver, canvas):
    return driver.execute_script("return arguments[0].toDataURL()", canvas)


def assert_shows(driver, truth, y, x):
    """Check every map of the second run against the library for an attending position."""
    panels = names(driver, 1)
    here = one_at((13, 18), y, x)
    expected = {
        "Application 1": attended_by(truth.weights[:1], here),
        "Application 2": attended_by(truth.weights[1:], here),
        "Composed attention": attended_by(truth.weights, here),
        "Positional part of the output": attended_by(truth.weights, here, truth.gamma),
        "Norm of the contribution": truth.contribution_norm,
    }
    assert panels == list(expected)
    for index, wanted in enumerate(expected.values()):
        shown, wanted = values(driver, 1, index), wanted.numpy().ravel()
        scale = max(1.0, wanted.max())  # that of norms is larger than 1
        np.testing.assert_allclose(shown / scale, wanted / scale, rtol=0, atol=1e-3)


def test_pointing_changes_the_drawing_to_the_correct_values(browser, truth):
    canvas = browser.find_elements(By.CSS_SELECTOR, "canvas.map")[0]
    before = pixels(browser, canvas)
    # The image has 50 x 70 pixels, of which the 13 x 18 positions cover 52 x 72.
    hover(browser, canvas, 30 / 70, 22 / 50)
    assert position(browser) == (5, 7)
    assert_shows(browser, truth, 5, 7)
    assert pixels(browser, canvas) != before
    hover(browser, canvas, 69 / 70, 1 / 50)
    assert position(browser) == (0, 17)
    assert_shows(browser, truth, 0, 17)
    assert not console_errors(browser)
    assert requested_urls(browser) == [browser.current_url]


def test_the_most_attended_position_has_the_brightest_color(browser, truth):
    # Panel 2 of the second run shows the composed attention without the background.
    browser.execute_script(
        "const o = document.getElementById('opacity'); o.value = 100;"
        "o.dispatchEvent(new Event('input'))"
    )
    wait_for_redraw(browser)
    composed = values(browser, 1, 2)
    colors = browser.execute_script(
        "const {canvas} = explorer.views[1].panels[2]; const c = canvas.getContext('2d');"
        "const [h, w] = [canvas.height * 52 / 50 / 13, canvas.width * 72 / 70 / 18];"
        "const out = []; for (let y = 0; y < 12; y++) for (let x = 0; x < 17; x++)"
        "out.push(Array.from(c.getImageData((x + 0.5) * w, (y + 0.5) * h, 1, 1).data));"
        "return out"
    )
    table = np.array(browser.execute_script("return data.colors")).reshape(256, 3)
    inner = composed.reshape(13, 18)[:12, :17].ravel()
    steps = np.rint(255 * inner / composed.max()).astype(int)
    place = browser.execute_script("return explorer.views[1].position")
    marked = place // 18 * 17 + place % 18
    different = np.abs(np.array(colors)[:, :3] - table[steps]).max(1) > 2
    assert set(np.flatnonzero(different)) <= {marked}


def test_keys_move_the_position_and_reverse_the_question(browser, truth):
    body = browser.find_element(By.TAG_NAME, "body")
    start = position(browser)
    body.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_DOWN, Keys.ARROW_DOWN)
    wait_for_redraw(browser)
    y, x = position(browser)
    assert (y, x) == (start[0] + 2, start[1] + 1)
    assert_shows(browser, truth, y, x)
    body.send_keys("r")
    wait_for_redraw(browser)
    here = one_at((13, 18), y, x)
    expected = attending_to(truth.weights, here).numpy().ravel()
    np.testing.assert_allclose(values(browser, 1, 2), expected, atol=1e-3)
    body.send_keys("n")
    wait(browser)
    assert browser.execute_script("return explorer.views[0].image.name") == "1.png"
    assert not console_errors(browser)


def test_nothing_is_wider_than_the_window(browser):
    width = browser.execute_script("return document.documentElement.scrollWidth")
    assert width <= browser.execute_script("return window.innerWidth")
    cut = browser.execute_script(
        "return [...document.querySelectorAll('h1, h2, p, label, select, figcaption, figure')]"
        ".filter((e) => e.getBoundingClientRect().right > innerWidth + 1"
        " || e.scrollWidth > e.clientWidth + 1 && e.tagName != 'SELECT').map((e) => e.outerHTML)"
    )
    assert not cut
