"""Splits of panoptic datasets, and the labels for Panoptic FPN that are made from them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ccsa.data.formats.panoptic_json import Annotation, read_panoptic_json
from ccsa.data.formats.panoptic_png import read_segment_ids, relabel_segments
from ccsa.data.preparation.lookup_tables import identity_table
from ccsa.data.preparation.plans import Job, Plan, SourceMissing
from ccsa.errors import UserError


@dataclass(frozen=True)
class PanopticSplit:
    """Images, the panoptic JSON with its PNGs, and the semantic labels of the same images."""

    name: str  # as registered
    json_file: Path
    panoptic_root: Path
    image_root: Path
    label_root: Path
    image_of: Callable[[Annotation], Path]
    label_of: Callable[[Annotation], Path]
    published: int  # the number of images that the publication states
    group: str  # a family may have files of one group only
    labels: dict[int, int] | None = None  # by category id, if they are made of segments
    instances_json: Path | None = None
    made_by: Mapping[Path, str] = field(
        default_factory=dict
    )  # file or folder: command that makes it

    def first_missing(self) -> Path | None:
        """Return the first missing part of the panoptic annotations, without which the split does
        not exist; None if it exists."""
        return next((p for p in (self.json_file, self.panoptic_root) if not p.exists()), None)

    def missing_parts(self) -> list[str]:
        """Return a text for each other file or folder that the split needs and that is missing."""
        needed = (self.instances_json, self.image_root, self.label_root)
        missing = [path for path in needed if path and not path.exists()]
        return [
            f"{p} does not exist" + (f"; {self.made_by[p]} makes it" if p in self.made_by else "")
            for p in missing
        ]


def stuff_labels(things: Iterable[int], stuff: Iterable[int]) -> dict[int, int]:
    """Return the label of each category id for Panoptic FPN: 0 for all things, and from 1 on for
    stuff in the order of its category ids.

    Example:
        >>> stuff_labels(things=[1, 2], stuff=[92, 93])
        {1: 0, 2: 0, 92: 1, 93: 2}
    """
    return dict.fromkeys(things, 0) | {number: i + 1 for i, number in enumerate(sorted(stuff))}


def stuff_plan(splits: list[PanopticSplit]) -> Plan:
    """Return the plan of the labels for Panoptic FPN (0 all things, then stuff, 255 void) of each
    split whose JSON exists.

    Raises:
        SourceMissing: no JSON exists, or the PNGs of one are missing.
    """
    plan = Plan()
    for split in splits:
        if not split.json_file.is_file():
            plan.notes.append(
                f"{split.name} is not made: {split.json_file.absolute()} does not exist"
            )
            continue
        if not split.panoptic_root.is_dir():
            raise SourceMissing(split.panoptic_root)
        truth = read_panoptic_json(split.json_file)
        labels = split.labels or {}
        plan.jobs += [
            Job(
                split.panoptic_root / annotation.file_name,
                {split.label_of(annotation): identity_table(len(set(labels.values())))},
                partial(_read_labels, annotation=annotation, labels=labels),
            )
            for annotation in truth.annotations.values()
        ]
    if not plan.jobs:
        raise SourceMissing(splits[0].json_file)
    return plan


def nothing_to_prepare(splits: Callable[[Path], list[PanopticSplit]], root: Path) -> Plan:
    """Raise SourceMissing: nothing is made of this dataset, so what is missing must be obtained."""
    raise SourceMissing(next((p for split in splits(root) if (p := split.first_missing())), root))


def _read_labels(source: Path, annotation: Annotation, labels: Mapping[int, int]) -> np.ndarray:
    """Return the labels (H, W) of a panoptic PNG.

    Raises:
        UserError: the PNG cannot be read, or a segment has a category without label.
    """
    ids = read_segment_ids(source)
    try:
        return relabel_segments(ids, annotation.segments, labels)
    except KeyError as error:
        raise UserError(
            f"image {annotation.image_id} ({source}) has the unknown category {error}; "
            "replace its JSON with an intact copy"
        ) from error
