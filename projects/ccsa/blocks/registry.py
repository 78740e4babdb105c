"""The registry of context blocks, and how an entry of a configuration becomes a block."""

import inspect
from collections.abc import Iterator
from typing import Any

from torch import nn

from ccsa.errors import UserError, shown, suggestion


class Registry:
    """A mapping from names to classes of blocks, with the interface of Detectron2's registries.

    Args:
        name: what the registry contains, for messages.

    Example:
        >>> registry = Registry("context block")
        >>> @registry.register()
        ... class Doubling(nn.Module):
        ...     def forward(self, x):
        ...         return 2 * x
        >>> "Doubling" in registry, list(registry)
        (True, ['Doubling'])
    """

    def __init__(self, name: str):
        self.name = name
        self._classes: dict[str, type[nn.Module]] = {}

    def register(self, obj: type[nn.Module] | None = None) -> Any:
        """Register a class by its name: as decorator, ``@REGISTRY.register()``, or as a function.

        Raises:
            UserError: the name is taken.
        """

        def add(cls: type[nn.Module]) -> type[nn.Module]:
            if cls.__name__ in self._classes:
                raise UserError(f"{self.name} '{cls.__name__}' is already registered")
            self._classes[cls.__name__] = cls
            return cls

        return add if obj is None else add(obj)

    def get(self, name: str) -> type[nn.Module]:
        """Return the class with this name.

        Raises:
            UserError: the name is unknown; the message suggests near misses.
        """
        if not isinstance(name, str):
            names = ", ".join(self)
            raise UserError(
                f"the name of a {self.name} is a string, not {shown(name)}; use {names}"
            )
        if name not in self._classes:
            raise UserError(f"unknown {self.name} '{name}'{suggestion(name, list(self))}")
        return self._classes[name]

    def __contains__(self, name: str) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)


CONTEXT_BLOCK_REGISTRY = Registry("context block")
"""The context blocks by name.

A registered class is called as ``cls(channels, **keywords)`` and returns a module from
(B, C, *spatial) to the same shape, where C is ``channels``.

Example:
    >>> from ccsa.blocks import CONTEXT_BLOCK_REGISTRY
    >>> sorted(CONTEXT_BLOCK_REGISTRY)
    ['CrissCross', 'NonLocal', 'SqueezeAttention', 'SqueezeExcitation']
"""


def build_block(name: str, channels: int, **keywords: Any) -> nn.Module:
    """Build a registered block.

    Args:
        name: its name in :data:`CONTEXT_BLOCK_REGISTRY`.
        channels: C of the feature maps (B, C, *spatial) that it will get.
        keywords: the keywords of the block.

    Returns:
        The block, a module from (B, C, *spatial) to the same shape.

    Raises:
        UserError: the name or a keyword is unknown, or the block rejects a value.

    Example:
        >>> from ccsa.blocks import build_block
        >>> build_block("CrissCross", 64, recurrence=1).recurrence
        1
        >>> build_block("CrissCross", 64, recurence=1)
        Traceback (most recent call last):
            ...
        ccsa.errors.UserError: CrissCross has no keyword 'recurence'; did you mean recurrence? \
Available: recurrence, reduction, dims, checkpoint
    """
    cls = CONTEXT_BLOCK_REGISTRY.get(name)
    known = list(inspect.signature(cls).parameters)[1:]
    for key in keywords:
        if key not in known:
            raise UserError(f"{name} has no keyword '{key}'{suggestion(key, known)}")
    try:
        return cls(channels, **keywords)
    except TypeError as error:
        raise UserError(f"{name} rejects {keywords}: {error}") from error
