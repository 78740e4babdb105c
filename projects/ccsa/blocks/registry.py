"""The registry of context blocks, and how a line of configuration becomes one."""

import difflib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

from torch import nn

K = TypeVar("K")
V = TypeVar("V")


class Registry:
    """Names of block classes, used as Detectron2's registries are."""

    def __init__(self, name: str):
        self.name = name
        self._classes: dict[str, type[nn.Module]] = {}

    def register(self, obj: type[nn.Module] | None = None) -> Any:
        """Decorator, ``@REGISTRY.register()``, or a plain call with the class."""

        def add(cls: type[nn.Module]) -> type[nn.Module]:
            if cls.__name__ in self._classes:
                raise ValueError(f"{self.name} has a '{cls.__name__}' already")
            self._classes[cls.__name__] = cls
            return cls

        return add if obj is None else add(obj)

    def get(self, name: str) -> type[nn.Module]:
        """The class of that name; ValueError with the near misses if there is none."""
        if name not in self._classes:
            raise ValueError(f"there is no {self.name} '{name}'{_hint(name, list(self))}")
        return self._classes[name]

    def __contains__(self, name: str) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)


CONTEXT_BLOCK_REGISTRY = Registry("context block")
"""Classes called as ``cls(channels, **keywords)``; they map (B, C, *spatial) to the same shape."""


def build_block(name: str, channels: int, **keywords: Any) -> nn.Module:
    """Build a registered block.

    Args:
        name: its name in :data:`CONTEXT_BLOCK_REGISTRY`.
        channels: C of the maps it will get.
        keywords: its own.

    Raises:
        ValueError: an unknown name or keyword, or a value that the block refuses.
    """
    cls = CONTEXT_BLOCK_REGISTRY.get(name)
    known = list(inspect.signature(cls).parameters)[1:]
    for key in keywords:
        if key not in known:
            raise ValueError(f"{name} has no keyword '{key}'{_hint(key, known)}")
    try:
        return cls(channels, **keywords)
    except TypeError as error:
        raise ValueError(f"{name} refuses {keywords}: {error}") from error


def one_of(choices: Mapping[K, V], value: K, keyword: str) -> V:
    """The choice that a keyword's value names; ValueError with the valid ones if there is none."""
    if value not in list(choices):  # a list: the value may be unhashable
        valid = ", ".join(map(str, choices))
        raise ValueError(f"{keyword} must be one of {valid}, not {value!r}")
    return choices[value]


def at_least(least: int, **values: int) -> None:
    """Refuse keywords that are no integer of at least ``least``."""
    for keyword, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{keyword} must be an integer of at least {least}, not {value!r}")


def true_or_false(**values: bool) -> None:
    """Refuse keywords that are no bool: the text "false" would count as true."""
    for keyword, value in values.items():
        if not isinstance(value, bool):
            raise ValueError(f"{keyword} must be true or false, not {value!r}")


def _hint(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=2)
    lead = f"; did you mean {' or '.join(near)}?" if near else ";"
    return f"{lead} there are {', '.join(known)}"
