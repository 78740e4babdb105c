"""Reading of configuration files.

``_BASE_`` names one file or a list of files, relative to the file that names them. Later files
win, mappings are merged, and lists are replaced. Keys that were renamed are accepted under their
former name. :mod:`ccsa.engine.config_values` merges the content into a configuration.
"""

import copy
import logging
import os.path
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import PathManager

import ccsa.utils.downloads  # noqa: F401, replaces the handler of web addresses
from ccsa.config import RENAMED_KEYS
from ccsa.errors import UserError, shown, suggestion
from ccsa.utils.files import real_path
from ccsa.utils.run_folders import is_run_config
from ccsa.utils.yaml_files import read_yaml

logger = logging.getLogger(__name__)

# The top-level key that describes an overlay; see ccsa.engine.overlays.
OVERLAY_KEY = "_OVERLAY_"

_BASES = "_BASE_"  # the key that names the files which a file extends
_MOST_LEVELS = 50  # of files that extend each other

# The configurations of this project. What they say is a default, not the user's word.
PROJECT_CONFIGS = Path(__file__).resolve().parents[3] / "configs"

# Keys whose value is a mapping {number: number}.
MAPPINGS = ("DATASETS.LABEL_MAPPING",)

Content = dict[str, Any]


def read_config_file(file: str, *, keep_overlay: bool = False) -> Content:
    """Return the content of a YAML file, merged with its ``_BASE_`` files.

    Args:
        file: the path of the file.
        keep_overlay: keep the key ``_OVERLAY_`` that describes an overlay. Otherwise it is
            removed, so that overlays can be listed in ``_BASE_``.

    Raises:
        UserError: the file or one of its bases cannot be read or is not a configuration.
    """
    content = _with_bases(file, (), {})
    about = content.get(OVERLAY_KEY)
    if not keep_overlay:
        content.pop(OVERLAY_KEY, None)
        if isinstance(about, dict) and about.get("edit_blocks"):
            raise UserError(
                f"{file} names an overlay that edits context blocks in _BASE_; apply it by --with, "
                "or write the list of blocks into the file"
            )
    return content


def _with_bases(file: str, parents: tuple[str, ...], known: dict[str, Content]) -> Content:
    """Return the content of a file, merged with its bases.

    Args:
        file: the path or address of the file.
        parents: the files that extend this one, directly or not.
        known: what was read already; a file may be the base of several.
    """
    if file in parents:
        raise UserError(
            f"{parents[0]} cannot be used: {_BASES} files refer to each other "
            f"({' -> '.join([*parents[parents.index(file) :], file])}); remove one of them"
        )
    if len(parents) > _MOST_LEVELS:
        raise UserError(
            f"{parents[0]} cannot be used: its {_BASES} files extend each other over more than "
            f"{_MOST_LEVELS} levels; use fewer"
        )
    if file not in known:
        content = _read(file)
        merged: Content = {}
        for base in _pop_bases(content, file, parents):
            _merge(_with_bases(base, (*parents, file), known), merged, file)
        _merge(content, merged, file)
        known[file] = merged
    return copy.deepcopy(known[file])


def _read(file: str) -> Content:
    """Return the content of one file, with its ``_BASE_`` and without renamed keys."""
    content = read_yaml(PathManager.get_local_path(file) if "://" in file else file)
    if not isinstance(content, dict):
        kind = "it is empty" if content is None else f"it is a {type(content).__name__}"
        raise UserError(f"{file} is not a configuration, because {kind}; write KEY: VALUE entries")
    _check_names(content, file)
    translate_renamed_keys(content, file)
    return content


def _check_names(content: Content, file: str, section: str = "") -> None:
    """Raise a UserError unless every key is text without a dot."""
    for key, value in content.items():
        where = f" in the section {section.rstrip('.')}" if section else ""
        if not isinstance(key, str):
            raise UserError(
                f"{file}: a key must be text, not {shown(key)}{where}; correct or remove it"
            )
        if "." in key:
            raise UserError(
                f"{file} writes {section}{key} with a dot; write each part of the key on its own "
                "level"
            )
        if isinstance(value, dict) and f"{section}{key}" not in MAPPINGS and key != OVERLAY_KEY:
            _check_names(value, file, f"{section}{key}.")


