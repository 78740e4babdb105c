"""Preparation plans: which label files are made from which published files.

A plan never changes a published file. It can be interrupted at any time: each file is complete or
absent, and executing the plan again makes only what is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ccsa.data.formats.id_lists import read_id_list, write_id_list
from ccsa.data.formats.label_images import is_complete_png, read_label_image, write_label_image
from ccsa.data.preparation.lookup_tables import relabel
from ccsa.errors import UserError
from ccsa.utils.files import remove_stale_partials, write_text
from ccsa.utils.threads import map_in_threads


class SourceMissing(Exception):
    """The published files that a plan starts from do not exist at ``path``."""

    def __init__(self, path: Path):
        super().__init__(f"{path} does not exist")
        self.path = path


@dataclass(frozen=True)
class Job:
    """One published file and the label files that are made from it, each by a lookup table."""

    source: Path
    targets: dict[Path, np.ndarray]  # file: lookup table, see lookup_tables.py
    read: Callable[[Path], np.ndarray] = read_label_image  # returns (H, W) integers


@dataclass
class Plan:
    """Everything that the preparation of a dataset makes.

    ``lists`` and ``texts`` are written last, so that their existence implies complete labels.
    """

    jobs: list[Job] = field(default_factory=list)
    lists: dict[Path, list[str]] = field(default_factory=dict)  # list file: ids
    texts: dict[Path, Callable[[], str]] = field(default_factory=dict)  # file: returns its content
    links: dict[Path, Path] = field(default_factory=dict)  # symbolic link: its target folder
    notes: list[str] = field(default_factory=list)  # what could not be made, and why


@dataclass
class Outcome:
    """The number of files that were written, and of those that existed already."""

    written: int = 0
    kept: int = 0

    def count(self, written: bool) -> None:
        """Count one file."""
        self.written += written
        self.kept += not written


def execute(plan: Plan, description: str) -> Outcome:
    """Make the files of a plan that do not exist yet; complete files are kept unchanged.

    Args:
        plan: is extended by a note for each list that was kept but names other images.
        description: of the files, for the progress bar and errors.

    Raises:
        UserError: a published file cannot be read or has an invalid value, or a file cannot be
            written.
    """
    outcome = Outcome()
    try:
        for link, folder in plan.links.items():
            outcome.count(_link(link, folder))
        targets = [target for job in plan.jobs for target in job.targets]
        for parent in {target.parent for target in [*targets, *plan.texts]}:
            remove_stale_partials(parent)
        for written, kept in map_in_threads(_convert, plan.jobs, description):
            outcome.written += written
            outcome.kept += kept
        for path, ids in plan.lists.items():
            exists = path.is_file()
            if not exists:
                write_id_list(path, ids)
            elif set(read_id_list(path)) != set(ids):
                plan.notes.append(
                    f"{path} existed and is kept, but it names other images than the labels do; "
                    "to make it again, delete it and run the same command again"
                )
            outcome.count(not exists)
        for path, content in plan.texts.items():
            exists = path.is_file()
            if not exists:
                write_text(path, content())
            outcome.count(not exists)
    except OSError as error:
        raise UserError(
            f"{description} cannot be written ({error}); free disk space or allow writing, then "
            "run the same command again: it continues where it stopped"
        ) from error
    return outcome


def _convert(job: Job) -> tuple[int, int]:
    """Make the missing targets of a job; return how many were written and how many were kept."""
    missing = {path: table for path, table in job.targets.items() if not is_complete_png(path)}
    if missing:
        values = job.read(job.source)
        for path, table in missing.items():
            write_label_image(path, relabel(values, table, job.source))
    return len(missing), len(job.targets) - len(missing)


def _link(link: Path, folder: Path) -> bool:
    """Make a symbolic link; return False if ``link`` exists already."""
    if link.exists():
        return False
    link.unlink(missing_ok=True)  # a link whose target no longer exists
    link.symlink_to(folder.relative_to(link.parent), target_is_directory=True)
    return True
