"""Mutated inputs of the tools, and what must happen: success, or one sentence and exit status 2.

Every attempt is a function of its kind and a number, so that a fault can be repeated::

    attempt = KINDS["weights"](world, Path("scratch"), random.Random("weights 7"))
    verdict = judge(attempt, world)
"""

from support.fuzz.runner import FAULTS, Attempt, Verdict, attempt_of, judge
from support.fuzz.world import World, make_world

__all__ = ["FAULTS", "Attempt", "Verdict", "World", "attempt_of", "judge", "make_world"]
