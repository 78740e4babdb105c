"""Dataset families: a dataset as it is published, with all of its splits.

A family is what one downloads under one name (``lip``). Each of its splits is registered with
Detectron2 under its own name (``lip_sem_seg_train``).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccsa.data.preparation.plans import Plan, SourceMissing
from ccsa.errors import UserError, suggestion


@dataclass(frozen=True)
class Family:
    """A published dataset: where it is published, how it is laid out, and what is made of it."""

    name: str  # the name that the tools use
    title: str  # the name in messages
    home: str  # where one downloads it
    layout: str  # the directory tree of the downloaded files, below the root
    splits: Callable[[Path], list[Any]]  # root: Split, or PanopticSplit of panoptic datasets
    plan: Callable[[Path], Plan]  # root: the plan that prepares it; raises SourceMissing
    write: Callable[[Path], object] | None = None  # writes a dataset that is not downloaded

    @property
    def prepare_command(self) -> str:
        return f"python tools/prepare_dataset.py {self.name}"

    def make_plan(self, root: Path) -> Plan:
        """Return the plan that prepares the dataset.

        Raises:
            UserError: the files that it starts from do not exist; see :meth:`not_downloaded`.
        """
        try:
            return self.plan(root)
        except SourceMissing as error:
            raise self.not_downloaded(root, error.path) from None

    def unavailable(self, root: Path, path: Path) -> UserError:
        """Return the error for a ``path`` of the dataset that does not exist: it says whether the
        dataset must be downloaded or prepared."""
        try:
            self.make_plan(root)
        except UserError as error:
            return error
        return UserError(
            f"{self.title} is not prepared: {path.absolute()} does not exist; run "
            f"{self.prepare_command}, and if that does not help, "
            f"python tools/check_dataset.py {self.name}"
        )

    def not_downloaded(self, root: Path, path: Path) -> UserError:
        """Return the error for a published ``path`` that does not exist: it names the expected
        layout and where to download the dataset."""
        return UserError(
            f"{self.title} was not found: {path.absolute()} does not exist. "
            f"Get it from {self.home} and lay it out like this under {root.absolute()}, "
            "or name the folder that contains it (export DETECTRON2_DATASETS=FOLDER):\n"
            f"{self.layout}"
        )


def find_family(name: str, families: Mapping[str, Family]) -> Family:
    """Return the family called ``name``.

    Raises:
        UserError: there is no such family; the message lists similar names and all valid ones.
    """
    if name in families:
        return families[name]
    owners = [f.name for f in families.values() for s in f.splits(Path()) if s.name == name]
    hint = suggestion((owners or [name])[0], list(families), limit=2, cutoff=0.4)
    raise UserError(f"there is no dataset called '{name}'{hint}")
