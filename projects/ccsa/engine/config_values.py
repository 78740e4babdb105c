"""Merging of files and of KEY VALUE pairs into a configuration, with checks of every value."""

import ast
import logging
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode

from ccsa.config import RENAMED_KEYS
from ccsa.engine.config_files import MAPPINGS, flat_keys
from ccsa.engine.values import problem
from ccsa.errors import UserError, shown, suggestion

logger = logging.getLogger(__name__)


def merge_content(cfg: CfgNode, content: Mapping[str, Any], file: str) -> None:
    """Merge the content of a file, as :func:`ccsa.engine.config_files.read_config_file` returns it,
    into ``cfg``.

    Raises:
        UserError: a key does not exist, or a value is not valid for its key.
    """
    where = f"in {file}"
    for key in flat_keys(content):
        check_key(cfg, key, where)
        value = find_value(content, key)
        if isinstance(value, Mapping) and not value and key not in MAPPINGS:
            continue  # an empty section changes nothing
        _set(cfg, key, decode(value) if isinstance(value, str) else value, where, value)


def merge_options(cfg: CfgNode, options: list[str]) -> None:
    """Merge ``KEY VALUE ...`` from the command line into ``cfg``.

    Raises:
        UserError: the words are not pairs, a key does not exist, or a value is not valid for its
            key.
    """
    check_pairs(options)
    given: dict[str, str] = {}
    for name, word in zip(options[::2], options[1::2], strict=True):
        key = RENAMED_KEYS.get(name, name)
        if key != name:
            logger.warning(f"{name} has been renamed and is read as {key}")
        if given.get(key, word) != word:
            logger.warning(
                f"{key} is given twice on the command line; the last value, {shown(word)}, is used"
            )
        given[key] = word
        check_key(cfg, key, "on the command line")
        _set(cfg, key, decode(word), "on the command line", word)


def check_pairs(options: list[str]) -> None:
    """Check that words are KEY VALUE pairs.

    Raises:
        UserError: they are not.
    """
    for word in options:
        if word.startswith("--"):
            raise UserError(f"{word} comes too late: put it before the first KEY VALUE pair")
    if len(options) % 2:
        raise UserError(
            f"the option {options[-1]} has no value; options are given in pairs KEY VALUE, but "
            f"there are {len(options)} words: {shown(' '.join(options))}"
        )


def decode(word: str) -> Any:
    """Return the value that a word stands for; the word itself if it is no literal of Python.

    Example:
        >>> decode("(1, 2)"), decode("1e-4"), decode("digits_train"), decode("None")
        ((1, 2), 0.0001, 'digits_train', None)
    """
    try:
        return ast.literal_eval(word)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return word


def _set(cfg: CfgNode, key: str, value: Any, where: str, written: Any) -> None:
    """Set an existing key of ``cfg``, converted to the type of its default.

    Args:
        cfg: changed in place.
        key: the dotted key.
        value: the decoded value.
        where: where it was written, for messages.
        written: the value as it was written.
    """
    check_no_section(cfg, key, where)
    *parents, name = key.split(".")
    node = cfg
    for parent in parents:
        node = node[parent]
    default = node[name]
    if isinstance(default, str) and isinstance(written, str) and not isinstance(value, str):
        # A folder may be called 2024. A word that is a list, as for INPUT.INTENSITY_RANGE, is one.
        value = value if isinstance(value, list | tuple) else written
    if key in MAPPINGS and isinstance(value, Mapping):
        value = [dict(value)] if value else []
    value = _converted(value, default)
    wrong = problem(key, value, default)
    if wrong:
        hint = ""
        if isinstance(default, list | tuple) and isinstance(value, str) and value:
            hint = f"; write a list, e.g. \"['{value}']\"" if len(value) < 60 else ""
        if isinstance(default, bool) and isinstance(value, str) and value.lower() in _BOOLS:
            hint = f"; write {_BOOLS[value.lower()]}"
        raise UserError(f"{key} ({where}) {wrong}{hint}")
    node[name] = value


_BOOLS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def _converted(value: Any, default: Any) -> Any:
    """Return the value as the type of the default, where nothing is lost."""
    if isinstance(default, tuple) and isinstance(value, list):
        return tuple(value)
    if isinstance(default, list) and isinstance(value, tuple):
        return list(value)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return value
    return value


def check_key(cfg: CfgNode, key: str, where: str) -> None:
    """Raise a UserError with the most similar keys if ``cfg`` does not have ``key``."""
    node = cfg
    for part in key.split("."):
        if not isinstance(node, CfgNode) or part not in node:
            hint = suggestion(key, flat_keys(cfg), listed=0, cutoff=0.75)
            name = key if len(key) < 80 else f"{key[:77]}..."
            raise UserError(f"there is no key {name or repr(name)} ({where}){hint}")
        node = node[part]


def check_no_section(cfg: CfgNode, key: str, where: str) -> None:
    """Raise a UserError if ``key`` of ``cfg`` is a section of keys, which cannot be one value."""
    section = find_value(cfg, key)
    if isinstance(section, CfgNode):
        raise UserError(
            f"{key} ({where}) is a section of keys and cannot be one value; give one of its keys, "
            f"e.g. {key}.{flat_keys(section)[0]}"
        )


def find_value(cfg: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key, which exists.

    Example:
        >>> find_value({"SOLVER": {"MAX_ITER": 7}}, "SOLVER.MAX_ITER")
        7
    """
    value: Any = cfg
    for part in key.split("."):
        value = value[part]
    return value


def convert_former_keys(cfg: CfgNode) -> None:
    """Replace former keys of ``cfg`` that have a value by the keys of today, in place.

    ``TEST.SLIDING_WINDOW.CROP`` and ``STRIDE`` become ``TEST.TILES.SIZE`` and ``OVERLAP``, the
    size minus the stride. Of a missing one, the value is that of today's keys.

    Example:
        >>> from detectron2.config import get_cfg
        >>> from ccsa.config import add_ccsa_config
        >>> cfg = get_cfg()
        >>> add_ccsa_config(cfg)
        >>> cfg.TEST.SLIDING_WINDOW.CROP = [500, 600]
        >>> convert_former_keys(cfg)
        >>> cfg.TEST.TILES.SIZE, cfg.TEST.TILES.OVERLAP, cfg.TEST.SLIDING_WINDOW.CROP
        ([500, 600], [-13, 87], [])
    """
    former, keys = cfg.TEST.SLIDING_WINDOW, cfg.TEST.TILES
    if former.CROP or former.STRIDE:
        strides = [size - overlap for size, overlap in zip(keys.SIZE, keys.OVERLAP, strict=True)]
        size, stride = former.CROP or keys.SIZE, former.STRIDE or strides
        keys.SIZE = list(size)
        keys.OVERLAP = [s - step for s, step in zip(size, stride, strict=True)]
        former.CROP, former.STRIDE = [], []
