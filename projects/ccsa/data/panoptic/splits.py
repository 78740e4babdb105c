"""What a panoptic dataset on disk is here, and the labels for Panoptic FPN that are made of it."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from ccsa.data.formats.panoptic_json import Annotation, read_panoptic_json
from ccsa.data.formats.panoptic_png import read_segment_ids, relabel_segments
from ccsa.data.preparation.plans import Job, Plan, SourceMissing, identity
from ccsa.errors import UserError


@dataclass(frozen=True)
class PanopticSplit:
    """Images, the panoptic JSON with its PNGs, and the semantic labels that go with them."""

    name: str  # as registered
    json_file: Path
    panoptic_root: Path
    image_root: Path
    label_root: Path
    image_of: Callable[[Annotation], Path]
    label_of: Callable[[Annotation], Path]
    published: int
    group: str
    labels: dict[int, int] | None = None  # category id: label, where labels are made of segments
    instances_json: Path | None = None
    made_by: Mapping[Path, str] = field(default_factory=dict)  # a place that is made: the command

    def absent(self) -> Path | None:
        """What of the panoptic annotations is not there; without them the split is not there."""
        return next((p for p in (self.json_file, self.panoptic_root) if not p.exists()), None)

    def incomplete(self) -> list[str]:
        """What else it needs and is not there, in words."""
        needed = (self.instances_json, self.image_root, self.label_root)
        lacking = [place for place in needed if place and not place.exists()]
        return [
            f"{p} is not there" + (f"; {self.made_by[p]} makes it" if p in self.made_by else "")
            for p in lacking
        ]


def stuff_labels(things: Iterable[int], stuff: Iterable[int]) -> dict[int, int]:
    """{category id: label} as Panoptic FPN wants them: 0 for all things, stuff from 1 on in the
    order of its category ids."""
    return dict.fromkeys(things, 0) | {number: i + 1 for i, number in enumerate(sorted(stuff))}


def stuff_plan(splits: list[PanopticSplit]) -> Plan:
    """The labels that Panoptic FPN is trained with, 0 all things, then stuff, 255 void, for each
    split whose JSON is there.

    Raises:
        SourceMissing: no JSON is there, or the PNGs of one are not.
    """
    plan = Plan()
    for split in splits:
        if not split.json_file.is_file():
            plan.notes.append(f"{split.name} is not made: no {split.json_file.absolute()}")
            continue
        if not split.panoptic_root.is_dir():
            raise SourceMissing(split.panoptic_root)
        truth = read_panoptic_json(split.json_file)
        labels = split.labels or {}
        plan.jobs += [
            Job(
                split.panoptic_root / annotation.file_name,
                {split.label_of(annotation): identity(len(set(labels.values())))},
                partial(_read_labels, annotation=annotation, labels=labels),
            )
            for annotation in truth.annotations.values()
        ]
    if not plan.jobs:
        raise SourceMissing(splits[0].json_file)
    return plan


def no_plan(splits: Callable[[Path], list[PanopticSplit]], root: Path) -> Plan:
    """Nothing is made of it here: what is absent must be got."""
    raise SourceMissing(next((p for split in splits(root) if (p := split.absent())), root))


def _read_labels(source: Path, annotation: Annotation, labels: Mapping[int, int]) -> np.ndarray:
    """(H, W) labels of a panoptic PNG.

    Raises:
        UserError: it cannot be read, or a segment has a category that has no label.
    """
    try:
        return relabel_segments(read_segment_ids(source), annotation.segments, labels)
    except KeyError as error:
        raise UserError(
            f"image {annotation.image_id} ({source}) has the unknown category {error}; "
            "put a good copy of its JSON in its place"
        ) from error
