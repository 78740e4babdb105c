"""Reading of configuration files and of KEY VALUE pairs.

Files are read by fvcore: ``_BASE_`` names one file or a list of files, relative to the file that
names them. Later files win, mappings are merged, and lists are replaced. Keys that were renamed
are accepted under their former name.
"""

import copy
import io
import logging
import os.path
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from ccsa.config import RENAMED_KEYS
from ccsa.errors import UserError, suggestion

logger = logging.getLogger(__name__)

# The top-level key that describes an overlay; see ccsa.engine.overlays.
OVERLAY_KEY = "_OVERLAY_"

_BASES = "_BASE_"  # the key that names the files which a file extends

# The configurations of this project. What they say is a default, not the user's word.
PROJECT_CONFIGS = Path(__file__).resolve().parents[3] / "configs"

# Keys whose value is a mapping {number: number}, kept in a list because of CfgNode.
_MAPPINGS = ("DATASETS.LABEL_MAPPING",)

# Keys whose value is a word or a list. yacs rejects a value of another type than the default.
_WORD_OR_LIST = ("INPUT.INTENSITY_RANGE",)


class _ConfigFile(CfgNode):
    """Translates the renamed keys of each file before fvcore merges it with its bases."""

    @classmethod
    def _open_cfg(cls, filename: str) -> io.StringIO:
        with super()._open_cfg(filename) as stream:
            content = yaml.safe_load(stream)
        if content is None:
            content = {}
        if not isinstance(content, dict):
            raise UserError(
                f"{filename} is not a configuration: it holds a {type(content).__name__} instead "
                "of keys; write KEY: VALUE entries"
            )
        if _contains_itself(content):
            raise UserError(
                f"{filename} is not a configuration: one of its YAML aliases refers to itself; "
                "write the value out"
            )
        _check_bases(content, filename)
        translate_renamed_keys(content, filename)
        return io.StringIO(yaml.safe_dump(content, sort_keys=False))


def read_config_file(file: str, *, keep_overlay: bool = False) -> dict[str, Any]:
    """Return the content of a YAML file, merged with its ``_BASE_`` files.

    Args:
        file: the path of the file.
        keep_overlay: keep the key ``_OVERLAY_`` that describes an overlay. Otherwise it is
            removed, so that overlays can be listed in ``_BASE_``.

    Raises:
        UserError: the file or one of its bases cannot be read or is not a configuration.
    """
    content = _load(file)
    about = content.get(OVERLAY_KEY)
    if not keep_overlay:
        content.pop(OVERLAY_KEY, None)
        if isinstance(about, dict) and about.get("edit_blocks"):
            raise UserError(
                f"{file} names an overlay that edits context blocks in _BASE_; apply it by --with, "
                "or write the list of blocks into the file"
            )
    return content


def _contains_itself(value: Any, parents: tuple[int, ...] = ()) -> bool:
    """Return whether a mapping or a list contains itself, which YAML aliases make possible."""
    if id(value) in parents:
        return True
    inner = value.values() if isinstance(value, dict) else value
    return isinstance(value, dict | list) and any(
        _contains_itself(item, (*parents, id(value))) for item in inner
    )


def _check_bases(content: dict[str, Any], file: str) -> None:
    """Raise a UserError unless ``_BASE_`` names one or several existing files, or is missing."""
    if _BASES not in content:
        return
    bases = content[_BASES]
    names = bases if isinstance(bases, list) else [bases]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise UserError(
            f"{file}: {_BASES} must be the path of a file or a list of paths, not {bases!r}; "
            f"name the files, or remove {_BASES}"
        )
    for name in names:
        if "://" not in name:
            path = os.path.join(os.path.dirname(file), os.path.expanduser(name))
            existing_file(path, f"{file}: {_BASES}")


def _load(file: str) -> dict[str, Any]:
    try:
        return _ConfigFile.load_yaml_with_base(file, allow_unsafe=False)
    except UserError:
        raise
    except RecursionError as error:
        raise UserError(
            f"{file} cannot be used: its _BASE_ files refer to each other; remove one of them"
        ) from error
    except (
        *(OSError, ValueError, TypeError, AssertionError, AttributeError),
        yaml.YAMLError,
    ) as error:
        raise UserError(f"{file} cannot be used: {error}") from error


def translate_renamed_keys(content: dict[str, Any], file: str) -> None:
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
        logger.warning(f"{file}: {old} has been renamed and is read as {new}")


def user_keys(file: str) -> set[str]:
    """Return the keys that configuration files outside this project's ``configs`` folder set.

    Args:
        file: a configuration file that :func:`read_config_file` has read without an error. The
            files that it names in ``_BASE_`` count as well, unless they are the project's.

    Example:
        >>> user_keys("configs/digits/ccnet.yaml")
        set()
    """
    path = Path(file).resolve()
    if path.is_relative_to(PROJECT_CONFIGS):
        return set()
    content = yaml.safe_load(_ConfigFile._open_cfg(str(path))) or {}
    bases = content.pop(_BASES, [])
    content.pop(OVERLAY_KEY, None)
    keys = set(flat_keys(CfgNode(_with_listed_mappings(content))))
    for base in [bases] if isinstance(bases, str) else bases:
        keys |= user_keys(str(path.parent / Path(base).expanduser()))
    return keys


