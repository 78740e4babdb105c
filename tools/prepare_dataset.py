#!/usr/bin/env python
"""Make the label files of a segmentation dataset from those it is published with.

    python tools/prepare_dataset.py cityscapes
    python tools/prepare_dataset.py pascal_voc --root /data/datasets
    python tools/prepare_dataset.py coco_panoptic

What is downloaded is not changed. A run that was interrupted goes on where it stopped when started
again. docs/DATASETS.md says what lies where.
"""

import argparse
from pathlib import Path

from ccsa.data import panoptic, semantic
from ccsa.data.preparation.plans import SourceMissing, carry_out
from ccsa.data.semantic import find_family
from ccsa.data.synthetic.storage import datasets_root
from ccsa.errors import reports_user_errors

FAMILIES = {**semantic.FAMILIES, **panoptic.PREPARED}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help=", ".join(FAMILIES))
    parser.add_argument(
        "--root",
        type=Path,
        default=datasets_root(),
        metavar="FOLDER",
        help="where datasets lie, by default $DETECTRON2_DATASETS or ./datasets",
    )
    return parser.parse_args()


@reports_user_errors
def main() -> None:
    args = parse_args()
    family = find_family(args.name, FAMILIES)
    try:
        plan = family.plan(args.root)
    except SourceMissing as error:
        raise family.missing(args.root, error.place) from None
    outcome = carry_out(plan, f"{family.name} labels")
    print(f"{family.title}: {outcome.written:,} files made, {outcome.kept:,} were there already")
    for note in plan.notes:
        print(f"note: {note}")
    option = "" if args.root == datasets_root() else f" --root {args.root}"
    print(f"now: python tools/check_dataset.py {family.name}{option}")


if __name__ == "__main__":
    main()
