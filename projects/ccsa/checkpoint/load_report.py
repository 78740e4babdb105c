"""What a file of weights gave a model: a few lines for the log, and whether it is enough."""

import logging
from collections.abc import Iterator
from logging import INFO, WARNING
from typing import NamedTuple

from ccsa.insertion import CHILD

COUNTER = "num_batches_tracked"  # of a norm; torch fills it in where a file has none

Shape = tuple[int, ...]


class LoadReport(NamedTuple):
    """Tensors by name, counters of norms aside.

    Args:
        loaded: how many of the model's were loaded.
        missing: of the model, not in the file; they are as they were.
        unexpected: in the file, not in the model.
        misfits: of another shape, not loaded: key, shape in the file, shape in the model.
    """

    loaded: int
    missing: list[str]
    unexpected: list[str]
    misfits: list[tuple[str, Shape, Shape]]

    @property
    def lines(self) -> list[str]:
        """The report: what was loaded, and one line for each kind of what was not."""
        return [line for _, line in self._lines()]

    def log(self, logger: logging.Logger) -> None:
        """Write the lines; what is left as initialised is a warning."""
        for level, line in self._lines():
            logger.log(level, "%s", line)

    def _lines(self) -> Iterator[tuple[int, str]]:
        total = self.loaded + len(self.missing) + len(self.misfits)
        yield INFO, f"weights: {self.loaded} of the model's {total} tensors loaded"
        for level, label, keys, names in (
            (
                WARNING,
                "missing in the file, left as initialised",
                self.missing,
                grouped(self.missing),
            ),
            (WARNING, "of another shape, not loaded", self.misfits, self._misfits()),
            (
                # A trained block that is left out changes what the rest computes.
                WARNING if any(f".{CHILD}." in key for key in self.unexpected) else INFO,
                "in the file, not in the model",
                self.unexpected,
                grouped(self.unexpected),
            ),
        ):
            if keys:
                yield level, f"weights {label}: {len(keys)}: {', '.join(names)}"

    def check_complete(self) -> None:
        """For a model that is used as it is: a tensor that stays random makes its output noise.

        Raises:
            ValueError: a tensor of the model was not loaded.
        """
        self._check_any()
        lacks = [
            f"{len(keys)} {label} ({', '.join(names)})"
            for label, keys, names in (
                ("missing", self.missing, grouped(self.missing)),
                ("of another shape", self.misfits, self._misfits()),
            )
            if keys
        ]
        if lacks:
            raise ValueError(
                f"it does not hold the whole of this model: {' and '.join(lacks)}; "
                "take the configuration that it was trained with"
            )

    def check_sufficient(self) -> None:
        """For a model that is trained from here: new parts may start from random weights, but most
        of the file's tensors must have been loaded.

        Raises:
            ValueError: more of the file's tensors were left out than were loaded.
        """
        self._check_any()
        left = [*self.unexpected, *(key for key, _, _ in self.misfits)]
        if len(left) > self.loaded:
            raise ValueError(
                f"it is of another model: {len(left)} of its {self.loaded + len(left)} tensors do "
                f"not fit this one: {', '.join(grouped(left, most=3))}"
            )

    def _check_any(self) -> None:
        if not self.loaded and (self.missing or self.misfits):
            left = self.unexpected or [key for key, _, _ in self.misfits]
            raise ValueError(
                "it is of another model: none of it fits this one: "
                f"{', '.join(grouped(left, most=3))}"
            )

    def _misfits(self) -> list[str]:
        """The modules, each with the first shape that differs."""
        first: dict[str, str] = {}
        for key, there, here in self.misfits:
            first.setdefault(_module(key)[0], f"{key} {there} for {here}")
        return _cut(list(first.values()))


def grouped(keys: list[str], most: int = 8) -> list[str]:
    """Keys by their module, ``module.{weight,bias}``, those of a context block as one; a long list
    is cut."""
    modules: dict[str, list[str]] = {}
    for key in keys:
        module, leaf = _module(key)
        leaves = modules.setdefault(module, [])
        if leaf not in leaves:
            leaves.append(leaf)
    names = [
        f"{module}.{{{','.join(leaves)}}}"
        if len(leaves) > 1
        else f"{module}.{leaves[0]}".lstrip(".")
        for module, leaves in modules.items()
    ]
    return _cut(names, most)


def _module(key: str) -> tuple[str, str]:
    place, inside, _ = key.partition(f".{CHILD}.")
    module, _, leaf = (f"{place}.{CHILD}", "", "*") if inside else key.rpartition(".")
    return module, leaf


def _cut(names: list[str], most: int = 8) -> list[str]:
    return names[:most] + (["..."] if len(names) > most else [])
