"""What is known of a kind of problem: its severity, its meaning, and how to fix it."""

from typing import NamedTuple


class Kind(NamedTuple):
    """A kind of problem.

    Attributes:
        severity: ``error`` or ``warning``.
        meaning: what is wrong.
        fix: how to fix it.
        can_be_allowed: whether training works if ``DATASETS.ALLOW`` names the kind.
    """

    severity: str
    meaning: str
    fix: str
    can_be_allowed: bool = True


ERROR, WARNING = "error", "warning"
