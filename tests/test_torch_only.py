"""ccsa without Detectron2, with a broken Detectron2, and with a working one."""

import ast
import os
import subprocess
import sys
import textwrap

import pytest

import ccsa
from ccsa.data.formats.mat_files import read_sbd
from ccsa.data.synthetic.digit_scenes import load_scans

MODES = ("none", "ImportError", "RuntimeError")

USE_BLOCKS = """
import sys, time
import torch
start = time.perf_counter()
from ccsa import (
    CONTEXT_BLOCK_REGISTRY, CrissCross, NonLocal, SqueezeAttention, SqueezeExcitation, UserError,
    build_block, criss_cross_attention, criss_cross_weights, insert_blocks,
)
seconds = time.perf_counter() - start
print(f"ccsa was imported in {seconds:.3f} s after torch")
assert seconds < 20, seconds  # 0.1 s on a free machine; the limit catches only gross mistakes
assert not {"detectron2", "cv2", "fvcore", "tabulate"} & set(sys.modules)

torch.manual_seed(0)
for name in ("CrissCross", "NonLocal", "SqueezeAttention", "SqueezeExcitation"):
    block = build_block(name, 16)
    assert type(block) is CONTEXT_BLOCK_REGISTRY.get(name)
    x = torch.randn(2, 16, 9, 7)
    before = [p.detach().clone() for p in block.parameters()]
    (block(x) - torch.randn(2, 16, 9, 7)).square().mean().backward()
    with torch.no_grad():
        for p in block.parameters():
            p -= 0.1 * p.grad
    if hasattr(block, "gamma"):
        assert block.gamma.abs().sum() > 0, name
    assert any((p != q).any() for p, q in zip(block.parameters(), before)), name

net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.ReLU(), torch.nn.Conv2d(16, 4, 1))
(placement,) = insert_blocks(net, [{"at": "0", "block": "CrissCross", "recurrence": 1}])
assert placement.channels == 16, placement
net(torch.randn(1, 3, 8, 10)).sum().backward()
net[0].context.gamma.data.fill_(0.5)
net(torch.randn(1, 3, 8, 10))
try:
    build_block("CrisCross", 16)
except UserError as error:
    assert "CrissCross" in str(error)

q = torch.randn(1, 4, 5, 6)
assert criss_cross_attention(q, q, q).shape == q.shape
assert criss_cross_weights(q, q).shape == (1, 5, 6, 11)
"""

CHECK_THE_REST = """
import importlib
import inspect
import warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the one of a broken Detectron2 is tested separately
    import ccsa
from ccsa import MissingPackageError

def sentence(action, kind):
    try:
        action()
    except ccsa.UserError as error:
        assert isinstance(error, kind), type(error)
        return str(error)
    raise AssertionError("no error")

names = ["Predictor", "add_ccsa_config", *ccsa._DETECTRON2_SIDE_MODULES]
modules = ["ccsa." + name for name in ccsa._DETECTRON2_SIDE_MODULES]
imports = [lambda m=m: importlib.import_module(m) for m in [*modules, "ccsa.data.formats"]]
imports += [lambda n=n: exec("from ccsa import " + n) for n in names]
accesses = [lambda n=n: getattr(ccsa, n) for n in names]
for action in imports * 2:
    check(sentence(action, MissingPackageError))
    check(sentence(action, ImportError))
for action in accesses * 2:
    check(sentence(action, AttributeError))
try:
    ccsa.nothing
except AttributeError:
    pass
else:
    raise AssertionError

# What does not work is not offered.
assert not any(hasattr(ccsa, name) for name in names)
assert not set(names) & set(dir(ccsa))
assert {"CrissCross", "insert_blocks", "blocks", "errors", "insertion", "ops"} <= set(dir(ccsa))
assert {"CrissCross", "blocks"} <= dict(inspect.getmembers(ccsa)).keys()
exec("from ccsa import *")
"""

USE_THE_REST = (
    """
def check(text):
    assert "needs the packages detectron2, opencv-python, " in text, text
    steps = "pip install '.[train]' in a clone of ccsa and python tools/install_detectron2.py"
    assert f"run {steps}" in text, text
    assert "official build" in text and "\\n" not in text, text
"""
    + CHECK_THE_REST
)


