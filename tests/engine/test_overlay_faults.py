"""Invalid overlays and combinations of overlays: each gives one sentence, in every order."""

import argparse

import pytest

from ccsa.engine import overlays as module
from ccsa.engine.setup import setup_cfg
from ccsa.errors import UserError


def load(root, name, words, opts=()):
    file = name if name.endswith(".yaml") else str(root / "configs" / f"{name}.yaml")
    options = ["MODEL.DEVICE", "cpu", *opts]
    return setup_cfg(argparse.Namespace(config_file=file, overlays=[words], opts=options))


def message(*args, **options):
    with pytest.raises(UserError) as error:
        load(*args, **options)
    text = str(error.value)
    assert "\n" not in text and len(text) < 1000, text
    return text


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        *((name, "overlays that fit: ccl, ") for name in (".", "..", "x" * 5000, "*", "criss*")),
        ("cris_cross", r"did you mean criss_cross\?$"),
        ("r3\0", r"did you mean r3\b.*\?$"),
    ],
)
def test_a_name_must_be_the_name_of_an_overlay(root, name, hint):
    with pytest.raises(UserError, match=rf"there is no such overlay in .*; {hint}"):
        load(root, "digits/ccnet", name)


@pytest.mark.parametrize("words", ["", " ", ",,", " , "])
def test_with_must_name_an_overlay(root, words):
    assert "--with names no overlay" in message(root, "digits/ccnet", words)


def test_paths_that_are_not_files(root, tmp_path, monkeypatch):
    monkeypatch.chdir(root)
    assert f"--with {tmp_path}/ is a folder; name a YAML file" in message(
        root, "mask_rcnn", f"{tmp_path}/"
    )
    text = message(root, "mask_rcnn", "configs/overlays/criss_cross")
    assert "is a folder" in text and "one of its files: ccnet_head.yaml, convnext_fpn.yaml" in text
    assert "did you mean r3, the overlay in" in message(root, "digits/ccnet", "r3.yaml")
    with pytest.raises(UserError, match="does not exist in"):
        load(root, "digits/ccnet", f"{'x' * 5000}.yaml")
    file = tmp_path / "a,b.yaml"
    file.write_text("SEED: 5")
    assert "cannot contain a comma" in message(root, "digits/ccnet", f"ccl,{file}")
    args = argparse.Namespace(config_file=str(root / "configs/digits"), opts=[])
    with pytest.raises(UserError, match=r"--config-file .*/digits is a folder; name a YAML file"):
        setup_cfg(args)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("_OVERLAY_: [1]", "_OVERLAY_ must be a mapping with the fields description"),
        ("_OVERLAY_: 3", "_OVERLAY_ must be a mapping"),
        ("_OVERLAY_: ''", "_OVERLAY_ must be a mapping"),
        ("_OVERLAY_: {1: x}", "_OVERLAY_ has no field 1"),
        ("_OVERLAY_: {fits: {1: x}}", "a key in fits must be a string, not 1"),
        ("_OVERLAY_: {fits: {MODEL: 1}}", "MODEL .* is a section of keys"),
        ("_OVERLAY_: {edit_blocks: {1: null}}", "a key in edit_blocks must be a string"),
        ("_OVERLAY_: {edit_blocks: {CrissCross: 3}}", "for CrissCross, or null .* not 3"),
        ("_OVERLAY_: {edit_blocks: {CrissCross: [a]}}", r"for CrissCross, or null .* not \['a'\]"),
        ("_OVERLAY_: {edit_blocks: {CrissCross: {1: 2}}}", "for CrissCross, or null"),
        ("MODEL: 3", r"MODEL \(in .*x.yaml\) is a section of keys .* e.g. MODEL\."),
        ("MODEL:", "is a section of keys"),
        ("SOLVER.MAX_ITER: 3", "writes SOLVER.MAX_ITER with a dot"),
        ("SEED: 2020-01-01", r"SEED \(in .*x.yaml\) must be an integer .* not datetime.date"),
        ("MODEL: &a {CONTEXT: *a}", "one of its YAML aliases refers to itself"),
        ("MODEL: {CONTEXT: {BLOCKS: &a [*a]}}", "one of its YAML aliases refers to itself"),
        *(
            (f"_BASE_: {bases}", "_BASE_ must be the path of a file or a list of paths")
            for bases in ("3", "[3]", "null", "{}", "[]", "[[a.yaml]]", "''", "['']")
        ),
        ("_BASE_: .", "_BASE_ .* is a folder; name a YAML file"),
        ("_BASE_: otter.yaml", "_BASE_ .*otter.yaml does not exist in .*; did you mean other.yaml"),
    ],
)
def test_a_file_that_is_not_an_overlay_is_named(root, tmp_path, text, said):
    file = tmp_path / "x.yaml"
    file.write_text(f"{text}\n")
    (tmp_path / "other.yaml").write_text("SEED: 1")
    with pytest.raises(UserError, match=said) as error:
        load(root, "digits/ccnet", str(file))
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("blocks", ["[CrissCross]", "null", "[3]", "[{recurrence: 1}]", "x"])
@pytest.mark.parametrize("words", ["r1", "no_block"])
def test_invalid_lists_of_blocks_are_named(root, tmp_path, blocks, words):
    file = tmp_path / "x.yaml"
    base = f"_BASE_: {root}/configs/digits/ccnet.yaml"
    file.write_text(f"{base}\nMODEL: {{SEM_SEG_HEAD: {{BLOCKS: {blocks}}}}}")
    assert "MODEL.SEM_SEG_HEAD.BLOCKS" in message(root, str(file), words)
    base = f"_BASE_: {root}/configs/mask_rcnn.yaml"
    file.write_text(f"{base}\nMODEL: {{CONTEXT: {{BLOCKS: {blocks}}}}}")
    assert "MODEL.CONTEXT.BLOCKS" in message(root, str(file), words)