def _with_listed_mappings(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content with mappings of numbers in a list, which CfgNode needs."""
    listed: dict[str, Any] = copy.deepcopy(dict(content))
    for key in _MAPPINGS:
        section, name = key.split(".")
        node = listed.get(section)
        if isinstance(node, dict) and isinstance(node.get(name), dict):
            node[name] = [node[name]]
    return listed


def merge_content(cfg: CfgNode, content: Mapping[str, Any], file: str) -> None:
    """Merge the content of a file, as :func:`read_config_file` returns it, into ``cfg``.

    Raises:
        UserError: a key does not exist, or a value has the wrong type.
    """
    try:
        loaded = CfgNode(_with_listed_mappings(content))
    except AssertionError as error:  # a value of a type such as a date
        raise UserError(f"{file} cannot be used: {error}") from error
    for key in flat_keys(loaded):
        check_key(cfg, key, f"in {file}")
        try:
            value = find_value(loaded, key)
        except KeyError:
            raise UserError(
                f"{file} writes {key} with a dot; write each part of the key on its own level"
            ) from None
        if value != {}:  # an empty section changes nothing
            check_no_section(cfg, key, f"in {file}")
        _accept_any_type(cfg, key)
    try:
        cfg.merge_from_other_cfg(loaded)
    except (ValueError, AssertionError, AttributeError) as error:
        raise UserError(f"{file} cannot be used: {error}") from error


def merge_options(cfg: CfgNode, options: list[str]) -> None:
    """Merge ``KEY VALUE ...`` from the command line into ``cfg``.

    Raises:
        UserError: the words are not pairs, a key does not exist, or a value has the wrong type.
    """
    for word in options:
        if word.startswith("--"):
            raise UserError(f"{word} comes too late: put it before the first KEY VALUE pair")
    if len(options) % 2:
        raise UserError(
            f"the option {options[-1]} has no value; options are given in pairs KEY VALUE, but "
            f"there are {len(options)} words: {' '.join(options)}"
        )
    for given, value in zip(options[::2], options[1::2], strict=True):
        key = RENAMED_KEYS.get(given, given)
        if key != given:
            logger.warning(f"{given} has been renamed and is read as {key}")
        check_key(cfg, key, "on the command line")
        check_no_section(cfg, key, "on the command line")
        _accept_any_type(cfg, key)
        if key in _MAPPINGS and value.strip().startswith("{"):
            value = f"[{value}]"
        try:
            cfg.merge_from_list([key, value])
        except (ValueError, AssertionError, SyntaxError, AttributeError) as error:
            raise UserError(f"{key} cannot be '{value}': {error}") from error


def _accept_any_type(cfg: CfgNode, key: str) -> None:
    """Let ``cfg`` accept a value of any type for a key that may be a word or a list."""
    if key in _WORD_OR_LIST:
        section, name = key.split(".")
        cfg[section][name] = None  # of which yacs does not know the type


def check_key(cfg: CfgNode, key: str, where: str) -> None:
    """Raise a UserError with the most similar keys if ``cfg`` does not have ``key``."""
    node = cfg
    for part in key.split("."):
        if not isinstance(node, CfgNode) or part not in node:
            hint = suggestion(key, list(flat_keys(cfg)), listed=0, cutoff=0.75)
            raise UserError(f"there is no key {key} ({where}){hint}")
        node = node[part]


def check_no_section(cfg: CfgNode, key: str, where: str) -> None:
    """Raise a UserError if ``key`` of ``cfg`` is a section of keys, which cannot be one value."""
    section = find_value(cfg, key)
    if isinstance(section, CfgNode):
        raise UserError(
            f"{key} ({where}) is a section of keys and cannot be one value; give one of its keys, "
            f"e.g. {next(flat_keys(section, f'{key}.'))}"
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


def flat_keys(cfg: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all keys that hold a value."""
    for key, value in cfg.items():
        if isinstance(value, CfgNode | dict) and value:
            yield from flat_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def existing_file(file: str, option: str) -> str:
    """Return ``file``; raise a UserError that lists its neighbors if it is not a file."""
    if os.path.isdir(file):
        names = sorted(p.name for p in Path(file).glob("*.yaml"))
        files = f", e.g. one of its files: {', '.join(names[:8])}" if names else ""
        raise UserError(f"{option} {file} is a folder; name a YAML file{files}")
    if not os.path.isfile(file):  # unlike Path.is_file, it accepts names that are too long
        folder = Path(file).parent
        names = sorted(p.name for p in folder.glob("*.yaml")) if os.path.isdir(folder) else []
        hint = suggestion(Path(file).name, names, listed=8)
        raise UserError(f"{option} {file} does not exist in {folder}{hint}")
    return file
