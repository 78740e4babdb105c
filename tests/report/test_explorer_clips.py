"""The attention explorer for models of clips: weights with axes (T, H, W), and its slider."""

import copy
import json
import re

import explore as tool
import numpy as np
import pytest
import torch
from PIL import Image
from support.browser import By, Keys, WebDriverWait, console_errors, hover, open_page
from support.browser import wait_for_redraw as redraw
from support.tiny_runs import VIDEO, activate_blocks, write_run

from ccsa.analysis import attention_maps, dense_matrix
from ccsa.analysis.faithfulness import replaced
from ccsa.errors import UserError
from ccsa.ops import criss_cross_weights
from ccsa.prediction import Predictor
from ccsa.report.explorer import write_page
from ccsa.report.explorer_clips import clip_weights, read_sources
from ccsa.report.explorer_data import reduced_weights
from ccsa.visualization.videos import video_writer

SIZE = FRAMES, HEIGHT, WIDTH = 3, 10, 12
PIXELS = 38, 46  # padded to 40 x 48


@pytest.fixture(scope="module", autouse=True)
def no_truth():
    """Do not generate the dataset of the run: the frames of this test belong to none."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(tool, "find_truth", lambda *_: {})
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Write a run whose attention is neither uniform nor on one position, and gamma is not 0."""
    config = copy.deepcopy(VIDEO)
    config["INPUT"]["CLIP"]["LABELLED"] = "middle"
    folder = write_run(tmp_path_factory.mktemp("video") / "run", config)
    activate_blocks(folder, gamma=0.6)
    return folder


@pytest.fixture(scope="module")
def frames(tmp_path_factory):
    folder, random = tmp_path_factory.mktemp("frames"), np.random.default_rng(0)
    files = [folder / f"{index}.png" for index in range(2 * FRAMES)]
    for file in files:
        Image.fromarray(random.integers(0, 255, (*PIXELS, 3), np.uint8)).save(file)
    return files


@pytest.fixture(scope="module")
def page(run, frames, tmp_path_factory):
    """Return the page that the tool writes for two clips."""
    file = tmp_path_factory.mktemp("page") / "page.html"
    with pytest.MonkeyPatch.context() as context:
        words = ["--weights", str(run), "--input", *map(str, frames), "--output", str(file)]
        context.setattr("sys.argv", ["explore.py", *words])
        tool.main()
    return file


@pytest.fixture(scope="module")
def expected(run, frames):
    """Return the dense matrices of both applications for the first clip, and their maps."""
    predictor = Predictor.from_run(run)
    clip = predictor.read_clip(frames[:FRAMES])
    maps = attention_maps(predictor.model, [predictor.prepare(clip)])
    ((found,),) = maps.criss_cross.values()
    first, second = (dense_matrix(w.double())[0].numpy() for w in found.weights)
    identity = np.eye(len(first))
    return {
        "Application 1": first,
        "Application 2": second,
        "Composed attention": second @ first,
        "Positional part of the output": (identity + 0.6 * second) @ (identity + 0.6 * first),
    }


def assert_shows(driver, expected, frame, y, x, reverse=False):
    """Check every map against the dense matrices, and the words below the composed attention."""
    place = (frame * HEIGHT + y) * WIDTH + x
    script = "return explorer.views[0].panels.map((p) => [p.name, Array.from(p.current)])"
    assert driver.execute_script("return explorer.views[0].position") == place
    shown = dict(driver.execute_script(script))
    assert list(shown) == [*expected, "Norm of the contribution"]
    for name, matrix in expected.items():
        wanted = matrix[:, place] if reverse else matrix[place]
        np.testing.assert_allclose(shown[name], wanted, rtol=0, atol=1e-3, err_msg=name)
    composed = expected["Composed attention"]
    wanted = (composed[:, place] if reverse else composed[place]).reshape(SIZE)
    wanted = wanted / wanted.sum()
    t, i, j = np.indices(SIZE)
    entropy = -(wanted[wanted > 0] * np.log2(wanted[wanted > 0])).sum()
    distance = (wanted * np.hypot(i - y, j - x)).sum()
    apart = (wanted * np.abs(t - frame)).sum()
    words = driver.execute_script("return explorer.views[0].panels[2].numbers.textContent")
    numbers = [float(n) for n in re.findall(r"\d+\.\d", words.partition("Entropy")[2])]
    np.testing.assert_allclose(numbers, [entropy, distance, apart], atol=0.11)
    shares = driver.execute_script("return Array.from(explorer.views[0].panels[2].shares)")
    np.testing.assert_allclose(shares, wanted.sum((1, 2)), atol=1e-3)


def drawn(driver, panel=2):
    return driver.execute_script(
        "return explorer.views[0].panels[arguments[0]].canvas.toDataURL()", panel
    )


