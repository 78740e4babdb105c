"""The size of the attention explorer's page, and how fast it follows the mouse.

python -m pytest tests/soak/test_explorer.py -s    prints the table of docs/EXPLORER.md
"""

import copy

import numpy as np
import pytest
from PIL import Image
from support.browser import WebDriverWait, open_page
from support.tiny_runs import SEMANTIC, activate_blocks, write_run

from ccsa.prediction import Predictor
from ccsa.report.explorer import explore, write_page

HOVERS = """
const done = arguments[0];
const view = explorer.views[0];
const canvas = view.panels[0].canvas;
const box = canvas.getBoundingClientRect();
const frame = () => new Promise((go) => requestAnimationFrame(go));
(async () => {
  const times = [];
  for (let i = 0; i < 60; i++) {
    const x = box.left + box.width * ((i * 37) % 60) / 60;
    const y = box.top + box.height * i / 60;
    const draws = explorer.draws;
    for (let n = 0; n < 3; n++) {
      canvas.dispatchEvent(new PointerEvent("pointermove", {clientX: x, clientY: y}));
    }
    await frame();
    if (explorer.draws !== draws + 1) throw Error("three events need one redraw");
    if (i >= 10) times.push(explorer.milliseconds);
  }
  done(times);
})();
"""


@pytest.mark.parametrize(
    ("size", "largest_mb"), [((32, 32), 5), ((50, 84), 20), ((97, 97), 60)], ids=str
)
@pytest.mark.parametrize("sharpness", [0.1, 0.03])
def test_size_and_speed(root, tmp_path, size, largest_mb, sharpness):
    config = copy.deepcopy(SEMANTIC)
    config["MODEL"]["SEM_SEG_HEAD"]["BLOCKS"] = [{"block": "CrissCross", "recurrence": 2}] * 2
    run = write_run(tmp_path / "run", config)
    activate_blocks(run, gamma=0.5, scale=sharpness)
    height, width = (4 * n for n in size)
    scenes = np.asarray(Image.open(root / "docs" / "digits.jpg").convert("RGB"))
    files = []
    for index in range(3):
        top, left = 20 * index, 40 * index
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(scenes[top : top + height, left : left + width]).save(files[-1])
    page = tmp_path / "page.html"
    data = explore("model", Predictor.from_run(run), files)
    write_page([data], page)
    assert [b["size"] for b in data["images"][0]["blocks"]] == [list(size)] * 2
    mb = page.stat().st_size / 1e6
    with open_page(page) as driver:
        WebDriverWait(driver, 60).until(lambda d: d.execute_script("return explorer.ready"))
        times = driver.execute_async_script(HOVERS)
    median, worst = np.median(times), max(times)
    late = sum(t > 16 for t in times)
    print(f"\n{late} of 50 redraws above 16 ms; 90 % within {np.quantile(times, 0.9):.1f} ms")
    print(f"{size} sharpness {sharpness}: {mb:.1f} MB, {median:.1f} ms, {worst:.1f} ms at most")
    assert mb <= largest_mb and median <= 16
