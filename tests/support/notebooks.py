"""Running the code cells of a notebook in this process, without Jupyter.

A kernel would need ten packages and a process of its own; the cells are plain Python.
"""

import json
from pathlib import Path
from typing import Any


def read_cells(file: Path) -> list[dict[str, Any]]:
    """Return the cells of a notebook (nbformat 4.5), whose ``source`` is one text."""
    content = json.loads(file.read_text("utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    cells = [{**cell, "source": "".join(cell["source"])} for cell in content["cells"]]
    assert len({cell["id"] for cell in cells}) == len(cells)
    return cells


def run_notebook(file: Path, **parameters: Any) -> dict[str, Any]:
    """Run the code cells in order, and return their variables.

    Args:
        file: the notebook.
        parameters: values that replace those of the cell with the tag ``parameters``.
    """
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in read_cells(file):
        if cell["cell_type"] != "code":
            continue
        exec(compile(cell["source"], f"{file.name}[{cell['id']}]", "exec"), names)
        if "parameters" in cell["metadata"].get("tags", ()):
            assert parameters.keys() <= names.keys()
            names |= parameters
    return names
