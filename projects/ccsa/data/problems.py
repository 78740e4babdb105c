"""What is wrong with a dataset: the list in which readers and checks report problems.

Readers never stop at the first problem. They add a :class:`Problem` and go on, so that one run of
``tools/check_dataset.py`` shows everything. A problem of severity ``error`` stops training unless
``DATASETS.ALLOW`` names its kind; that helps only where training can do without the damaged part
(``Kind.can_be_allowed``). A ``warning`` is printed.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from ccsa.data.problem_kinds import ERROR, KINDS, WARNING, Kind
from ccsa.errors import UserError, suggestion

__all__ = [
    "ERROR",
    "KINDS",
    "WARNING",
    "Kind",
    "Problem",
    "Problems",
    "check_allowed",
    "kinds_table",
]

STORED = 100  # problems of one kind that are kept; the rest is only counted


class Problem(NamedTuple):
    """One problem of a dataset.

    Attributes:
        kind: a key of :data:`KINDS`.
        severity: ``error`` or ``warning``.
        file: the file it was found in.
        message: one sentence that names the record and the value.
    """

    kind: str
    severity: str
    file: str
    message: str


class Problems:
    """A growing list of problems. Of each kind, the first :data:`STORED` are kept and all are
    counted.

    Example:
        >>> problems = Problems()
        >>> problems.add("missing_image", "train.json", "image 7: no file train/7.jpg")
        >>> [problem.severity for problem in problems]
        ['error']
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._stored: dict[str, list[Problem]] = {}

    def add(self, kind: str, file: str | Path, message: str) -> None:
        """Add a problem; ``kind`` must be a key of :data:`KINDS`."""
        self.counts[kind] += 1
        stored = self._stored.setdefault(kind, [])
        if len(stored) < STORED:
            stored.append(Problem(kind, KINDS[kind].severity, str(file), message))

    def extend(self, other: "Problems", without: Collection[str] = ()) -> None:
        """Add all problems of another list, except those of the kinds in ``without``."""
        for kind, problems in other._stored.items():
            if kind in without:
                continue
            self.counts[kind] += other.counts[kind]
            stored = self._stored.setdefault(kind, [])
            stored += problems[: STORED - len(stored)]

    def __iter__(self) -> Iterator[Problem]:
        """Iterate over the stored problems, errors first."""
        for kind in self.kinds():
            yield from self._stored[kind]

    def __len__(self) -> int:
        return sum(self.counts.values())

    def files(self, kind: str, limit: int = 3) -> list[str]:
        """Return the first files with a problem of a kind, each once."""
        return list(dict.fromkeys(p.file for p in self._stored.get(kind, ())))[:limit]

    def first(self, kind: str, limit: int = 3) -> list[Problem]:
        """Return the first problems of a kind: one of each file, and of a folder each message."""
        found: dict[tuple[str, str], Problem] = {}
        for problem in self._stored.get(kind, ()):
            path = Path(problem.file)
            one_file = path.suffix and not path.is_dir()
            found.setdefault((problem.file, "" if one_file else problem.message), problem)
        return list(found.values())[:limit]

    def kinds(self, severity: str | None = None) -> list[str]:
        """Return the kinds that occur, errors first, in the order of :data:`KINDS`."""
        found = [k for k in KINDS if self.counts[k]]
        found = [k for k in found if severity in (None, KINDS[k].severity)]
        return sorted(found, key=lambda k: KINDS[k].severity != ERROR)

    def stopping(self, allowed: Collection[str] = ()) -> list[Problem]:
        """Return the stored problems that stop training: errors whose kind is not allowed."""
        return [p for p in self if p.severity == ERROR and p.kind not in allowed]

    def check(self, allowed: Collection[str] = ()) -> None:
        """Raise the first error whose kind is not allowed, with the number of others.

        Raises:
            UserError: one sentence with file, record, value and fix.
        """
        check_allowed(allowed)
        stopping = self.stopping(allowed)
        if not stopping:
            return
        first = stopping[0]
        count = sum(self.counts[k] for k in self.kinds(ERROR) if k not in allowed)
        more = ""
        if count > 1:
            plural = "s" if count > 2 else ""
            more = f" ({count - 1} more error{plural}: tools/check_dataset.py lists all)"
        kind = KINDS[first.kind]
        kinds = [k for k in self.kinds(ERROR) if k not in allowed]
        fatal = [k for k in kinds if not KINDS[k].can_be_allowed]
        allow = f'DATASETS.ALLOW "{[*allowed, first.kind]}"'
        if fatal and kind.can_be_allowed:
            listed = ", ".join(fatal)
            nevertheless = f"{allow} lets it pass, but training needs this to be fixed: {listed}"
        elif fatal:
            nevertheless = f"Training needs this to be fixed: {', '.join(fatal)}"
        else:
            nevertheless = f'To train nevertheless: DATASETS.ALLOW "{[*allowed, *kinds]}"'
        raise UserError(f"{first.file}: {first.message}; {kind.fix}{more}. {nevertheless}")


def check_allowed(allowed: Collection[str]) -> None:
    """Reject a name in ``DATASETS.ALLOW`` that is not a kind of problem.

    Raises:
        UserError: with near misses.
    """
    for kind in allowed:
        if kind not in KINDS:
            raise UserError(
                f"DATASETS.ALLOW: there is no kind of problem '{kind}'"
                f"{suggestion(kind, list(KINDS), listed=0)}"
            )


def kinds_table() -> str:
    """Return the table of all kinds of problems in Markdown, for the documentation."""
    rows = [
        "| kind | severity | meaning | how to fix it | can be allowed |",
        "|---|---|---|---|---|",
    ]
    for name, kind in KINDS.items():
        can = ("yes" if kind.can_be_allowed else "no") if kind.severity == ERROR else ""
        rows.append(f"| `{name}` | {kind.severity} | {kind.meaning} | {kind.fix} | {can} |")
    return "\n".join(rows)
