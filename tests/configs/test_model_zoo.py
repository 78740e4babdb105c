"""docs/MODEL_ZOO.md and configs/README.md list every configuration once; scores are published."""

import re

import pytest
from detectron2.config import CfgNode

NOT_TRAINED = "not trained here"
# Published scores on validation sets: CCNet's and SANet's papers, CCNet's README, MMSegmentation's.
CITYSCAPES = "cityscapes/ccnet_R_{}_os8_769_60k{}"
CONTEXT = "pascal_context/{}_os8_480_{}"
PUBLISHED = {
    CITYSCAPES.format(50, "_r0"): "73.3",
    CITYSCAPES.format(50, ""): "78.5",
    CITYSCAPES.format(50, "_nonlocal"): "77.3",
    CITYSCAPES.format(50, "_ccl"): "about 79.2",
    CITYSCAPES.format(101, "_r0"): "75.1",
    CITYSCAPES.format(101, "_r1"): "78.0",
    CITYSCAPES.format(101, ""): "79.8",
    CITYSCAPES.format(101, "_r3"): "80.2",
    CITYSCAPES.format(101, "_nonlocal"): "79.1",
    CITYSCAPES.format(101, "_ccl"): "80.5",
    CITYSCAPES.format(101, "_ohem"): "78.67 to 80.00, the official code's",
    "cityscapes/ccnet_R_50_mmseg": "79.03, MMSegmentation's",
    "cityscapes/ccnet_R_101_mmseg": "78.87, MMSegmentation's",
    "cityscapes/ccnet_R_101_official": "79.74, the official code's",
    "ade20k/ccnet_R_101_os8_100k": "45.22",
    "ade20k/ccnet_R_101_os8_100k_ccl": "45.76",
    "lip/ccnet_R_101_os16_473_150ep_ccl": "55.47, inside CE2P",
    "camvid/ccnet3d_R_101_os8_361x481_10k_T1": "77.9, backbone not known",
    "camvid/ccnet3d_R_101_os8_361x481_10k": "79.1, backbone not known",
    CONTEXT.format("fcn_R_50", "20ep"): "44.9",
    CONTEXT.format("fcn_R_101", "20ep"): "45.6",
    CONTEXT.format("sanet_R_50", "20ep_se"): "44.6",
    CONTEXT.format("sanet_R_101", "20ep_se"): "45.7",
    CONTEXT.format("sanet_R_50", "20ep"): "49.0",
    CONTEXT.format("sanet_R_101", "20ep"): "50.1",
    CONTEXT.format("sanet_R_101", "80ep"): "53.0, not confirmed",
    CONTEXT.format("sanet_R_101", "80ep_60cls"): "52.1",
    CONTEXT.format("sanet_efficientnet_b7", "80ep"): "55.3, not confirmed",
    CONTEXT.format("sanet_efficientnet_b7", "80ep_60cls"): "54.4",
    "mask_rcnn": "38.2 / 34.8",
    "nonlocal_mask_rcnn": "39.0 / 35.5",
    "ccnet_mask_rcnn": "39.3 / 36.1",
    "mask_rcnn_R_101": "40.1 / 36.2",
    "nonlocal_mask_rcnn_R_101": "40.8 / 37.1",
    "ccnet_mask_rcnn_R_101": "41.0 / 37.3",
}


def rows(root, first="configuration", document="docs/MODEL_ZOO.md"):
    """Return (configuration, cells by column) of each row of the tables with this first column."""
    found, head = [], None
    for line in (root / document).read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells:
            head = None
        elif head is None:
            head = cells
        elif head[0] == first and not set(line) <= set("|-"):
            name, file = re.fullmatch(
                r"\[(.+)\]\((?:\.\./configs/)?(.+)\.yaml\)", cells[0]
            ).groups()
            assert name == file
            found.append((name, dict(zip(head, cells, strict=True))))
    return found


def bases(root):
    return rows(root, "base", "configs/README.md")


def test_every_config_is_in_one_row(root):
    files = [p.relative_to(root / "configs") for p in (root / "configs").rglob("*.yaml")]
    wanted = [
        str(p.with_suffix(""))
        for p in files
        if not p.name.startswith("Base-") and p.parts[0] != "overlays"
    ]
    listed = [name for name, _ in [*rows(root), *bases(root)]]
    assert sorted(listed) == sorted(wanted)


def test_bases_without_a_score_are_bases_or_have_a_name_that_others_rely_on(root):
    assert not rows(root, "base")  # the zoo lists only files with a score, a run or weights
    names = {name for name, _ in bases(root)}
    assert not names & set(PUBLISHED)
    assert names and all(
        "digits/" in name
        or name.startswith("own/")
        or name in ("sa_mask_rcnn", "se_mask_rcnn")
        or name.endswith("panoptic_fpn")
        or "_R_50_" in name
        for name in names
    )


def test_every_row_has_figure_weights_and_status(root):
    found = {}
    for name, row in rows(root):
        (paper,) = (row[key] for key in row if key.startswith(("paper", "published")))
        assert paper == "-" or re.match(r"(about )?\d\d\.\d", paper), name
        found.update({name: paper} if paper != "-" else {})
        file = str(root / f"configs/{name}.yaml")
        weights = CfgNode.load_yaml_with_base(file)["MODEL"]["WEIGHTS"]
        source = re.sub(r".*/([^/]+)\.pkl", r"\1", weights).replace("timm://hub", "timm")
        assert row["weights"] == (source or "random") or (
            weights == "" and "(WEIGHTS.md)" in row["weights"]
        ), name
        trained = row["status"] != NOT_TRAINED
        assert not trained or re.fullmatch(r"trained: \[.+\]\(.+\)", row["status"]), name
        assert trained or paper != "-" or "(WEIGHTS.md)" in row["weights"], name
    assert found == PUBLISHED


@pytest.mark.parametrize("document", ["README.md", "docs", "configs"])
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
