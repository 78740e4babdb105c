"""List files: text files with the ids of the images of a split, one per line."""

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from ccsa.errors import UserError
from ccsa.utils.files import regular_file, write_text


def read_id_list(path: Path) -> list[str]:
    """Return the ids in a list file, in its order.

    A line holds an id, or the path of a file, of which the folders and the suffix are removed; only
    the first word of a line counts.

    Raises:
        UserError: the list cannot be read or is empty.
    """
    try:
        lines = regular_file(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the list {path} ({error}); replace it with an intact copy"
        ) from error
    ids = [PurePosixPath(line.split()[0]).stem for line in lines if line.strip()]
    if not ids:
        raise UserError(f"the list {path} is empty; replace it with an intact copy")
    return ids


def write_id_list(path: Path, ids: Iterable[str]) -> None:
    """Write a list file that is complete or absent, one id per line.

    Raises:
        UserError: the file cannot be written.
    """
    write_text(path, "".join(f"{name}\n" for name in ids))
