"""Thousands of mutated inputs of every tool. Writes the table of docs/RELIABILITY.md.

CCSA_MUTATIONS=COUNT sets the number of attempts of each kind, and CCSA_FIRST_MUTATION=NUMBER the
first one, so that other inputs are tried.
"""

import os
from collections import Counter

from soak.reliability_table import table, write_section
from support.fuzz import FAULTS, attempt_of, judge, make_world
from support.fuzz.kinds import KINDS
from support.fuzz.runner import REJECTED, WORKED

COUNT = int(os.environ.get("CCSA_MUTATIONS", 150))
FIRST = int(os.environ.get("CCSA_FIRST_MUTATION", 1000))


def test_thousands_of_mutated_inputs(root, tmp_path):
    world = make_world(root, tmp_path / "world")
    rows, faults = [], []
    for kind in KINDS:
        outcomes: Counter = Counter()
        for number in range(FIRST, FIRST + COUNT):
            verdict = judge(attempt_of(KINDS, kind, number, world, tmp_path / "scratch"))
            outcomes[verdict.outcome] += 1
            if verdict.outcome in FAULTS:
                faults.append(f"{kind} {number}: {verdict}")
        row = {"mutated input": kind, "attempts": COUNT}
        rows.append(row | {name: outcomes[name] for name in (WORKED, REJECTED, *FAULTS)})
    rows.append({"mutated input": "all"} | {k: sum(r[k] for r in rows) for k in list(rows[0])[1:]})
    print("\n\n".join(faults))
    write_section("mutations", table(rows))
    assert not faults, f"{len(faults)} faults; the first one: {faults[0]}"
