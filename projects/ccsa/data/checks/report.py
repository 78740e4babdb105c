"""Reports of what is wrong with a dataset, and the image size that the checks compare."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

MISSING, UNREADABLE, SIZES, LABELS = "missing", "unreadable", "sizes differ", "bad labels"
KINDS = (MISSING, UNREADABLE, SIZES, LABELS)
HEADERS = ("dataset", "images", "labels", "published")  # of a table of reports, before the kinds

Problem = tuple[str, str]  # its kind, and a text that names the file


class CheckedSplit(Protocol):
    """What a report needs of a split."""

    @property
    def name(self) -> str: ...

    @property
    def published(self) -> int: ...


@dataclass
class Report:
    """The result of checking one split."""

    split: CheckedSplit
    images: int = 0
    labels: int = 0
    problems: list[Problem] = field(default_factory=list)
    kinds: tuple[str, ...] = KINDS

    def row(self) -> list[str | int]:
        """Return the row of a table: the columns of ``HEADERS``, then the count of each kind."""
        counts = Counter(kind for kind, _ in self.problems)
        values: list[str | int] = [self.split.name, self.images, self.labels, self.split.published]
        return [*values, *(counts[kind] for kind in self.kinds)]

    def note(self) -> str | None:
        """Return how the number of images differs from the published one, which is not an error;
        None if they are equal."""
        difference = self.images - self.split.published
        if not difference:
            return None
        more = "more" if difference > 0 else "fewer"
        return (
            f"{self.split.name} has {self.images:,} images, {abs(difference):,} {more} than the "
            f"published {self.split.published:,}"
        )


def examples(reports: Iterable[Report], most: int = 5) -> list[str]:
    """Return one line of text for each of up to ``most`` problems of each kind in each split, and
    the number of the others."""
    lines = []
    for report in reports:
        for kind in report.kinds:
            texts = [text for other, text in report.problems if other == kind]
            lines += [f"{report.split.name}: {kind}: {text}" for text in texts[:most]]
            if len(texts) > most:
                lines.append(f"{report.split.name}: {kind}: and {len(texts) - most} more")
    return lines