@pytest.fixture
def run(root, tmp_path):
    """Run a script, with all packages or with those that ``mode`` and ``visible`` leave."""

    def call(script, *, mode=None, visible=(), first_on_path=None):
        paths = [*([first_on_path] if first_on_path else []), root / "projects"]
        words = ["-c", textwrap.dedent(script)]
        if mode:
            words = [root / "tests/support/torch_only.py", mode, words[1], *visible]
        done = subprocess.run(
            [sys.executable, *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
            text=True,
            capture_output=True,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return done

    return call


@pytest.mark.parametrize("mode", MODES)
def test_blocks_operator_and_insertion_need_only_torch(run, mode):
    done = run(USE_BLOCKS, mode=mode)
    assert "Detectron2" not in done.stderr, done.stderr
    print(done.stdout)


@pytest.mark.parametrize("mode", MODES)
def test_everything_else_names_what_to_install(run, mode):
    run(USE_THE_REST, mode=mode)


def test_a_missing_package_beside_detectron2_gives_one_warning(run):
    script = """
    from ccsa import CrissCross
    CrissCross(8)
    try:
        import ccsa.modeling
    except ImportError as error:
        print(error)
    """
    done = run(script, mode="none", visible=("detectron2", "torchvision"))
    sentence = "needs the packages opencv-python, safetensors, which are not installed"
    assert f"ccsa.modeling {sentence}: run pip install '.[train]' in a clone of ccsa" in done.stdout
    assert "detectron2" not in done.stdout
    assert done.stderr.count("Warning") == 1 and sentence in done.stderr, done.stderr


@pytest.fixture(params=["ImportError('no _C')", "RuntimeError('A\\nBI')", "SystemExit(1)"])
def broken(request, tmp_path):
    """Return (error, folder on the path with a Detectron2 that raises it)."""
    (tmp_path / "broken/detectron2").mkdir(parents=True)
    (tmp_path / "broken/detectron2/__init__.py").write_text(f"raise {request.param}\n")
    return request.param, tmp_path / "broken"


def test_a_broken_detectron2_gives_one_warning(run, broken):
    error, folder = broken
    script = "import torch; from ccsa import CrissCross; CrissCross(8)(torch.ones(1, 8, 2, 3))"
    done = run(script, first_on_path=folder)
    assert done.stderr.count("Warning") == 1, done.stderr
    assert "importing it failed" in done.stderr and error.partition("(")[0] in done.stderr


def test_a_broken_detectron2_is_named_at_every_use(run, broken):
    """Detectron2 is not imported again: that could fail differently or end the process."""
    error, folder = broken
    script = f"""
def check(text):
    assert "needs Detectron2, which is installed, but importing it failed" in text, text
    assert "({error.partition("(")[0]}: " in text, text
    assert "reinstall Detectron2 (python tools/install_detectron2.py" in text, text
    assert "official build" in text and "\\n" not in text, text
"""
    done = run(script + CHECK_THE_REST + "print('complete')", first_on_path=folder)
    assert done.stdout == "complete\n"  # SystemExit did not end the process


def test_with_detectron2_every_name_works(run):
    run(
        """
        import inspect
        import ccsa
        names = {*ccsa._DETECTRON2_SIDE_NAMES, *ccsa._TORCH_ONLY, *ccsa._TORCH_ONLY_MODULES}
        assert {"Predictor", "add_ccsa_config", "engine", "CrissCross", "ops"} <= names
        assert names <= set(dir(ccsa)) and names <= dict(inspect.getmembers(ccsa)).keys()
        """
    )


def test_import_registers_everything_with_detectron2(run):
    run(
        """
        import ccsa
        from detectron2.data import DatasetCatalog
        from detectron2 import modeling
        for registry, names in {
            "META_ARCH": ("ContextModel", "DenseSegmentor", "VideoSemanticSegmentor"),
            "SEM_SEG_HEADS": ("CCNetHead", "SANetHead", "FCNHead", "VideoCCNetHead"),
            "BACKBONE": ("build_timm_backbone", "build_dilated_resnet_backbone"),
        }.items():
            assert all(name in getattr(modeling, registry + "_REGISTRY") for name in names)
        datasets = {"digits_train", "digits_val", "ade20k_sem_seg_val", "cityscapes_sem_seg_val"}
        assert datasets <= set(DatasetCatalog.list())
        blocks = ("CrissCross", "NonLocal", "SqueezeAttention", "SqueezeExcitation")
        assert all(name in ccsa.CONTEXT_BLOCK_REGISTRY for name in blocks)
        assert {"add_ccsa_config", "data", "modeling"} <= set(ccsa.__all__)
        """
    )


def test_only_the_warning_of_detectron2_s_own_import_is_silenced(run):
    done = run("import ccsa, ccsa.engine, ccsa.analysis")
    assert "torch.jit.script" not in done.stderr
    done = run("import ccsa, torch; torch.jit.script(torch.nn.Identity())")
    deprecated = (
        "torch.jit.script" in run("import torch; torch.jit.script(torch.nn.Identity())").stderr
    )
    assert ("torch.jit.script" in done.stderr) == deprecated


def imported_modules(file):
    """Return the modules that a file imports at its top level, in order."""
    names = []
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return names


def test_tools_import_ccsa_before_detectron2(root):
    """ccsa silences a warning of Detectron2's import. Only detectron2.config does not cause it."""
    tools = list(root.glob("tools/*.py"))
    assert len(tools) > 8
    for file in tools:
        names = [n for n in imported_modules(file) if n != "detectron2.config"]
        names = [n for n in names if n.startswith(("ccsa", "detectron2", "fvcore"))]
        assert not names or names[0].startswith("ccsa"), f"{file}: {names[0]} comes before ccsa"


@pytest.mark.parametrize("program", ["tools/train_net.py", "benchmarks", "experiments.far_cue"])
def test_programs_start_without_warnings(root, program):
    words = [root / program] if program.startswith("tools") else ["-m", program]
    done = subprocess.run(
        [sys.executable, *map(str, words), "--help"], cwd=root, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


def test_every_module_of_the_package_is_known_to_its_init(root):
    """An unknown module cannot be used as ccsa.<name> and does not name the package it needs."""
    folder = root / "projects/ccsa"
    modules = {p.stem for p in folder.glob("*.py")} | {
        p.parent.name for p in folder.glob("*/__init__.py")
    }
    known = {*ccsa._TORCH_ONLY_MODULES, *ccsa._DETECTRON2_SIDE_MODULES}
    assert modules - {"__init__"} == known


def test_packages_that_few_features_need_are_named_when_they_are_used(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(ccsa.MissingPackageError, match=r"scikit-learn.*'\.\[train\]' in a clone"):
        load_scans("train")
    with pytest.raises(ccsa.MissingPackageError, match=r"scipy.*'\.\[train\]' in a clone"):
        read_sbd(tmp_path / "a.mat")
