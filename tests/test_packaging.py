"""The metadata in pyproject.toml, the pinned versions, and the set-up script agree."""

import itertools
import re
import subprocess
import sys

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")


@pytest.fixture(scope="module")
def project(root):
    return tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture(scope="module")
def pins(root):
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("python", PYTHONS)
def test_every_requirement_is_pinned_once_for_each_python(project, pins, python):
    environment = {"python_version": python, "extra": ""}
    active = [p for p in pins if p.marker is None or p.marker.evaluate(environment)]
    versions = {canonicalize_name(p.name): str(p.specifier).removeprefix("==") for p in active}
    assert len(versions) == len(active)
    assert all(str(p.specifier).startswith("==") for p in active)
    lists = [project["dependencies"], *project["optional-dependencies"].values()]
    for requirement in map(Requirement, itertools.chain.from_iterable(lists)):
        if requirement.name != "ccsa":
            version = versions[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), requirement


def test_dev_includes_every_other_extra(project):
    extras = project["optional-dependencies"]
    (own,) = (r for r in map(Requirement, extras["dev"]) if r.name == "ccsa")
    assert own.extras == set(extras) - {"dev"}


def test_the_set_up_script_accepts_the_pythons_of_the_metadata(root, project):
    prefix = "Programming Language :: Python :: 3."
    listed = [c.removeprefix(prefix) for c in project["classifiers"] if c.startswith(prefix)]
    assert tuple(f"3.{minor}" for minor in listed) == PYTHONS
    script = (root / "tools/setup_env.sh").read_text(encoding="utf-8")
    least, most = re.search(r"\((3, \d+)\) <= .* <= \((3, \d+)\)", script).groups()
    assert (least, most) == ("3, 10", "3, 14")
    assert all(f"python{python}" in script for python in PYTHONS)


def test_the_set_up_script_explains_itself_without_a_folder(root):
    command = ["sh", str(root / "tools/setup_env.sh")]
    done = subprocess.run(command, cwd=root, text=True, capture_output=True)
    assert done.returncode != 0 and "usage: sh tools/setup_env.sh FOLDER" in done.stderr


def test_no_supported_python_is_reported(root, tmp_path):
    """The PATH holds only a python3 that is too old."""
    python = tmp_path / "python3"
    python.write_text('#!/bin/sh\n[ "$1" = -V ] && echo "Python 3.9.9" && exit 0\nexit 1\n')
    python.chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", str(root / "tools/setup_env.sh"), str(tmp_path / "env")],
        cwd=root,
        env={"PATH": str(tmp_path)},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 2, done.stderr
    assert "no Python from 3.10 to 3.14" in done.stderr and "Python 3.9.9" in done.stderr
    assert not (tmp_path / "env").exists()
