"""Reading the text and JSON files that other programs write: encodings, sizes and damage."""

import codecs
import json
import os
import re
import reprlib
from pathlib import Path
from typing import Any

from ccsa.data.image_reader import is_file
from ccsa.data.problems import Problems
from ccsa.errors import UserError

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8 with a byte order mark"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_HALF_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")
_REPR = reprlib.Repr()  # does not follow deep nesting and long lists
_REPR.maxstring = _REPR.maxother = _REPR.maxlong = 200
_REPR.maxlist = _REPR.maxdict = 12


def read_text(path: Path, problems: Problems | None = None) -> str:
    """Read a text file in UTF-8, or in UTF-16 if it starts with that byte order mark.

    Args:
        path: the file.
        problems: where an unusual encoding is reported.

    Raises:
        UserError: the file does not exist, is not a regular file, or is not text.
    """
    if not os.path.lexists(path):
        raise UserError(f"{path} does not exist; check the name")
    if not is_file(path):  # opening a named pipe would wait forever
        raise UserError(f"{path} is not a regular file; name a text file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); check its permissions") from error
    found = next((row for row in _BOMS if content.startswith(row[0])), None)
    encoding = found[1] if found else "utf-8"
    if found and problems is not None:
        problems.add("encoding", path, f"the file is {found[2]}")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        name = found[2] if found else "UTF-8"
        raise UserError(
            f"{path} is not text in {name} (byte {error.start}); save it as UTF-8"
        ) from error


def read_json(path: Path, problems: Problems | None = None) -> Any:
    """Read a JSON file; see :func:`read_text`.

    Raises:
        UserError: also if the content is empty, cut short, or otherwise not JSON.
    """
    text = read_text(path, problems)
    if not text.strip("\0 \t\r\n"):
        raise UserError(f"{path} is empty; export it again")
    try:
        content = json.loads(text)
        if _HALF_CHARACTER.search(text):  # such a name can neither be a file nor be printed
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except UnicodeEncodeError as error:
        raise UserError(
            f"{path} contains half of a character (\\u{ord(error.object[error.start]):04x} without "
            "its partner); export it again"
        ) from error
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) - 1
        reason = "it ends too early" if cut else f"{error.msg} in line {error.lineno}"
        raise UserError(f"{path} is not valid JSON ({reason}); export it again") from error
    except (ValueError, RecursionError) as error:  # huge integers, deep nesting
        raise UserError(
            f"{path} is not usable JSON ({str(error).partition(';')[0]}); export it again"
        ) from error


def shown(value: Any, limit: int = 40) -> str:
    """Return a value as it can be quoted in a message, cut to ``limit`` characters."""
    text = _REPR.repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
