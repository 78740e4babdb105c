"""Overlays: which of them fit a base, and what they change."""

import argparse

import pytest

from ccsa.config import add_ccsa_config
from ccsa.engine import overlays as module
from ccsa.engine.config_files import flat_keys
from ccsa.engine.config_values import check_key
from ccsa.engine.setup import add_config_arguments, setup_cfg
from ccsa.errors import UserError


def load(root, name, *words, opts=()):
    file = str(root / "configs" / f"{name}.yaml")
    options = ["MODEL.DEVICE", "cpu", *opts]
    return setup_cfg(argparse.Namespace(config_file=file, overlays=list(words), opts=options))


def test_overlays_are_merged_in_order_and_before_the_options(root):
    cfg = load(root, "mask_rcnn", "R_101,criss_cross", "r3", opts=["MODEL.RESNETS.DEPTH", "50"])
    assert cfg.MODEL.CONTEXT.BLOCKS == [
        {"at": "backbone.bottom_up.res4.-2", "block": "CrissCross", "recurrence": 3}
    ]
    assert cfg.MODEL.WEIGHTS.endswith("R-101.pkl") and cfg.MODEL.RESNETS.DEPTH == 50


def test_the_recurrence_keeps_location_and_keywords(root):
    (block,) = load(root, "far_cue/any_ccnet_R2", "r1").MODEL.CONTEXT.BLOCKS
    (other,) = load(root, "far_cue/any_ccnet_R1").MODEL.CONTEXT.BLOCKS
    assert block == other == {**block, "recurrence": 1, "reduction": 2}
    assert load(root, "moving_cue/T5", "r0").MODEL.SEM_SEG_HEAD.BLOCKS == []


def test_one_name_has_a_file_for_each_kind_of_base(root):
    assert load(root, "mask_rcnn", "se") == load(root, "se_mask_rcnn")
    assert load(root, "digits/sanet", "se") == load(root, "digits/senet")
    assert load(root, "digits/ccnet_r0", "criss_cross") == load(root, "digits/ccnet")
    assert load(root, "digits/sanet", "no_block") == load(root, "digits/sanet_noblock")


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        ("mask_rcnn", "ccl", ["ccl", "configs/mask_rcnn.yaml", "CCNet's head", "no semantic head"]),
        ("mask_rcnn", "ccl", ["overlays that fit: convnext_tiny, criss_cross, non_local, R_101"]),
        ("mask_rcnn", "r3", ["--with r3 does not fit", "no context block", "criss_cross"]),
        ("nonlocal_mask_rcnn", "r3", ["the model has only NonLocal"]),
        ("mask_rcnn_R_101", "R_101", ["MODEL.RESNETS.DEPTH is 101", "overlays that fit"]),
        (
            "mask_rcnn",
            "sa,se",
            ["--with sa,se: both overlays change the block; use only one of them"],
        ),
        ("mask_rcnn", "no_block", ["has no effect on", "would change nothing that the model uses"]),
        (
            "ccnet_mask_rcnn",
            "criss_cross",
            ["has no effect on", "would change nothing that the model uses"],
        ),
        (
            "digits/ccnet",
            "ccl,ccl",
            ["no effect on", "with ccl: it would change nothing that the model uses"],
        ),
        ("digits/ccnet", "r0,criss_cross", ["r0 has no effect", "r0,criss_cross", "remove one"]),
        ("mask_rcnn", "criss_cross,convnext_tiny", ["MODEL.CONTEXT.BLOCKS is [{'at'"]),
        ("pascal_voc/sanet_R_50_os8_480_80ep", "R_101", ["fit:", "R_101_deep_stem"]),
        ("digits/fcn", "T1", ["models for video", "DenseSegmentor"]),
        (
            "digits/fcn",
            "cls",
            ["no such overlay in", "; did you mean 60cls or ccl?"],
        ),
        ("digits/ccnet", "r2", ["R = 2 is the default of", "overlays that fit: ccl, ", ", r3"]),
        ("digits/ccnet", "nothing", ["no such overlay in", "; overlays that fit: ccl, "]),
        (
            "digits/ccnet_mask_rcnn",
            "no_block,non_local",
            ["--with no_block,non_local: both overlays change the block; use only one of them"],
        ),
        ("digits/fcn", "gone.yaml", ["--with gone.yaml does not exist"]),
    ],
)
def test_an_overlay_that_does_not_fit_is_rejected(root, name, words, said):
    with pytest.raises(UserError) as error:
        load(root, name, words)
    assert all(text in str(error.value) for text in said), error.value
    assert "\n" not in str(error.value)


