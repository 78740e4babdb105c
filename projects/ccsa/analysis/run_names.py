"""Names of runs that are compared: the folder of their configuration, and what differs in it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from ccsa.engine.config_files import flat_keys
from ccsa.engine.config_values import find_value
from ccsa.utils.files import real_path

# The keys that may differ between two runs of one group. Data may have moved between two runs.
RUN_KEYS = ("SEED", "OUTPUT_DIR")
LOCATION_KEYS = ("ROOT", "IMAGES", "VAL", "VAL_IMAGES")
_MOST_KEYS = 3  # in a name
_LONGEST = 40  # characters of a value
_ABSENT = object()


def group_names(folders: Sequence[Path], cfgs: Sequence[CfgNode]) -> list[str]:
    """Return short names that distinguish configurations.

    A name has as few levels of the path as possible, without the number of the run. Configurations
    of the same folder, such as ``output/digits/fcn/1`` and ``output/digits/fcn/4``, are also named
    by the keys in which they differ from each other.

    Args:
        folders: a run of each configuration.
        cfgs: the configurations, of which no two are equal.

    Example:
        >>> from detectron2.config import get_cfg
        >>> one, other = get_cfg(), get_cfg()
        >>> other.SOLVER.MAX_ITER = 90
        >>> group_names([Path("fcn/1"), Path("fcn/2")], [one, other])
        ['fcn, MAX_ITER 40000', 'fcn, MAX_ITER 90']
    """
    parts = [real_path(folder).parts for folder in folders]
    stems = [p[:-1] if p[-1].isdigit() and len(p) > 2 else p for p in parts]
    short = dict(zip(stems, _shortest(stems), strict=True))
    names = []
    for stem, cfg in zip(stems, cfgs, strict=True):
        alike = [c for s, c in zip(stems, cfgs, strict=True) if s == stem]
        changed = differing_keys(alike) if len(alike) > 1 else []
        names.append(", ".join([short[stem], *_shown(cfg, changed)]))
    if len(set(names)) < len(names):  # the values were shortened
        names = [
            f"{n} ({p[-1]})" if names.count(n) > 1 else n for n, p in zip(names, parts, strict=True)
        ]
    return names


def differing_keys(cfgs: Sequence[CfgNode]) -> list[str]:
    """Return the dotted keys whose values are not the same in all configurations, without those
    that differ between runs of one group."""
    left_out = {*RUN_KEYS, *(f"DATASETS.OWN.{key}" for key in LOCATION_KEYS)}
    keys = sorted({key for cfg in cfgs for key in flat_keys(cfg)} - left_out)
    return [key for key in keys if any(_value(c, key) != _value(cfgs[0], key) for c in cfgs[1:])]


def _shortest(stems: Sequence[tuple[str, ...]]) -> list[str]:
    """Return the shortest ends of paths that distinguish those that are different."""
    distinct = len(set(stems))
    for depth in range(1, max(map(len, stems)) + 1):
        names = ["/".join(stem[-depth:]) for stem in stems]
        if len(set(names)) == distinct:
            return names
    return ["/".join(stem) for stem in stems]


def _shown(cfg: CfgNode, keys: Sequence[str]) -> list[str]:
    """Return the values of keys; a key is shortened to its last part if that is unambiguous."""
    last = [key.rpartition(".")[2] for key in keys]
    names = [k if last.count(name) > 1 else name for k, name in zip(keys, last, strict=True)]
    shown = [
        f"{name} {_text(_value(cfg, key))}"
        for name, key in zip(names[:_MOST_KEYS], keys, strict=False)
    ]
    more = len(keys) - len(shown)
    return shown + [f"and {more} more keys"] * (more > 0)


def _value(cfg: CfgNode, key: str) -> Any:
    """Return the value of a dotted key, or a mark if ``cfg`` does not have it."""
    try:
        return find_value(cfg, key)
    except KeyError:
        return _ABSENT


def _text(value: Any) -> str:
    """Return a value as short text; blocks by their name and location."""
    if value is _ABSENT:
        return "absent"
    if isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
        return " + ".join(_block(v) for v in value)[:_LONGEST]
    return (str(value) or "''")[:_LONGEST]


def _block(spec: Any) -> str:
    """Return a block such as ``CrissCross recurrence=2 at backbone.res4``."""
    if not isinstance(spec, Mapping):
        return str(spec)
    rest = [f"{k}={v}" for k, v in spec.items() if k not in ("block", "at")]
    place = [f"at {spec['at']}"] if "at" in spec else []
    return " ".join([str(spec.get("block", "")), *rest, *place]).strip()
