"""The load report: which tensors a weight file gave a model, and whether they are enough."""

import logging
from collections.abc import Iterator
from logging import INFO, WARNING
from typing import NamedTuple

from ccsa.insertion import CHILD

# The counter of a batch norm. Files may lack it (torch fills it in), so reports leave it out.
BATCH_COUNTER = "num_batches_tracked"

Shape = tuple[int, ...]


class LoadReport(NamedTuple):
    """The tensors of a model and of a weight file, by name, without batch counters of norms.

    Attributes:
        loaded: how many of the model's tensors were loaded.
        missing: tensors of the model that are not in the file; they keep their initial values.
        unexpected: tensors of the file that are not in the model.
        mismatched: tensors of another shape, which were not loaded: (key, shape in the file, shape
            in the model).
    """

    loaded: int
    missing: list[str]
    unexpected: list[str]
    mismatched: list[tuple[str, Shape, Shape]]

    @property
    def lines(self) -> list[str]:
        """Return the report as text: the number of loaded tensors, then one entry per problem."""
        return [text for _, text in self._messages()]

    def log(self, logger: logging.Logger) -> None:
        """Log the report; tensors that keep their initial values are warnings."""
        for level, text in self._messages():
            logger.log(level, "%s", text)

    def _messages(self) -> Iterator[tuple[int, str]]:
        total = self.loaded + len(self.missing) + len(self.mismatched)
        yield INFO, f"weights: {self.loaded} of the model's {total} tensors loaded"
        # Leaving out a trained block changes the output of the remaining model.
        has_block = any(f".{CHILD}." in key for key in self.unexpected)
        for level, label, count, names in (
            (
                WARNING,
                "missing in the file, left as initialized",
                len(self.missing),
                grouped(self.missing),
            ),
            (
                WARNING,
                "of another shape, not loaded",
                len(self.mismatched),
                self._mismatched_modules(),
            ),
            (
                WARNING if has_block else INFO,
                "in the file, not in the model",
                len(self.unexpected),
                grouped(self.unexpected),
            ),
        ):
            if count:
                yield level, f"weights {label}: {count}: {', '.join(names)}"

    def problem(self, *, training: bool) -> str:
        """Return why the loaded tensors are not enough, or an empty string if they are.

        Args:
            training: whether the model will be trained. New parts may then start from random
                weights, but most of the file's tensors must have been loaded. A model that is not
                trained needs all of its tensors: a single random one turns its output into noise.
        """
        if not self.loaded and (self.missing or self.mismatched):
            keys = self.unexpected or [key for key, _, _ in self.mismatched]
            return (
                "it belongs to another model, because none of its tensors fits this one: "
                f"{', '.join(grouped(keys, most=3))}"
            )
        return self._training_problem() if training else self._inference_problem()

    def _training_problem(self) -> str:
        unused = [*self.unexpected, *(key for key, _, _ in self.mismatched)]
        if len(unused) <= self.loaded:
            return ""
        return (
            f"it belongs to another model: {len(unused)} of its {self.loaded + len(unused)} "
            f"tensors do not fit this one: {', '.join(grouped(unused, most=3))}"
        )

    def _inference_problem(self) -> str:
        lacking = [
            f"{count} {label} ({', '.join(names)})"
            for label, count, names in (
                ("missing", len(self.missing), grouped(self.missing)),
                ("of another shape", len(self.mismatched), self._mismatched_modules()),
            )
            if count
        ]
        if not lacking:
            return ""
        return (
            f"it does not contain the whole model: {' and '.join(lacking)}; "
            "use the configuration that it was trained with"
        )

    def _mismatched_modules(self) -> list[str]:
        """Return the modules of mismatched tensors, each with the first shape that differs."""
        first: dict[str, str] = {}
        for key, file_shape, model_shape in self.mismatched:
            first.setdefault(_split_key(key)[0], f"{key} {file_shape} for {model_shape}")
        return _shortened(list(first.values()))


def grouped(keys: list[str], most: int = 8) -> list[str]:
    """Return keys grouped by module, at most ``most`` groups. A context block is one group.

    Example:
        >>> grouped(["fc.weight", "fc.bias", "res4.5.context.gamma", "scale"])
        ['fc.{weight,bias}', 'res4.5.context.*', 'scale']
    """
    modules: dict[str, list[str]] = {}
    for key in keys:
        module, leaf = _split_key(key)
        leaves = modules.setdefault(module, [])
        if leaf not in leaves:
            leaves.append(leaf)
    names = [
        f"{module}.{{{','.join(leaves)}}}"
        if len(leaves) > 1
        else f"{module}.{leaves[0]}".lstrip(".")
        for module, leaves in modules.items()
    ]
    return _shortened(names, most)


def _split_key(key: str) -> tuple[str, str]:
    """Return the module and the last part of a key; ``*`` for the keys of a context block."""
    path, in_block, _ = key.partition(f".{CHILD}.")
    module, _, leaf = (f"{path}.{CHILD}", "", "*") if in_block else key.rpartition(".")
    return module, leaf


def _shortened(names: list[str], most: int = 8) -> list[str]:
    return names[:most] + (["..."] if len(names) > most else [])
