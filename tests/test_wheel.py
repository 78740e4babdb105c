"""The wheel: its contents and metadata, and that it works with nothing but torch."""

import os
import subprocess
import sys
import zipfile
from email.parser import Parser

import pytest

import ccsa

pytestmark = pytest.mark.slow
EXTRAS = {"train", "timm", "export", "fast-eval", "evaluation", "benchmark", "docs", "dev"}


def pip(*words, **kwargs):
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *map(str, words)]
    subprocess.run(command, check=True, **kwargs)


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    """Build from a copy of the sources, so that setuptools leaves nothing in the repository."""
    pytest.importorskip("setuptools", minversion="77")
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "THIRD_PARTY.md"):
        (source / name).write_bytes((root / name).read_bytes())
    for file in (root / "projects/ccsa").rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            copy = source / file.relative_to(root)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index", "-w", folder, source)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_contains_the_whole_package_and_nothing_else(root, wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    pages = [f for f in root.glob("projects/ccsa/report/*") if f.suffix in (".css", ".html", ".js")]
    files = [*root.glob("projects/ccsa/**/*.py"), root / "projects/ccsa/py.typed", *pages]
    info = f"ccsa-{ccsa.__version__}.dist-info/"
    assert {n for n in names if not n.startswith(info)} == {
        file.relative_to(root / "projects").as_posix() for file in files
    }
    assert {f"{info}licenses/LICENSE", f"{info}licenses/THIRD_PARTY.md"} <= names
    top = [p for p in root.glob("projects/ccsa/**/") if any(p.glob("*.py"))]
    assert all((folder / "__init__.py").is_file() for folder in top)  # no namespace packages


def test_its_metadata_requires_only_torch(wheel):
    with zipfile.ZipFile(wheel) as archive:
        text = archive.read(f"ccsa-{ccsa.__version__}.dist-info/METADATA").decode()
    metadata = Parser().parsestr(text)
    required = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    assert len(required) == 1 and required[0].startswith("torch>=")
    assert set(metadata.get_all("Provides-Extra")) == EXTRAS
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"
    assert "Project-URL" not in metadata and "Home-page" not in metadata
    assert "Typing :: Typed" in metadata.get_all("Classifier")


def test_the_installed_wheel_works_with_nothing_but_torch(root, wheel, tmp_path):
    site = tmp_path / "site"
    pip("install", "-q", "--no-deps", "--no-index", "--target", site, wheel)
    script = """
import torch, ccsa
assert ccsa.__file__.startswith(FOLDER), ccsa.__file__
net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 2, 1))
ccsa.insert_blocks(net, [{"at": "0", "block": "CrissCross"}])
net(torch.randn(1, 3, 8, 9)).sum().backward()
assert net[0].context.gamma.grad is not None
try:
    import ccsa.engine
except ccsa.MissingPackageError as error:
    assert "pip install '.[train]' in a clone of ccsa" in str(error)
else:
    raise AssertionError
"""
    done = subprocess.run(
        [
            *(sys.executable, str(root / "tests/support/torch_only.py"), "none"),
            script.replace("FOLDER", repr(str(site))),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
