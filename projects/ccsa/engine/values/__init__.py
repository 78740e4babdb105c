"""The valid values of the keys of Detectron2 and ccsa.

Every tool checks them when it reads a configuration, so that a value that cannot work is rejected
in one sentence before anything is computed. Upper limits are far above what any published
configuration uses; they keep a typing error from being built or allocated for hours. What depends
on several keys is in :mod:`ccsa.engine.values.relations`.

A key without a rule must have the type of its default. This holds for keys that the user's code
adds, and for those whose values have a form of their own, which the part that reads them checks:
context blocks and arguments of timm.
"""

import math
from typing import Any

from ccsa.engine.values import model, training
from ccsa.engine.values.rules import Rule, flag, number, text

RULES: dict[str, Rule] = {**model.RULES, **training.RULES}
"""The rule for the value of each key."""

_TYPES: dict[type, Rule] = {
    bool: flag(),
    int: Rule("an integer", lambda v: isinstance(v, int) and not isinstance(v, bool)),
    float: number(-math.inf),
    str: text(),
    list: Rule("a list", lambda v: isinstance(v, list | tuple)),
    tuple: Rule("a list", lambda v: isinstance(v, list | tuple)),
    type(None): Rule("a value", lambda v: True),
}


def problem(key: str, value: Any, default: Any) -> str:
    """Return what is wrong with the value of a key, as the end of a sentence.

    Args:
        key: the dotted key.
        value: its value.
        default: the value that it replaces, whose type counts for a key without a rule.

    Returns:
        The text after the key, e.g. "must be True or False, not 3"; empty if the value is valid.

    Example:
        >>> problem("SOLVER.MAX_ITER", -5, 40000)
        'must be an integer from 1 to 1000000000, not -5'
    """
    rule = RULES.get(key) or _TYPES.get(type(default))
    return rule.problem(value) if rule else ""
