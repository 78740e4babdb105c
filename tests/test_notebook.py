"""examples/first_steps.ipynb runs from top to bottom, with two iterations of training."""

import re

import numpy as np
import pytest
from support.notebooks import read_cells, run_notebook

from ccsa.data.synthetic.digits import write_digits

NOTEBOOK = "examples/first_steps.ipynb"


def test_the_notebook_runs_from_top_to_bottom(root, tmp_path, monkeypatch, capsys):
    write_digits(tmp_path / "data" / "digits", {"train": 8, "val": 3})
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "data"))
    monkeypatch.chdir(root / "examples")  # where Jupyter starts a notebook
    folder = str(tmp_path / "run")
    names = run_notebook(root / NOTEBOOK, ITERATIONS=2, FOLDER=folder)
    printed = capsys.readouterr().out
    assert str(tmp_path / "run" / "1" / "model_final.pth") in printed
    assert len(names["predictions"]) == 3 and "000001.jpg" in printed
    assert np.asarray(names["picture"]).shape == (1440, 960, 3)
    assert len(names["block"].weights) == 2 and "gamma" in printed
    panels = np.asarray(names["attention"])
    assert panels.shape == (160, 480, 3)
    one, two = ((panel > 0).mean() for panel in (panels[:, 160:320], panels[:, 320:]))
    assert 0 < 2 * one < two  # a cross after one application, more after two


def test_the_notebook_is_committed_without_outputs(root):
    for cell in read_cells(root / NOTEBOOK):
        if cell["cell_type"] == "code":
            assert not cell["outputs"] and cell["execution_count"] is None


def test_links_of_the_notebook_name_files(root):
    text = "\n".join(cell["source"] for cell in read_cells(root / NOTEBOOK))
    links = re.findall(r"\]\((\.\./[^)\s]+)\)", text)
    assert len(links) >= 3
    for link in links:
        assert (root / "examples" / link).resolve().is_file(), link


def test_unknown_parameters_are_an_error(root):
    with pytest.raises(AssertionError):
        run_notebook(root / NOTEBOOK, ITERATION=2)
