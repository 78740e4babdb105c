"""Rules for the values of configuration keys; :mod:`ccsa.engine.values` has one for each key.

A rule knows which values are valid and completes the sentence "KEY must be ...".
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ccsa.errors import shown


@dataclass(frozen=True)
class Rule:
    """What a value must be.

    Attributes:
        words: completes the sentence "KEY must be ...".
        accepts: whether a value is valid.

    Example:
        >>> number(0, 1).problem(1.5)
        'must be a number from 0 to 1, not 1.5'
        >>> number(0, 1).problem(0.5)
        ''
    """

    words: str
    accepts: Callable[[Any], bool]

    def problem(self, value: Any) -> str:
        """Return what is wrong with a value, as the end of a sentence; empty if it is valid."""
        if self.accepts(value):
            return ""
        return f"must be {self.words}, not {shown(value)}"


def integer(low: int, high: int) -> Rule:
    """Return the rule for integers from ``low`` to ``high``."""

    def accepts(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high

    return Rule(f"an integer from {low} to {high}", accepts)


def number(low: float, high: float = math.inf, *, above: bool = False, below: bool = False) -> Rule:
    """Return the rule for finite numbers from ``low`` to ``high``.

    Args:
        low, high: the limits, which may be infinite.
        above: whether ``low`` itself is invalid.
        below: whether ``high`` itself is invalid.
    """

    def accepts(value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        try:
            value = float(value)
        except OverflowError:
            return False
        return (
            math.isfinite(value)
            and (low < value if above else low <= value)
            and (value < high if below else value <= high)
        )

    if math.isinf(high):
        limits = f"above {low:g}" if above else f"of at least {low:g}"
        words = "a finite number" if math.isinf(low) else f"a finite number {limits}"
    elif above:
        words = f"a number above {low:g} and {'below' if below else 'at most'} {high}"
    else:
        words = f"a number from {low:g} to {'below ' if below else ''}{high}"
    return Rule(words, accepts)


def flag() -> Rule:
    """Return the rule for bools."""
    return Rule("True or False", lambda value: isinstance(value, bool))


def text() -> Rule:
    """Return the rule for words, names and paths: any text without control characters."""

    def accepts(value: Any) -> bool:
        return isinstance(value, str) and not any(ord(c) < 32 or ord(c) == 127 for c in value)

    return Rule("text", accepts)


def word(*choices: str) -> Rule:
    """Return the rule for one of several words; an empty word is shown as ''."""
    listing = ", ".join(choice or repr(choice) for choice in choices)
    words = f"one of {listing}" if len(choices) > 1 else listing
    return Rule(words, lambda value: isinstance(value, str) and value in choices)


def one_of(*choices: int) -> Rule:
    """Return the rule for one of several integers."""
    words = f"one of {', '.join(map(str, choices))}" if len(choices) > 1 else str(choices[0])
    return Rule(
        words,
        lambda v: isinstance(v, int) and not isinstance(v, bool) and v in choices,
    )


def listed(
    rule: Rule, least: int = 0, most: int | None = None, *, increasing: bool = False
) -> Rule:
    """Return the rule for a list or tuple of values that follow a rule.

    Args:
        rule: the rule for each value.
        least, most: the smallest and the largest number of values.
        increasing: whether each value must be larger than the one before it.
    """

    def accepts(value: Any) -> bool:
        return (
            isinstance(value, list | tuple)
            and least <= len(value) <= (len(value) if most is None else most)
            and all(map(rule.accepts, value))
            and not (increasing and any(a >= b for a, b in itertools.pairwise(value)))
        )

    if least == most:
        count = f"a list of {least} values"
    elif least:
        count = f"a list of at least {least} value{'s' if least > 1 else ''}"
    else:
        count = "a list of values" if most is None else f"a list of at most {most} values"
    order = "each larger than the one before it, and " if increasing else ""
    return Rule(f"{count}, {order}each {rule.words}", accepts)


def pair_in_order(rule: Rule, *, equal: bool = True) -> Rule:
    """Return the rule for ``[low, high]``.

    Args:
        rule: the rule for both values.
        equal: whether they may be equal.
    """
    pair = listed(rule, 2, 2, increasing=not equal)
    words = f"[low, high] with low {'at most' if equal else 'below'} high, each {rule.words}"
    return Rule(words, lambda value: pair.accepts(value) and value[0] <= value[1])


def either(*rules: Rule) -> Rule:
    """Return the rule for a value that follows one of several rules."""
    words = ", or ".join(rule.words for rule in rules)
    return Rule(words, lambda value: any(rule.accepts(value) for rule in rules))


def constant(value: Any) -> Rule:
    """Return the rule for one value, e.g. None or an empty list."""
    return Rule(repr(value), lambda other: type(other) is type(value) and other == value)


def section(name: str, **rules: Rule) -> dict[str, Rule]:
    """Return the rules of the keys of a section, by dotted key."""
    return {f"{name}.{key}": rule for key, rule in rules.items()}
