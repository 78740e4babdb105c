"""The folder of the digits dataset: a killed writer blocks nobody, and user data is never lost."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ccsa.data.synthetic import digits
from ccsa.data.synthetic.digits import ensure_digits
from ccsa.errors import UserError

SMALL = {"train": 2, "val": 1}
# A process that writes a small dataset and does not finish within a minute.
PROCESS = """
import sys, time
from ccsa.data.synthetic import digits
write = digits.write_digits
def never_done(folder):
    write(folder, {"train": 2, "val": 1})
    print("written", flush=True)
    time.sleep(60)
digits.write_digits = never_done
digits.ensure_digits(sys.argv[1])
"""


@pytest.fixture
def small(monkeypatch):
    """Make the dataset small; return the list of folders that were written."""
    written, write = [], digits.write_digits

    def write_small(folder):
        written.append(folder)
        write(folder, SMALL)

    monkeypatch.setattr(digits, "write_digits", write_small)
    return written


def left(root: Path) -> set[str]:
    return {place.name for place in root.iterdir()} - {"digits.lock"}


def test_default_place_is_read_when_called(small, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DETECTRON2_DATASETS", "~/a")
    assert ensure_digits() == tmp_path / "a" / "digits"
    monkeypatch.delenv("DETECTRON2_DATASETS")
    monkeypatch.chdir(tmp_path)
    assert ensure_digits() == Path("datasets/digits")


def test_killed_writer_leaves_nothing_in_place_and_blocks_nobody(small, tmp_path):
    command = [sys.executable, "-c", PROCESS, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "written\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "digits").exists()
    assert left(tmp_path)  # the temporary folder of the killed writer
    ensure_digits(tmp_path)
    assert left(tmp_path) == {"digits"}


def test_failed_rebuild_keeps_the_old_one(small, tmp_path, monkeypatch):
    folder = ensure_digits(tmp_path)
    monkeypatch.setattr(digits, "VERSION", digits.VERSION + 1)

    def fails(place):
        place.mkdir()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(digits, "write_digits", fails)
    with pytest.raises(UserError, match=r"No space left on device.*export DETECTRON2_DATASETS"):
        ensure_digits(tmp_path)
    assert len(list((folder / "train").iterdir())) == SMALL["train"]
    assert left(tmp_path) == {"digits"}


def test_missing_part_is_noticed(small, tmp_path):
    folder = ensure_digits(tmp_path)
    shutil.rmtree(folder / "train")
    ensure_digits(tmp_path)
    assert len(list((folder / "train").iterdir())) == SMALL["train"]


@pytest.mark.parametrize(
    "file_name",
    ["photograph.jpg", "annotations/instances_train.json", "annotations/mine.json", "version.json"],
)
def test_folder_of_somebody_else_is_refused(small, tmp_path, file_name):
    foreign = tmp_path / "digits" / file_name
    foreign.parent.mkdir(parents=True)
    foreign.write_text('{"version": "7"}')
    with pytest.raises(UserError, match=r"not the digits dataset; move it away"):
        ensure_digits(tmp_path)
    assert foreign.read_text() == '{"version": "7"}'
    assert not small


def test_file_of_somebody_else_inside_ours_is_not_lost(small, tmp_path, monkeypatch):
    folder = ensure_digits(tmp_path)
    (folder / "notes.txt").write_text("mine")
    assert ensure_digits(tmp_path) == folder  # used unchanged
    monkeypatch.setattr(digits, "VERSION", digits.VERSION + 1)
    with pytest.raises(UserError, match="not the digits dataset"):
        ensure_digits(tmp_path)
    assert (folder / "notes.txt").read_text() == "mine"


def test_import_draws_nothing(tmp_path):
    code = "import ccsa.data, sys; assert 'sklearn' not in sys.modules"
    environment = {**os.environ, "DETECTRON2_DATASETS": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert not list(tmp_path.iterdir())
