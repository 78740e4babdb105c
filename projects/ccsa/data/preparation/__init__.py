"""Preparation: makes the label files that Detectron2 reads from the published files of a dataset.

A dataset describes what it needs as a :class:`Plan`; :func:`execute` makes the files.
"""

from ccsa.data.preparation.lookup_tables import identity_table, lookup_table, relabel
from ccsa.data.preparation.plans import Job, Outcome, Plan, SourceMissing, execute

__all__ = [
    "Job",
    "Outcome",
    "Plan",
    "SourceMissing",
    "execute",
    "identity_table",
    "lookup_table",
    "relabel",
]
