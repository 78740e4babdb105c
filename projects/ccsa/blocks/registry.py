"""The registry of context blocks, and how a line of configuration becomes one."""

import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn

from ccsa.errors import UserError, suggestion


class Registry:
    """Names of block classes, used as Detectron2's registries are."""

    def __init__(self, name: str):
        self.name = name
        self._classes: dict[str, type[nn.Module]] = {}

    def register(self, obj: type[nn.Module] | None = None) -> Any:
        """Decorator, ``@REGISTRY.register()``, or a plain call with the class."""

        def add(cls: type[nn.Module]) -> type[nn.Module]:
            if cls.__name__ in self._classes:
                raise UserError(f"{self.name} has a '{cls.__name__}' already")
            self._classes[cls.__name__] = cls
            return cls

        return add if obj is None else add(obj)

    def get(self, name: str) -> type[nn.Module]:
        """The class of that name; ValueError with the near misses if there is none."""
        if name not in self._classes:
            raise UserError(f"there is no {self.name} '{name}'{suggestion(name, list(self))}")
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
            raise UserError(f"{name} has no keyword '{key}'{suggestion(key, known)}")
    try:
        return cls(channels, **keywords)
    except TypeError as error:
        raise UserError(f"{name} refuses {keywords}: {error}") from error
