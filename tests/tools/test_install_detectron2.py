"""Tests of tools/install_detectron2.py: the files it takes, the namespace, and what pip lists."""

import subprocess
import sys
import zipfile

import install_detectron2
import pytest


@pytest.fixture(scope="module")
def tool():
    return install_detectron2


@pytest.fixture
def carrier(tmp_path):
    path = tmp_path / "carrier.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("LabGym/detectron2/__init__.py", "from LabGym.detectron2.config import x\n")
        wheel.writestr("LabGym/detectron2/config.py", "x = 'kept'\n")
        wheel.writestr("LabGym/detectron2/model_zoo/a.yaml", "name: LabGym.detectron2.x\n")
        wheel.writestr("LabGym/detectron2/data.bin", b"LabGym.detectron2\x00")
        wheel.writestr("LabGym/gui.py", "import wx\n")
    return path


def test_the_folder_alone_is_taken_and_its_namespace_restored(tool, carrier):
    files = tool.restored_files(carrier)
    assert set(files) == {
        *("detectron2/__init__.py", "detectron2/config.py"),
        *("detectron2/model_zoo/a.yaml", "detectron2/data.bin"),
    }
    assert files["detectron2/__init__.py"] == b"from detectron2.config import x\n"
    assert files["detectron2/model_zoo/a.yaml"] == b"name: detectron2.x\n"
    assert files["detectron2/data.bin"] == b"LabGym.detectron2\x00"


def test_pip_installs_lists_and_removes_it(tool, carrier, tmp_path):
    wheel = tool.build_wheel(tool.restored_files(carrier), tmp_path)
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "install", "-q", "--no-deps", "--target", str(site), str(wheel)], check=True
    )
    assert (site / "detectron2/config.py").read_text() == "x = 'kept'\n"
    info = site / "detectron2-0.6.dist-info"
    assert "Requires-Dist: fvcore" in (info / "METADATA").read_text()
    assert "Apache License" in (info / "licenses/LICENSE").read_text()
    record = (info / "RECORD").read_text()
    assert "detectron2/data.bin,sha256=" in record
    listed = subprocess.run(
        [*pip, "list", "--path", str(site)], check=True, text=True, capture_output=True
    )
    assert "detectron2" in listed.stdout


def test_an_importable_detectron2_is_left_alone(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool, "fetch_carrier", lambda folder: pytest.fail("fetched"))
    monkeypatch.setattr(sys, "argv", ["install_detectron2.py"])
    tool.main()
    assert "left as it is" in capsys.readouterr().out


def test_a_carrier_without_detectron2_is_refused(tool, tmp_path):
    path = tmp_path / "empty.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("LabGym/gui.py", "")
    with pytest.raises(SystemExit, match="does not contain LabGym/detectron2"):
        tool.restored_files(path)
