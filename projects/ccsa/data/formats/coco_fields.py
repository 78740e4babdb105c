"""Reading single fields of COCO JSON: integers may be written as text or as ``1.0``."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ccsa.data.formats.text_files import shown
from ccsa.data.problems import Problems
from ccsa.data.records import is_number

_INTEGER = re.compile(r"\s*[+-]?\d{1,18}\s*")


def as_integer(value: Any) -> Any:
    """Return the integer that a value stands for (also ``1.0`` and ``"1"``), else the value; None
    for a truth value, a list or an object."""
    if type(value) is int:  # the usual case first: a file has millions of fields
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return None if isinstance(value, bool | list | dict) else value


def as_number(text: str) -> float | None:
    """Return the finite number that a text stands for, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if is_number(number) else None


class FieldReader:
    """Base class of what reads a JSON file and reports its problems.

    Args:
        file: the JSON file.
        problems: where problems are reported.
    """

    def __init__(self, file: Path, problems: Problems):
        self.file, self.problems = file, problems

    def report(self, kind: str, message: str) -> None:
        """Add a problem of the file."""
        self.problems.add(kind, self.file, message)

    def integer(self, entry: Mapping, key: str, where: str, text: bool = False) -> Any:
        """Return an integer field (one in quotes is reported); with ``text``, also other text."""
        value = entry.get(key)
        number = as_integer(value)
        if isinstance(value, str) and isinstance(number, int):
            self.report("quoted_number", f"{where}: '{key}' is {shown(value)}")
        if isinstance(number, int) or (text and isinstance(number, str)):
            return number
        return None
