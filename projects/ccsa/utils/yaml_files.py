"""Reading of YAML files that may be damaged or hostile.

Only plain values are read, no tags of Python. The size of a file and the number of values that its
aliases stand for are bounded, so that reading takes neither long nor much memory.
"""

import codecs
import os
import stat
from collections.abc import Hashable
from typing import Any

import yaml

from ccsa.errors import UserError

MOST_BYTES = 1 << 20
MOST_VALUES = 100_000  # with aliases written out

# The marks at the beginning of text in other encodings than UTF-8.
_OTHER_ENCODINGS = (
    *(codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE),
    *(codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE),
)


class _Loader(yaml.SafeLoader):
    """A SafeLoader that rejects a mapping with the same key twice; YAML forbids it, but PyYAML
    takes the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value} is given twice", problem_mark=key.start_mark
                )
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)


def read_yaml(file: str | os.PathLike[str]) -> Any:
    """Return the content of a YAML file; None if it is empty.

    Args:
        file: the path of a regular file.

    Raises:
        UserError: the file cannot be read, is not UTF-8 text or not YAML, gives a key twice, is
            too large, or its aliases refer to themselves or stand for too many values.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        ...     _ = file.write("SOLVER: {MAX_ITER: 7}")
        ...     file.flush()
        ...     read_yaml(file.name)
        {'SOLVER': {'MAX_ITER': 7}}
    """
    text = _read_text(file)
    try:
        content = yaml.load(text, _Loader)
    except UserError:
        raise
    except yaml.YAMLError as error:
        raise UserError(f"{file} is not valid YAML ({_reason(error)}); correct it") from error
    except RecursionError as error:
        raise UserError(
            f"{file} is nested too deeply to be read; write it with fewer levels"
        ) from (error)
    except (ValueError, TypeError, OverflowError, LookupError, AttributeError) as error:
        # a date that does not exist, a number of thousands of digits, or another damaged value
        reason = " ".join(str(error).split()).partition(";")[0]
        raise UserError(f"{file} has a value that cannot be read ({reason}); correct it") from error
    _check_size(content, str(file))
    return content


def _read_text(file: str | os.PathLike[str]) -> str:
    """Return the text of a file, without a byte order mark."""
    try:
        mode = os.stat(file).st_mode
        if not stat.S_ISREG(mode):  # reading a named pipe or a device may never end
            kind = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise UserError(f"{file} is {kind}; name a YAML file")
        with open(file, "rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except UserError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a path that contains a NUL byte
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{file} cannot be read ({reason}); name a YAML file") from error
    if len(data) > MOST_BYTES:
        raise UserError(
            f"{file} is larger than {MOST_BYTES >> 20} MiB, too large for a configuration; name "
            "another file"
        )
    try:
        if data.startswith(_OTHER_ENCODINGS):
            raise UnicodeError("it begins with the mark of UTF-16 or UTF-32")
        return data.decode("utf-8-sig")
    except UnicodeError as error:
        raise UserError(
            f"{file} is not UTF-8 text ({error}); save it as text in the encoding UTF-8"
        ) from error


def _reason(error: yaml.YAMLError) -> str:
    """Return one short line about what is wrong, and where."""
    if isinstance(error, yaml.MarkedYAMLError):
        problem, mark = error.problem or error.context or "unreadable", error.problem_mark
        if problem.startswith("but "):
            problem = f"{error.context} {problem}"
        if "python/" in problem:
            problem = "it has a tag of Python, which could run code; write the value out"
        line = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return " ".join(f"{line}{problem}".split())[:200]
    return " ".join(str(error).split())[:200]


def _check_size(content: Any, file: str) -> None:
    """Raise a UserError if aliases refer to themselves or stand for too many values."""
    sizes: dict[int, int] = {}  # by the identity of each list and mapping, which aliases share
    open_ids: set[int] = set()

    def size(value: Any) -> int:
        if not isinstance(value, dict | list | tuple | set):
            return 1
        if id(value) in open_ids:
            raise UserError(
                f"{file} cannot be used, because one of its YAML aliases refers to itself; write "
                "the value out"
            )
        if id(value) not in sizes:
            open_ids.add(id(value))
            inner = value.values() if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(map(size, inner))
            open_ids.remove(id(value))
        return sizes[id(value)]

    if size(content) > MOST_VALUES:
        raise UserError(
            f"{file} cannot be used, because its YAML aliases stand for more than "
            f"{MOST_VALUES} values; write the values out"
        )
