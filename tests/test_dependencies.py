"""What each part of the package may import, as an allow list over its syntax trees.

import-linter (pyproject.toml) enforces the layers, and can only forbid packages that it is given.
"""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "projects" / "ccsa"
# What each torch-only part may import besides the standard library. triton comes with torch where
# torch supports a GPU, and is imported by the kernels only.
ALLOWED = {
    "errors": (),
    "ops": ("torch", "triton", "ccsa.errors", "ccsa.ops"),
    "blocks": ("torch", "ccsa.errors", "ccsa.ops", "ccsa.blocks"),
    "insertion": ("torch", "ccsa.errors", "ccsa.ops", "ccsa.blocks", "ccsa.insertion"),
}
OTHER_PARTS = {"tools", "benchmarks", "experiments", "tests", "support"}


def files_of(part: str) -> list[Path]:
    """Return the files of a module or package of ccsa."""
    folder = PACKAGE / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{part}.py"]


def imports(text: str, package: str) -> set[str]:
    """Return the modules that a file imports anywhere, also in functions and by importlib.

    ``from ccsa import x`` counts as ccsa.x, and relative imports are resolved in ``package``.
    """
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - node.level + 1]
            origin = ".".join([*(base if node.level else []), *filter(None, [node.module])])
            names = {f"{origin}.{alias.name}" for alias in node.names}
            found |= names if origin == "ccsa" else {origin}
        elif (
            isinstance(node, ast.Call)
            and ast.unparse(node.func).endswith(("import_module", "__import__"))
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            found.add(str(node.args[0].value))
    return found


def imports_of(file: Path) -> set[str]:
    parts = file.relative_to(PACKAGE.parent).parent.parts
    return imports(file.read_text(encoding="utf-8"), ".".join(parts))


def is_below(module: str, allowed: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


@pytest.mark.parametrize("part", ALLOWED)
def test_torch_only_parts_import_nothing_else(part):
    for file in files_of(part):
        foreign = {
            module
            for module in imports_of(file)
            if module.partition(".")[0] not in sys.stdlib_module_names
            and not is_below(module, ALLOWED[part])
        }
        assert not foreign, f"{file.relative_to(ROOT)} imports {foreign}"


def test_only_the_kernels_import_triton():
    users = {
        file.name
        for file in PACKAGE.rglob("*.py")
        if any(is_below(module, ("triton",)) for module in imports_of(file))
    }
    assert users == {"triton_kernels.py"}


def test_the_package_imports_no_tools():
    """The tools are scripts: their folder is on sys.path when one of them runs."""
    scripts = {file.stem for file in (ROOT / "tools").glob("*.py")}
    assert {"train_net", "demo"} <= scripts
    for file in PACKAGE.rglob("*.py"):
        names = {module.partition(".")[0] for module in imports_of(file)}
        assert not names & (OTHER_PARTS | scripts), file.relative_to(ROOT)


@pytest.mark.parametrize(
    ("code", "modules"),
    [
        ("import torch.nn as nn", {"torch.nn"}),
        ("def f():\n    from timm import x", {"timm"}),
        ("from ccsa import data, errors", {"ccsa.data", "ccsa.errors"}),
        ("from ccsa.ops import x", {"ccsa.ops"}),
        ("from . import x", {"ccsa.blocks"}),
        ("from .spec import x", {"ccsa.blocks.spec"}),
        ("from ..data import x", {"ccsa.data"}),
        ("from .. import data", {"ccsa.data"}),
        ("import importlib\nimportlib.import_module('numpy')", {"importlib", "numpy"}),
    ],
)
def test_every_form_of_import_is_found(code, modules):
    assert imports(code, "ccsa.blocks") == modules
