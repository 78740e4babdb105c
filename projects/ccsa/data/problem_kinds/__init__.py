"""The kinds of problems that a dataset may have: severity, meaning, and how to fix each."""

from ccsa.data.problem_kinds.annotations import ANNOTATIONS
from ccsa.data.problem_kinds.kind import ERROR, WARNING, Kind
from ccsa.data.problem_kinds.pixels import PIXELS
from ccsa.data.problem_kinds.structure import STRUCTURE

__all__ = ["ERROR", "KINDS", "WARNING", "Kind"]

# In the order in which problems are listed; the first error is the one that stops training.
KINDS: dict[str, Kind] = {**STRUCTURE, **ANNOTATIONS, **PIXELS}
