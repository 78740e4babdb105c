import argparse

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from ccsa import add_ccsa_config
from ccsa.engine import setup
from ccsa.engine.setup import resolve_device, setup_cfg
from ccsa.errors import UserError


def args(file, *opts):
    return argparse.Namespace(config_file=str(file), opts=list(opts))


@pytest.fixture
def config(root):
    return root / "configs/digits/ccnet_mask_rcnn.yaml"


def test_file_options_and_device(config):
    cfg = setup_cfg(args(config, "SOLVER.MAX_ITER", "7", "MODEL.DEVICE", "cpu"))
    assert cfg.SOLVER.MAX_ITER == 7
    assert cfg.MODEL.DEVICE == "cpu"
    assert cfg.MODEL.CONTEXT.BLOCKS[0]["block"] == "CrissCross"
    assert cfg.MODEL.RESNETS.DEPTH == 18  # from the file's _BASE_
    assert cfg.is_frozen()


def test_blocks_can_be_given_on_the_command_line(config):
    cfg = setup_cfg(
        args(config, "MODEL.CONTEXT.BLOCKS", "[{'at': 'backbone', 'block': 'NonLocal'}]")
    )
    assert cfg.MODEL.CONTEXT.BLOCKS == [{"at": "backbone", "block": "NonLocal"}]


@pytest.mark.parametrize(
    ("opts", "words"),
    [
        (["SOLVER.MAX_ITR", "7"], ["SOLVER.MAX_ITR", "SOLVER.MAX_ITER"]),
        (["SOLVER.MAX_ITER"], ["pairs"]),
        (["SOLVER.MAX_ITER", "many"], ["SOLVER.MAX_ITER", "many"]),
        (["SOLVER", "7"], ["SOLVER"]),
        (["MODEL.DEVICE", "gpu0"], ["gpu0", "cpu"]),
        (["MODEL.DEVICE", "mps"], ["mps", "cpu"]),
        (["MODEL.DEVICE", "cuda:99"], ["cuda:99", "CUDA devices"]),
        (["MODEL.DEVICE", "cpu", "--num-gpus", "2"], ["--num-gpus", "before"]),
    ],
)
def test_bad_options_are_named(config, opts, words):
    with pytest.raises(UserError) as error:
        setup_cfg(args(config, *opts))
    assert all(word in str(error.value) for word in words), error.value


def test_bad_files_are_named(tmp_path, root):
    with pytest.raises(UserError, match="--config-file"):
        setup_cfg(args(""))
    with pytest.raises(UserError, match=r"ccnet_mask_rcnn\.yaml"):
        setup_cfg(args(root / "configs/digits/ccnet_mask_rcn.yaml"))
    file = tmp_path / "x.yaml"
    for text, words in (
        ("MODEL: {WIEGHTS: a}", ["MODEL.WIEGHTS", "MODEL.WEIGHTS"]),
        ("MODEL: [", ["x.yaml"]),
        ("_BASE_: nowhere.yaml", ["nowhere.yaml"]),
        ("SOLVER: {MAX_ITER: soon}", ["SOLVER.MAX_ITER"]),
        ("A: !!python/object/apply:os.system ['true']", ["x.yaml"]),
    ):
        file.write_text(text)
        with pytest.raises(UserError) as error:
            setup_cfg(args(file))
        assert all(word in str(error.value) for word in words), error.value


def test_random_weights_are_not_frozen(root):
    coco = root / "configs/ccnet_mask_rcnn.yaml"
    pretrained, random = setup_cfg(args(coco)), setup_cfg(args(coco, "MODEL.WEIGHTS", ""))
    assert (pretrained.MODEL.RESNETS.NORM, pretrained.MODEL.BACKBONE.FREEZE_AT) == ("FrozenBN", 2)
    assert (random.MODEL.RESNETS.NORM, random.MODEL.BACKBONE.FREEZE_AT) == ("BN", 0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_cuda_is_refused_where_it_is_not():
    assert resolve_device("auto") == "cpu"
    for name in ("cuda", "cuda:0"):
        with pytest.raises(UserError, match="0 CUDA devices"):
            resolve_device(name)


@pytest.mark.parametrize("hardware", [True, False])
def test_mixed_precision_on_a_cpu_needs_bfloat16(config, monkeypatch, caplog, hardware):
    """Emulated, it was 4 to 12 times slower than float32."""
    monkeypatch.setattr(setup, "has_bfloat16", lambda: hardware)
    words = ["MODEL.DEVICE", "cpu"]
    assert setup_cfg(args(config, *words)).SOLVER.AMP.ENABLED is hardware
    assert ("no bfloat16 instructions" in caplog.text) is not hardware
    caplog.clear()
    assert not setup_cfg(args(config, *words, "SOLVER.AMP.ENABLED", "False")).SOLVER.AMP.ENABLED
    assert not caplog.text


def test_processors_are_asked_for_bfloat16(monkeypatch):
    monkeypatch.setattr(setup.platform, "machine", lambda: "x86_64")
    for amx, avx in ((True, False), (False, True), (False, False)):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda a=amx: a, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda a=avx: a, raising=False)
        assert setup.has_bfloat16() is (amx or avx)


FORMER, NAME = "MODEL.SEM_SEG_HEAD.CONTEXT", "MODEL.SEM_SEG_HEAD.BLOCKS"


