"""Atomic writing of files."""

import pytest

from ccsa.errors import UserError
from ccsa.utils.files import atomic_write, write_text


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
