"""Errors that a user can fix, the checks that raise them, and how every command line reports them.

This module imports the standard library only, so that operators, blocks and insertion can use it
with nothing but torch installed.
"""

import difflib
import errno
import functools
import os
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

_LONGEST_VALUE = 60  # characters of a value that a message shows

K = TypeVar("K")
V = TypeVar("V")


class UserError(ValueError):
    """Raised for a mistake that the user can fix.

    The message says what is wrong, where, and how to fix it.

    Command lines print the message and exit with status 2; see :func:`reports_user_errors`.
    """


class MissingPackageError(UserError, ImportError):
    """Raised if a feature is used whose package is not installed or cannot be imported.

    The message names the command to run.
    """


class MissingAttributeError(UserError, AttributeError):
    """Raised if an attribute of a package is used that needs packages which are missing or broken.

    The message is that of :class:`MissingPackageError`, which an import raises. Attribute access
    must raise an AttributeError, so that ``hasattr`` returns False and ``inspect`` works; Python
    allows no class that is both an ImportError and an AttributeError.
    """


def missing_package(feature: str, package: str, install: str) -> MissingPackageError:
    """Return the error for a feature whose package is not installed.

    Args:
        feature: what was used, as the subject of a sentence.
        package: the name of the missing package.
        install: the command that installs it.

    Example:
        >>> print(missing_package("Drawing", "pillow", "pip install pillow"))
        Drawing needs the package pillow, which is not installed: run pip install pillow
    """
    return MissingPackageError(
        f"{feature} needs the package {package}, which is not installed: run {install}"
    )


def near_misses(
    name: str, valid: Iterable[str], *, limit: int = 3, cutoff: float = 0.6
) -> list[str]:
    """Return the valid names that are most similar to ``name``, the most similar one first.

    Example:
        >>> near_misses("CrisCros", ["CrissCross", "NonLocal"])
        ['CrissCross']
    """
    return difflib.get_close_matches(name, list(valid), n=limit, cutoff=cutoff)


def suggestion(
    name: str,
    valid: Collection[str],
    *,
    listed: int = 20,
    limit: int = 3,
    cutoff: float = 0.6,
) -> str:
    """Return the end of a message about an unknown name: near misses, then the valid names.

    Args:
        name: the unknown name.
        valid: the valid names.
        listed: how many valid names are listed at most; with 0 only near misses are named.
        limit: how many near misses are named at most.
        cutoff: how similar a near miss must be, from 0 to 1.

    Returns:
        Text to append to the sentence that rejects the name; empty if there is nothing to say.

    Example:
        >>> suggestion("CrisCros", ["CrissCross", "NonLocal"])
        '; did you mean CrissCross? Available: CrissCross, NonLocal'
        >>> suggestion("mask", ["CrissCross", "NonLocal"])
        '; available: CrissCross, NonLocal'
    """
    near = near_misses(name, valid, limit=limit, cutoff=cutoff)
    choices = " or ".join(filter(None, [", ".join(near[:-1]), *near[-1:]]))
    text = f"; did you mean {choices}?" if near else ""
    if listed and valid:
        names = ", ".join(list(valid)[:listed]) + (", ..." if len(valid) > listed else "")
        text += f"{'' if near else ';'} {'Available' if near else 'available'}: {names}"
    return text


def shown(value: Any) -> str:
    """Return a value for a message, shortened if it is long.

    Example:
        >>> shown("x" * 99)[:5], len(shown("x" * 99))
        ("'xxxx", 60)
    """
    try:
        written = repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits, or very deep lists
        written = f"a {type(value).__name__} that is too large to be shown"
    written = " ".join(written.split())
    return written if len(written) <= _LONGEST_VALUE else f"{written[: _LONGEST_VALUE - 3]}..."


def one_of(choices: Mapping[K, V] | Collection[K], value: K, keyword: str) -> Any:
    """Return the choice that ``value`` names: its value in a mapping, else the value itself.

    Raises:
        UserError: ``value`` is not among the choices; the message lists them.

    Example:
        >>> one_of({"relu": max, "none": abs}, "relu", "activation") is max
        True
    """
    if value not in list(choices):  # a list, because the value may be unhashable
        valid = ", ".join(map(str, choices))
        raise UserError(f"{keyword} must be one of {valid}, not {shown(value)}")
    return choices[value] if isinstance(choices, Mapping) else value