def test_the_former_name_of_a_key_is_accepted_in_files_and_options(root, tmp_path, caplog):
    file = tmp_path / "x.yaml"
    base = f"_BASE_: {root / 'configs/digits/ccnet.yaml'}\n"
    file.write_text(base + "MODEL: {SEM_SEG_HEAD: {CONTEXT: [{block: NonLocal}]}}")
    assert setup_cfg(args(file)).MODEL.SEM_SEG_HEAD.BLOCKS == [{"block": "NonLocal"}]
    assert f"{FORMER} has been renamed and is read as {NAME}" in caplog.text
    assert str(file) in caplog.text
    derived = tmp_path / "y.yaml"  # the new name in a file whose base has the former one
    derived.write_text("_BASE_: x.yaml\nMODEL: {SEM_SEG_HEAD: {BLOCKS: []}}")
    assert setup_cfg(args(derived)).MODEL.SEM_SEG_HEAD.BLOCKS == []
    cfg = setup_cfg(args(file, FORMER, "[{'block': 'CrissCross'}]"))
    assert cfg.MODEL.SEM_SEG_HEAD.BLOCKS == [{"block": "CrissCross"}]
    file.write_text(base + "MODEL: {SEM_SEG_HEAD: {CONTEXT: [], BLOCKS: []}}")
    with pytest.raises(UserError, match=f"gives {FORMER} and {NAME}.*remove {FORMER}"):
        setup_cfg(args(file))


def test_bases_may_be_a_list_in_which_later_files_win(root, tmp_path):
    (tmp_path / "a.yaml").write_text("SOLVER: {MAX_ITER: 1, STEPS: [5]}\nSEED: 3")
    (tmp_path / "b.yaml").write_text("SOLVER: {MAX_ITER: 2, STEPS: [6, 7]}")
    file = tmp_path / "x.yaml"
    file.write_text(f"_BASE_: [{root / 'configs/digits/ccnet.yaml'}, a.yaml, b.yaml]\nSEED: 4")
    cfg = setup_cfg(args(file))
    assert (cfg.SOLVER.MAX_ITER, tuple(cfg.SOLVER.STEPS), cfg.SEED) == (2, (6, 7), 4)
    assert cfg.MODEL.SEM_SEG_HEAD.NAME == "CCNetHead"


def test_files_that_are_not_configurations_are_named(tmp_path):
    file = tmp_path / "x.yaml"
    for text, words in (("[1]", "x.yaml is not a configuration"), ("_BASE_: x.yaml", "each other")):
        file.write_text(text)
        with pytest.raises(UserError, match=words):
            setup_cfg(args(file))


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        ({}, "cpu"),
        ({"xpu": 1, "mps": 1}, "xpu"),
        ({"cuda": 2, "xpu": 1}, "cuda"),
        ({"mps": 1}, "cpu"),
    ],
)
def test_auto_prefers_cuda_then_xpu_and_never_chooses_mps(monkeypatch, existing, expected):
    monkeypatch.setattr(setup, "_device_count", lambda kind: existing.get(kind, 0))
    assert resolve_device("auto") == expected


def test_named_devices_must_exist(monkeypatch):
    monkeypatch.setattr(setup, "_device_count", lambda kind: {"xpu": 2, "mps": 1}.get(kind, 0))
    for name in ("cpu", "xpu", "xpu:1", "mps"):
        assert resolve_device(name) == name
    for name in ("xpu:2", "mps:1", "cuda"):
        with pytest.raises(UserError, match=f"'{name}', but there are") as error:
            resolve_device(name)
        assert "\n" not in str(error.value)
    for name in ("meta", "gpu"):
        with pytest.raises(UserError, match=f"'{name}' is not a device"):
            resolve_device(name)


def test_a_config_with_a_resolved_device_suits_detectron2_s_build_model():
    cfg = get_cfg()
    add_ccsa_config(cfg)
    cfg.MODEL.META_ARCHITECTURE = "ContextModel"
    cfg.MODEL.CONTEXT.BLOCKS = [{"at": "backbone.res4.-2", "block": "CrissCross"}]
    cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    assert build_model(cfg).device == torch.device(cfg.MODEL.DEVICE)


def test_the_cpu_has_one_name(config):
    assert {resolve_device(name) for name in ("cpu", "cpu:0", "cpu:3")} == {"cpu"}
    assert setup_cfg(args(config, "MODEL.DEVICE", "cpu:0")).MODEL.DEVICE == "cpu"
    for value in ("None", "", "3"):
        with pytest.raises(UserError, match=r"MODEL\.DEVICE"):
            setup_cfg(args(config, "MODEL.DEVICE", value))


@pytest.mark.parametrize("kind", ["cuda", "xpu"])
def test_accelerators_are_described_by_their_name(monkeypatch, kind):
    monkeypatch.setattr(getattr(torch, kind), "get_device_name", lambda device: "Model X")
    assert setup.describe_device(f"{kind}:1") == f"device: {kind}:1 (Model X)"


def test_threads_are_those_of_the_cpu():
    assert setup.describe_device("mps") == "device: mps"
    assert setup.describe_device("cpu") == f"device: cpu ({torch.get_num_threads()} threads)"


@pytest.mark.parametrize("value", ["3", "None", "{}", "{'WEIGHTS': ''}"])
def test_a_section_is_not_a_value(config, value):
    with pytest.raises(UserError, match=r"^MODEL .* is a section of keys") as error:
        setup_cfg(args(config, "MODEL", value))
    assert len(str(error.value)) < 200


def test_an_option_without_a_value_is_named(config):
    with pytest.raises(UserError, match=r"the option SOLVER\.MAX_ITER has no value; .* 3 words"):
        setup_cfg(args(config, "SEED", "1", "SOLVER.MAX_ITER"))


@pytest.mark.parametrize(
    ("key", "hint"),
    [("SOLVER.MAXITER", "; did you mean SOLVER.MAX_ITER?"), ("NOTHING.LIKE_IT", "")],
)
def test_only_similar_keys_are_suggested(config, key, hint):
    with pytest.raises(UserError) as caught:
        setup_cfg(args(config, key, "1"))
    assert str(caught.value) == f"there is no key {key} (on the command line){hint}"
