"""Intervals of the rows of a comparison, and their differences to the baseline."""

from collections.abc import Sequence

from ccsa.analysis.comparison import Comparison
from ccsa.analysis.evidence import difference, interval_of_runs
from ccsa.analysis.run_metrics import image_metric
from ccsa.analysis.runs import Group, Metric
from ccsa.errors import UserError, one_of

INTERVAL_NOTE = (
    "95 % interval: over the choice of the validation images (bootstrap) and, with several seeds, "
    "over the seed of training; a difference is paired by images, and by seeds if both rows have "
    "the same ones"
)


def with_evidence(
    comparison: Comparison, groups: Sequence[Group], metric: Metric, baseline: str | None = None
) -> Comparison:
    """Return the comparison with the interval of each row and its difference to the baseline.

    What is not known stays None, and a note says why.

    Args:
        comparison: see :func:`ccsa.analysis.comparison.compare`.
        groups, metric: what it compares.
        baseline: the name of a row; the first one by default.

    Raises:
        UserError: there is no such row.
    """
    names = [group.name for group in groups]
    first = names[0] if baseline is None else baseline
    one_of(names, first, "--baseline")
    notes, found = list(comparison.notes), []
    for group in groups:
        try:
            found.append([image_metric(run, metric.task, metric.key) for run in group.runs])
        except UserError as error:
            found.append([])
            notes.append(f"{group.name} has no interval: {error}")
    reference = found[names.index(first)]
    seeds = [[run.cfg.SEED for run in group.runs] for group in groups]
    rows = []
    for row, metrics, own in zip(comparison.rows, found, seeds, strict=True):
        try:
            if metrics:
                row = row._replace(interval=interval_of_runs(metrics))
            if metrics and reference and row.name != first:
                pair = seeds[names.index(first)], own
                row = row._replace(difference=difference(reference, metrics, pair))
        except UserError as error:
            notes.append(f"{row.name} is not compared: {error}")
        rows.append(row)
    if any(row.interval for row in rows):
        notes.append(INTERVAL_NOTE)
    return comparison._replace(rows=rows, notes=notes, baseline=first)
