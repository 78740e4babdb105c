"""docs/MODEL_ZOO.md lists every configuration once, with figure, weights and status; links hold."""

import re

import pytest
from detectron2.config import CfgNode

NOT_TRAINED = "not trained here"


def rows(root):
    """(configuration, cells by the heading of their column) of each row."""
    found, head = [], None
    for line in (root / "docs/MODEL_ZOO.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells:
            head = None
        elif head is None:
            head = cells
        elif head[0] == "config" and not set(line) <= set("|-"):
            name, file = re.fullmatch(r"\[(.+)\]\(\.\./configs/(.+)\.yaml\)", cells[0]).groups()
            assert name == file
            found.append((name, dict(zip(head, cells, strict=True))))
    return found


def test_every_config_is_in_one_row(root):
    files = [p.relative_to(root / "configs") for p in (root / "configs").rglob("*.yaml")]
    wanted = [str(p.with_suffix("")) for p in files if not p.name.startswith("Base-")]
    assert sorted(name for name, _ in rows(root)) == sorted(wanted)


def test_every_row_has_figure_weights_and_status(root):
    for name, row in rows(root):
        (paper,) = (row[key] for key in row if key.startswith(("paper", "published")))
        assert paper == "-" or re.match(r"(about )?\d\d\.\d", paper), name
        file = str(root / f"configs/{name}.yaml")
        weights = CfgNode.load_yaml_with_base(file)["MODEL"]["WEIGHTS"]
        source = re.sub(r".*/([^/]+)\.pkl", r"\1", weights).replace("timm://hub", "timm")
        assert row["weights"] == (source or "random") or (
            weights == "" and "(WEIGHTS.md)" in row["weights"]
        ), name
        trained = row["status"] != NOT_TRAINED
        assert not trained or re.fullmatch(r"trained: \[.+\]\(.+\)", row["status"]), name


@pytest.mark.parametrize("document", ["README.md", "docs"])
def test_links_between_documents_hold(root, document):
    place = root / document
    for file in [place] if place.is_file() else place.glob("*.md"):
        for target, _, anchor in re.findall(r"\]\((?!\w+:)([^)#]*)(#([^)]*))?\)", file.read_text()):
            linked = file.parent / target if target else file
            assert linked.exists(), (file.name, target)
            if anchor:
                titles = re.findall(r"^#+ (.*)", linked.read_text(), re.MULTILINE)
                anchors = {re.sub(r"[^\w\- ]", "", t).lower().replace(" ", "-") for t in titles}
                assert anchor in anchors, (file.name, target, anchor)
