"""Making label files from those of a publication, restartably, without touching the source."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ccsa.data.formats.label_images import (
    IGNORE,
    in_threads,
    is_complete_png,
    read_ids,
    read_indices,
    remove_stale_parts,
    write_ids,
    write_label,
)
from ccsa.errors import UserError
from ccsa.utils.files import write_text

REFUSED = -1  # in a lookup table: a value that the source does not have by its definition


class SourceMissing(Exception):
    """What a plan would start from is not at ``place``."""

    def __init__(self, place: Path):
        super().__init__(f"no {place}")
        self.place = place


@dataclass(frozen=True)
class Job:
    """One source file and the label files made of it, each by a lookup table."""

    source: Path
    targets: dict[Path, np.ndarray]  # file: (values,) table of labels 0..255 or REFUSED
    read: Callable[[Path], np.ndarray] = read_indices  # gives (H, W) integers


@dataclass
class Plan:
    """All that preparing a dataset makes. ``lists`` and ``texts`` come last: they stand for whole
    labels."""

    jobs: list[Job] = field(default_factory=list)
    lists: dict[Path, list[str]] = field(default_factory=dict)  # list file: ids
    texts: dict[Path, Callable[[], str]] = field(default_factory=dict)  # file: gives its content
    links: dict[Path, Path] = field(default_factory=dict)  # symbolic link: folder it names
    notes: list[str] = field(default_factory=list)  # what could not be made, and why


@dataclass
class Outcome:
    """How many files were written, and how many were there already."""

    written: int = 0
    kept: int = 0


def carry_out(plan: Plan, description: str) -> Outcome:
    """Make what is not there yet; what is there and complete is kept as it is.

    Raises:
        UserError: a source that cannot be read or holds a value it must not hold; a target that
        cannot be written.
    """
    outcome = Outcome()
    try:
        for link, folder in plan.links.items():
            _count(outcome, _link(link, folder))
        targets = [target for job in plan.jobs for target in job.targets]
        for parent in {target.parent for target in [*targets, *plan.texts]}:
            remove_stale_parts(parent)
        for written, kept in in_threads(_convert, plan.jobs, description):
            outcome.written += written
            outcome.kept += kept
        for path, ids in plan.lists.items():
            there = path.is_file()
            if not there:
                write_ids(path, ids)
            elif set(read_ids(path)) != set(ids):
                plan.notes.append(
                    f"{path} was there and is kept, but names other images than the labels do; "
                    "to have it made anew, delete it and run the same command again"
                )
            _count(outcome, not there)
        for path, content in plan.texts.items():
            there = path.is_file()
            if not there:
                write_text(path, content())
            _count(outcome, not there)
    except OSError as error:
        raise UserError(
            f"{description} cannot be written ({error}); make room there or allow writing, then "
            "run the same command again: it goes on where it stopped"
        ) from error
    return outcome


def table(mapping: dict[int, int], size: int = 256, other: int = REFUSED) -> np.ndarray:
    """A (size,) lookup table with the labels of ``mapping``, and ``other`` for all other values."""
    result = np.full(size, other, np.int16)
    for value, label in mapping.items():
        result[value] = label
    return result


def identity(classes: int) -> np.ndarray:
    """The table of labels that are right as they are: 0..classes-1 and 255."""
    return table({**{i: i for i in range(classes)}, IGNORE: IGNORE})


def relabel(values: np.ndarray, lookup: np.ndarray, source: Path) -> np.ndarray:
    """``values`` (H, W), integers, as uint8 labels.

    Raises:
        UserError: a value that the table refuses or does not reach; ``source`` is named.
    """
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= len(lookup):
        bad = low if low < 0 else high
    else:
        labels = lookup[values]
        if (labels != REFUSED).all():
            return labels.astype(np.uint8)
        bad = int(values[labels == REFUSED][0])
    raise UserError(
        f"{source} holds the label value {bad}, which this dataset does not have; "
        "put a good copy in its place"
    )


def _convert(job: Job) -> tuple[int, int]:
    wanted = {path: lookup for path, lookup in job.targets.items() if not is_complete_png(path)}
    if wanted:
        values = job.read(job.source)
        for path, lookup in wanted.items():
            write_label(path, relabel(values, lookup, job.source))
    return len(wanted), len(job.targets) - len(wanted)


def _link(link: Path, folder: Path) -> bool:
    if link.exists():
        return False
    link.unlink(missing_ok=True)  # a link to what is no longer there
    link.symlink_to(folder.relative_to(link.parent), target_is_directory=True)
    return True


def _count(outcome: Outcome, written: bool) -> None:
    outcome.written += written
    outcome.kept += not written
