#!/usr/bin/env python
"""Make the label files of a segmentation dataset from its published files.

    python tools/prepare_dataset.py cityscapes
    python tools/prepare_dataset.py pascal_voc --root /data/datasets
    python tools/prepare_dataset.py coco_panoptic

Downloaded files are never changed. After an interruption, the same command continues where it
stopped. docs/DATASETS.md shows the layout of each dataset.
"""

import argparse

from ccsa.data import panoptic, semantic
from ccsa.data.family import find_family
from ccsa.data.paths import add_root_argument, datasets_root
from ccsa.data.preparation.plans import execute
from ccsa.errors import reports_user_errors

FAMILIES = {**semantic.FAMILIES, **panoptic.PREPARED}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", metavar="NAME", help=", ".join(FAMILIES))
    add_root_argument(parser)
    return parser.parse_args()


@reports_user_errors
def main() -> None:
    args = parse_args()
    family = find_family(args.name, FAMILIES)
    plan = family.make_plan(args.root)
    outcome = execute(plan, f"{family.name} labels")
    print(f"{family.title}: {outcome.written:,} files made, {outcome.kept:,} existed already")
    for note in plan.notes:
        print(f"note: {note}")
    option = "" if args.root == datasets_root() else f" --root {args.root}"
    print(f"next: python tools/check_dataset.py {family.name}{option}")


if __name__ == "__main__":
    main()