def _pop_bases(content: Content, file: str, parents: tuple[str, ...] = ()) -> list[str]:
    """Remove ``_BASE_`` from the content of a file, and return the paths of the files it names.

    Raises:
        UserError: the value is not one or several paths of existing files.
    """
    if _BASES not in content:
        return []
    bases = content.pop(_BASES)
    names = bases if isinstance(bases, list) else [bases]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UserError(
            f"{file}: {_BASES} must be the path of a file or a list of paths, not {shown(bases)}; "
            f"name the files, or remove {_BASES}"
        )
    files = []
    for name in names:
        if "://" in name and is_run_config(parents[0] if parents else file):
            raise UserError(
                f"{file}: {_BASES} names {shown(name)}, but the configuration of a run never "
                f"downloads anything; remove {_BASES}"
            )
        if "://" not in name:
            path = os.path.join(os.path.dirname(file), os.path.expanduser(name))
            name = os.path.normpath(existing_file(path, f"{file}: {_BASES}"))
        files.append(name)
    return files


def _merge(content: Content, target: Content, file: str, section: str = "") -> None:
    """Merge the content of a file into that of its bases, in place."""
    for key, value in content.items():
        before = target.get(key)
        if isinstance(value, dict) and before is not None:
            if not isinstance(before, dict):
                raise UserError(
                    f"{file}: {section}{key} is a section here, but {before!r} in one of its "
                    f"{_BASES} files; correct one of them"
                )
            _merge(value, before, file, f"{section}{key}.")
        else:
            target[key] = value


def find_section(content: Content, names: list[str]) -> Content:
    """Return a section inside sections, which exists."""
    for name in names:
        content = content[name]
    return content


def translate_renamed_keys(content: Content, file: str) -> None:
    """Replace the renamed keys in the content of one file, in place.

    Raises:
        UserError: the file gives a key under both names.
    """
    for old, new in RENAMED_KEYS.items():
        *parents, name = old.split(".")
        node: Any = content
        for parent in parents:
            node = node.get(parent) if isinstance(node, dict) else None
        if not isinstance(node, dict) or name not in node:
            continue
        *new_parents, new_name = new.split(".")
        target = content
        for parent in new_parents:
            target = target.setdefault(parent, {})
        if new_name in target:
            raise UserError(
                f"{file} gives {old} and {new}, which are the same key; remove {old}, "
                "its former name"
            )
        target[new_name] = node.pop(name)
        if not node:  # a section without other keys
            *above, section = parents
            find_section(content, above).pop(section)
        logger.warning(f"{file}: {old} has been renamed and is read as {new}")


def user_keys(file: str, known: set[str] | None = None) -> set[str]:
    """Return the keys that configuration files outside this project's ``configs`` folder set.

    Args:
        file: a configuration file that :func:`read_config_file` has read without an error. The
            files that it names in ``_BASE_`` count as well, unless they are the project's.
        known: files that were looked at already; used for the bases.

    Example:
        >>> user_keys("configs/digits/ccnet.yaml")
        set()
    """
    known = set() if known is None else known
    if file in known or real_path(file).is_relative_to(PROJECT_CONFIGS):
        return set()
    known.add(file)
    content = _read(file)
    bases = _pop_bases(content, file)
    content.pop(OVERLAY_KEY, None)
    return set(flat_keys(content)).union(*(user_keys(base, known) for base in bases))


def flat_keys(content: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the dotted names of all keys that hold a value.

    Example:
        >>> flat_keys({"SOLVER": {"MAX_ITER": 7}, "SEED": 1})
        ['SOLVER.MAX_ITER', 'SEED']
    """
    keys = []
    for key, value in content.items():
        if isinstance(value, Mapping) and value and f"{prefix}{key}" not in MAPPINGS:
            keys += flat_keys(value, f"{prefix}{key}.")
        else:
            keys.append(f"{prefix}{key}")
    return keys


def existing_file(file: str, option: str) -> str:
    """Return ``file``; raise a UserError that lists its neighbors if it is not a file."""
    if os.path.isdir(file):
        names = sorted(p.name for p in Path(file).glob("*.yaml"))
        files = f", e.g. one of its files: {', '.join(names[:8])}" if names else ""
        raise UserError(f"{option} {file} is a folder; name a YAML file{files}")
    if os.path.exists(file) and not os.path.isfile(file):  # a named pipe or a device
        raise UserError(f"{option} {file} is not a regular file; name a YAML file")
    if not os.path.isfile(file):  # unlike Path.is_file, it accepts names that are too long
        folder = Path(file).parent
        names = sorted(p.name for p in folder.glob("*.yaml")) if os.path.isdir(folder) else []
        hint = suggestion(Path(file).name, names, listed=8)
        raise UserError(f"{option} {_short(file)} does not exist in {_short(str(folder))}{hint}")
    return file


def _short(path: str, most: int = 150) -> str:
    return path if len(path) <= most else f"{path[:most]}..."