def test_a_file_of_the_user_is_an_overlay(root, tmp_path):
    file = tmp_path / "long.yaml"
    file.write_text("SOLVER: {MAX_ITER: 5}")
    assert load(root, "digits/fcn", f"ohem,{file}").SOLVER.MAX_ITER == 5
    for text, said in (
        ("SOLVER: {MAX_ITR: 5}", "SOLVER.MAX_ITER"),
        ("SOLVER: {MAX_ITER: 800}", "would change nothing that the model uses"),
        ("_OVERLAY_: {fit: {}}", "no field fit; did you mean fits"),
        ("_OVERLAY_: {kind: 3}", "kind must be a str"),
        ("_OVERLAY_: {fits: {HEAD: SANetHead}}\nSEED: 2", "the semantic head is FCNHead"),
        ("_OVERLAY_: {fits: {MODEL.HED: 1}}\nSEED: 2", "there is no key MODEL.HED"),
    ):
        file.write_text(text)
        with pytest.raises(UserError, match=said):
            load(root, "digits/fcn", str(file))


def test_overlays_can_be_bases(root, tmp_path):
    file, folder = tmp_path / "x.yaml", root / "configs"
    bases = [folder / "digits/ccnet.yaml", folder / "overlays/ccl.yaml"]
    file.write_text(f"_BASE_: [{', '.join(map(str, bases))}]")
    args = argparse.Namespace(config_file=str(file), opts=["MODEL.DEVICE", "cpu"])
    assert setup_cfg(args) == load(root, "digits/ccnet", "ccl")
    file.write_text(f"_BASE_: [{bases[0]}, {folder / 'overlays/r3.yaml'}]")
    with pytest.raises(UserError, match="edits context blocks in _BASE_; apply it by --with"):
        setup_cfg(args)


def test_a_configuration_elsewhere_uses_the_overlays_of_the_project(root, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(f"_BASE_: {root / 'configs/digits/ccnet.yaml'}")
    args = argparse.Namespace(config_file=str(file), overlays=["ccl"], opts=["MODEL.DEVICE", "cpu"])
    assert setup_cfg(args) == load(root, "digits/ccnet", "ccl")
    (tmp_path / "configs/overlays").mkdir(parents=True)
    assert module.overlay_folder(str(tmp_path / "configs/a/b.yaml")) == (
        tmp_path / "configs/overlays"
    )


def test_every_overlay_describes_itself(root):
    from detectron2.config import get_cfg

    cfg = get_cfg()
    add_ccsa_config(cfg)
    found = module.read_overlays(root / "configs" / "overlays")
    required = {"no_block", "criss_cross", "sa", "se", "non_local", "r0", "r1", "r3", "ccl", "ohem"}
    assert required | {"R_101", "R_101_deep_stem"} <= set(found)
    for overlay in (o for files in found.values() for o in files):
        assert overlay.description.endswith(".") and overlay.bases, overlay.file
        assert overlay.fits or overlay.edit_blocks, overlay.file
        for key in [*flat_keys(overlay.content), *overlay.fits]:
            if key not in ("ARCHITECTURE", "HEAD", "BLOCKS"):
                check_key(cfg, key, overlay.file)


def test_the_arguments_of_a_tool():
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    words = ["--config-file", "x.yaml", "--with", "R_101,ccl", "--with", "r3"]
    args = parser.parse_args(words)
    assert (args.config_file, args.overlays) == ("x.yaml", ["R_101,ccl", "r3"])
    assert parser.parse_args([]).overlays == []