def between(least: int, most: int, **values: int) -> None:
    """Check that every keyword is an integer from ``least`` to ``most``.

    Raises:
        UserError: the first keyword that is not.
    """
    for keyword, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise UserError(
                f"{keyword} must be an integer from {least} to {most}, not {shown(value)}"
            )


def at_least(least: int, **values: int) -> None:
    """Check that every keyword is an integer that is not smaller than ``least``.

    Raises:
        UserError: the first keyword that is not.
    """
    for keyword, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(f"{keyword} must be an integer of at least {least}, not {shown(value)}")


def true_or_false(**values: bool) -> None:
    """Check that every keyword is a bool. (The text "false" would count as true.)

    Raises:
        UserError: the first keyword that is not.
    """
    for keyword, value in values.items():
        if not isinstance(value, bool):
            raise UserError(f"{keyword} must be true or false, not {shown(value)}")


def reports_user_errors(main: Callable) -> Callable:
    """Decorate the ``main`` of a command line.

    A :class:`UserError` prints its message to standard error and exits with status 2, without a
    traceback, and so does an error of :func:`out_of_memory`. An interrupt exits with status 130.
    """

    @functools.wraps(main)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            print(f"error: {_message(error)}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)
        except (MemoryError, RuntimeError, OSError) as error:
            sentence = out_of_memory(error) or _unusable_file(error)
            if not sentence:
                raise
            print(f"error: {sentence}", file=sys.stderr)
            sys.exit(2)

    return wrapped


# What the allocators of torch, of NumPy and of the operating system, and data loaders whose worker
# process was killed, say about memory.
_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|can't allocate memory|cannot allocate memory"
    r"|unable to allocate|alloc_cpu|killed by signal: killed|invalid buffer size"
    r"|storage size calculation overflowed",
    re.IGNORECASE,
)
_AMOUNT = re.compile(r"(?:allocate|allocate:)\s+(\d[\d.]*\s?(?:[KMGTPE]i?B|bytes))", re.IGNORECASE)


# Errors of files that no program can prevent, and paths that no system accepts.
_FILE_ERRORS = (
    *(errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EIO),
    *(errno.ELOOP, errno.EMFILE, errno.ENFILE),
)


def _unusable_file(error: BaseException) -> str:
    """Return one sentence about a file or folder that the system refuses; empty for others."""
    if not isinstance(error, OSError) or error.errno not in _FILE_ERRORS:
        return ""
    name = error.filename
    where = shown(os.fspath(name)) if isinstance(name, str | bytes | os.PathLike) else "a file"
    return (
        f"{where} cannot be used ({error.strerror}); name another file or folder, or fix its "
        "permissions or the space there"
    )


def out_of_memory(error: BaseException) -> str:
    """Return one sentence about an error of memory that says what needs less; empty for others.

    Example:
        >>> out_of_memory(MemoryError("Unable to allocate 7.00 GiB for an array"))[:49]
        'there is not enough memory (7.00 GiB more needed)'
        >>> out_of_memory(RuntimeError("size mismatch"))
        ''
    """
    kind, text = type(error).__name__, str(error)
    if not (
        isinstance(error, MemoryError) or kind == "OutOfMemoryError" or _NO_MEMORY.search(text)
    ):
        return ""
    amount = _AMOUNT.search(text)
    more = f" ({amount[1]} more needed)" if amount else ""
    return (
        f"there is not enough memory{more}; use smaller images (INPUT.MIN_SIZE_TRAIN, "
        "INPUT.MIN_SIZE_TEST), a smaller INPUT.CROP.SIZE or TEST.TILES.SIZE, fewer images "
        "at a time (SOLVER.IMS_PER_BATCH, or SOLVER.ACCUMULATE for the same batch), fewer "
        "DATALOADER.NUM_WORKERS, or a smaller model"
    )


_LONGEST_WORD = 300  # characters, of a path or a name in a message
_LONG_WORD = re.compile(rf"\S{{{_LONGEST_WORD + 3},}}")


def _message(error: UserError) -> str:
    """Return the message of an error. If the error was raised in a worker process of a data loader,
    torch has put the traceback of that process before the message."""
    text = str(error)
    if text.startswith("Caught ") and "Traceback (most recent call last)" in text:
        raised = rf"^(?:\w+\.)*{type(error).__name__}: "
        text = re.split(raised, text, flags=re.MULTILINE)[-1]
    return _LONG_WORD.sub(lambda word: f"{word[0][:_LONGEST_WORD]}...", text.strip())