@pytest.mark.parametrize(
    ("base", "names"),
    [
        ("digits/ccnet", "ccl,fcn"),
        ("digits/ccnet", "r3,fcn"),
        ("cityscapes/ccnet_R_50_os8_769_60k", "ccl,fcn"),
        ("cityscapes/ccnet_R_50_os8_769_60k", "r3,fcn"),
        ("cityscapes/ccnet_R_50_os8_769_60k", "non_local,fcn"),
        ("cityscapes/ccnet_R_50_os8_769_60k", "no_block,fcn"),
        ("pascal_context/sanet_R_50_os8_480_80ep", "se,fcn"),
        ("pascal_context/sanet_R_50_os8_480_80ep", "no_block,fcn"),
    ],
)
def test_an_overlay_for_a_head_that_another_one_replaces_is_rejected(root, base, names):
    for words in (names, ",".join(reversed(names.split(",")))):
        assert "does not fit" in (text := message(root, base, words)) or "no effect" in text


def test_conditions_hold_with_all_other_overlays(root, tmp_path):
    file, head = tmp_path / "x.yaml", tmp_path / "head.yaml"
    file.write_text("_OVERLAY_: {fits: {HEAD: CCNetHead}}\nSEED: 7")
    head.write_text("MODEL: {SEM_SEG_HEAD: {NAME: FCNHead}}")
    for words in (f"{file},{head}", f"{head},{file}"):
        assert "the semantic head is FCNHead" in message(root, "digits/ccnet", words)


def test_keys_of_a_head_that_the_model_does_not_have(root, tmp_path):
    file = tmp_path / "x.yaml"
    for text in (
        "MODEL: {SEM_SEG_HEAD: {NUM_CLASSES: 9}}",
        "MODEL: {SEM_SEG_HEAD: {CONVS_DIM: 9}}",
    ):
        for more in ("", "\nSEED: 9"):
            file.write_text(text + more)
            assert "the model has no semantic head" in message(root, "mask_rcnn", str(file))
    for text in ("CCL: {ENABLED: true}", "BLOCKS: []", "SANET: {CHANNELS: 9}"):
        file.write_text(f"MODEL: {{SEM_SEG_HEAD: {{{text}}}}}")
        assert "nothing that the model uses" in message(root, "digits/fcn", str(file))
    file.write_text("MODEL: {TIMM: {NAME: resnet18}}")
    assert "nothing that the model uses" in message(root, "mask_rcnn", str(file))


@pytest.mark.parametrize("block", ["criss_cross", "non_local"])
def test_an_overlay_that_fits_in_two_ways_is_ambiguous_in_any_order(root, block):
    for words in (f"ccnet_head,{block}", f"{block},ccnet_head"):
        text = message(root, "panoptic_fpn", words)
        assert f"--with {block} is ambiguous" in text
        assert f"{block}/ccnet_head.yaml or " in text and f"{block}/resnet_fpn.yaml" in text
    file = root / f"configs/overlays/{block}/resnet_fpn.yaml"  # the fix that the message names
    both = [load(root, "panoptic_fpn", w) for w in (f"ccnet_head,{file}", f"{file},ccnet_head")]
    assert both[0] == both[1] and len(both[0].MODEL.CONTEXT.BLOCKS) == 1
    text = message(root, "panoptic_fpn", f"{file},r3,ccnet_head") if block == "criss_cross" else ""
    assert not text or "put r3 last" in text


def test_named_overlays_need_a_clone(root, tmp_path, monkeypatch):
    missing = tmp_path / "configs" / "overlays"
    monkeypatch.setattr(module, "overlay_folder", lambda file: missing)
    text = message(root, "digits/ccnet", "r3")
    assert "an installed package does not include the overlays" in text and "the path of a" in text
    file = tmp_path / "x.yaml"
    file.write_text("SEED: 9")
    assert load(root, "digits/ccnet", str(file)).SEED == 9