@pytest.mark.parametrize("width", [1600, 390])
def test_the_page_shows_the_attention_in_every_frame(page, expected, width):
    with open_page(page, width=width) as driver:
        WebDriverWait(driver, 20).until(lambda d: d.execute_script("return explorer.ready"))
        canvas = driver.find_elements(By.CSS_SELECTOR, "canvas.map")[2]
        hover(driver, canvas, 0.5 * 12 / 11.5, 0.5 * 10 / 9.5)
        assert_shows(driver, expected, 1, 5, 6)  # the predicted frame is displayed first
        before = drawn(driver)
        slider = driver.find_element(By.ID, "frame")
        assert slider.accessible_name == "Displayed frame" and slider.aria_role == "slider"
        slider.send_keys(Keys.ARROW_RIGHT)
        redraw(driver)
        assert slider.get_attribute("aria-valuetext") == "Frame 3, of 3"
        assert drawn(driver) != before
        assert_shows(driver, expected, 1, 5, 6)  # the position stays in its frame
        hover(driver, canvas, 0.13, 0.05)
        assert_shows(driver, expected, 2, 0, 1)
        assert driver.find_element(By.ID, "status").text.startswith("Frame 3 of 3, row 1 of 10")
        slider.send_keys(Keys.HOME)
        driver.find_element(By.ID, "runs").send_keys(Keys.ARROW_DOWN)
        redraw(driver)
        assert_shows(driver, expected, 0, 1, 1)
        driver.find_element(By.ID, "runs").send_keys("r")
        redraw(driver)
        assert_shows(driver, expected, 0, 1, 1, reverse=True)
        driver.find_element(By.ID, "runs").send_keys("f")
        redraw(driver)
        assert slider.get_attribute("value") == "2"
        strip = driver.find_elements(By.CSS_SELECTOR, ".strip figcaption")
        assert [each.text.partition(":")[0] for each in strip] == [
            *("Frame 1", "Frame 2, predicted", "Frame 3")
        ]
        assert driver.execute_script("return document.documentElement.scrollWidth") <= width
        assert not console_errors(driver)


def test_the_page_stores_both_clips_and_no_dense_matrix(page):
    text = page.read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    clips = data["runs"][0]["images"]
    assert [clip["name"] for clip in clips] == ["1.png", "4.png"]  # the predicted frames
    assert [f["name"] for f in clips[1]["frames"]] == ["3.png", "4.png", "5.png"]
    (block,) = clips[0]["blocks"]
    assert block["size"] == list(SIZE) and len(block["weights"]) == 2
    assert 0 < block["check"]["attended"] < 1


def test_frames_that_are_not_whole_clips_are_rejected(run_tool, run, frames, tmp_path):
    words = ["--weights", run, "--output", tmp_path / "page.html", "--input"]
    status, _, errors = run_tool(tool, *words, *frames[:4])
    assert status == 2 and "4 images are not a multiple of 3" in errors
    other = tmp_path / "other.png"
    Image.new("RGB", (8, 8)).save(other)
    status, _, errors = run_tool(tool, *words, *frames[:2], other)
    assert status == 2 and "the frames of a clip need the same size" in errors


def test_models_of_different_clips_are_not_compared(tmp_path):
    one = {"name": "a", "images": [{"frames": [{}, {}]}]}
    with pytest.raises(UserError, match="a takes 2 and b takes 1 frames"):
        write_page([one, {"name": "b", "images": [{}]}], tmp_path / "page.html")


def test_blocks_of_single_frames_give_other_frames_no_weight():
    query = torch.randn(3, 2, 4, 5)
    weights = criss_cross_weights(query, query)
    dense = dense_matrix(clip_weights(weights)[None])[0]
    torch.testing.assert_close(dense, torch.block_diag(*dense_matrix(weights)))


def test_reduced_weights_of_clips_sum_to_one():
    query = torch.randn(1, 2, 3, 5, 7)
    small = reduced_weights(criss_cross_weights(query, query)[0], 2)
    assert small.shape == (3, 3, 4, 10)
    torch.testing.assert_close(small.sum(-1), torch.ones(3, 3, 4))


def test_each_frame_has_its_own_replaced_positions():
    mask = torch.zeros(2, 1, 2, dtype=torch.bool)
    mask[0, 0, 1] = mask[1, 0, 0] = True
    found = replaced(torch.ones(2, 3, 2, 4), mask, torch.zeros(3))
    assert found[0, 0].tolist() == [[1, 1, 0, 0]] * 2
    assert found[1, 2].tolist() == [[0, 0, 1, 1]] * 2


def test_a_video_gives_the_clip_around_its_middle(run, tmp_path):
    file = tmp_path / "clip.avi"
    with video_writer(file, 25, (40, 48)) as writer:
        for index in range(8):
            writer.write(np.full((40, 48, 3), 30 * index, np.uint8))
    (source,) = read_sources(Predictor.from_run(run), [file])
    assert source.frames == tuple(f"frame {n} of clip.avi" for n in (3, 4, 5))
    assert source.name == source.frames[1] and source.file is None
    np.testing.assert_allclose(source.pixels.mean((1, 2, 3)), [90, 120, 150], atol=3)
