"""Atomic writing of files."""

import os
from pathlib import Path

import pytest

from ccsa.errors import UserError
from ccsa.utils.files import atomic_write, inside, real_path, regular_file, write_text


def test_the_file_appears_at_the_end(tmp_path):
    path = tmp_path / "new" / "a.txt"
    with atomic_write(path) as partial:
        partial.write_text("all")
        assert partial.suffix == ".txt" and not path.exists()
    assert path.read_text() == "all"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("wrong"), OSError(28, "No space left on device")])
def test_an_error_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "a.txt"
    write_text(path, "before")
    with pytest.raises((ValueError, UserError), match=r"wrong|No space left on device"):  # noqa: SIM117
        with atomic_write(path) as partial:
            partial.write_text("half")
            raise error
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_is_no_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*file/a\.txt"):
        write_text(tmp_path / "file" / "a.txt", "text")


def test_temporary_names_differ_and_links_are_not_followed(tmp_path):
    precious = tmp_path / "precious.txt"
    precious.write_text("untouched")
    path = tmp_path / "run" / "results.json"
    names = set()
    for _ in range(3):
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(precious)
        with atomic_write(path) as partial:
            partial.write_text("new")
            names.add(partial.name)
        assert path.read_text() == "new" and not path.is_symlink()
    assert precious.read_text() == "untouched" and len(names) == 3


def test_a_planted_temporary_file_is_not_written_through(tmp_path, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda n: "guessed")
    precious = tmp_path / "precious.txt"
    precious.write_text("untouched")
    (tmp_path / ".a.guessed.partial.txt").symlink_to(precious)
    with pytest.raises(UserError, match=r"cannot write .*File exists"):
        write_text(tmp_path / "a.txt", "new")
    assert precious.read_text() == "untouched"


@pytest.mark.parametrize("name", ["../a.png", "/etc/passwd", "b/../../a.png", "link/a.png", "a\0b"])
def test_names_that_lead_outside(tmp_path, name):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="leads outside the folder"):
        inside(folder, name)


def test_names_that_stay_inside(tmp_path):
    (tmp_path / "real" / "b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "real")  # the folder itself may be a link
    (tmp_path / "real" / "c").symlink_to(tmp_path / "real" / "b")
    for name in ("a.png", "b/../a.png", "../link/a.png", "c/a.png"):
        assert inside(tmp_path / "link", name) == tmp_path / "link" / name


def test_a_link_that_leads_to_itself_stays_as_it_is(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    assert real_path(loop) == tmp_path / "loop"
    (tmp_path / "file").touch()
    (tmp_path / "to_file").symlink_to("file")
    assert real_path(str(tmp_path / "to_file")) == (tmp_path / "file").resolve()


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_only_regular_files_are_opened(tmp_path, kind):
    path = Path("/dev/zero") if kind == "device" else tmp_path / kind
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(OSError, match="it is not a regular file"):
        regular_file(path)
    assert regular_file(tmp_path / "nothing") == tmp_path / "nothing"
    (tmp_path / "file").touch()
    assert regular_file(tmp_path / "file") == tmp_path / "file"
