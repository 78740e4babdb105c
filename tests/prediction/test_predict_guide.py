"""The Python examples of docs/PREDICT.md run, one after the other, with a tiny run and photos."""

import re

import numpy as np
from PIL import Image
from support import tiny_models, tiny_runs


def test_the_examples_of_the_guide_run(root, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config = tiny_models.MASK_RCNN
    tiny_runs.write_run(tmp_path / "output/digits/ccnet_mask_rcnn/1", config)
    (tmp_path / "photos").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (2, 96, 128, 3)).astype(np.uint8)
    for name, image in zip("ab", pixels, strict=True):
        Image.fromarray(image).save(tmp_path / "photos" / f"{name}.png")
    text = (root / "docs/PREDICT.md").read_text("utf-8")
    examples = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(examples) == 4
    # The scores of random weights are unknown, so all objects are kept.
    text = "\n".join(examples).replace('ccnet_mask_rcnn/1")', 'ccnet_mask_rcnn/1", confidence=0)')
    assert "confidence=0" in text
    names: dict = {}
    exec(compile(text, "docs/PREDICT.md", "exec"), names)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(names["predictor"]("photos/a.png").instances) > 0
    assert len(names["entries"]) > 0 and names["counts"] and (tmp_path / "drawn.png").is_file()
    assert len(names["data"].annotations) > 0
