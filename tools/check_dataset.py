#!/usr/bin/env python
"""Read every image and label of a semantic or panoptic dataset and report what is wrong.

    python tools/check_dataset.py lip
    python tools/check_dataset.py coco_panoptic
    python tools/check_dataset.py --all --root /data/datasets

The table counts images, labels, missing and unreadable files, labels whose size differs from their
image, and invalid labels; for panoptic datasets also segments whose id, category or area is wrong.
The exit status is 2 if anything is wrong. If the number of images differs from the published one,
this is a note, not an error.
"""

import argparse

from tabulate import tabulate

from ccsa.data import panoptic, semantic
from ccsa.data.checks import (
    HEADERS,
    check_family,
    check_panoptic_split,
    check_split,
    examples,
)
from ccsa.data.family import find_family
from ccsa.data.paths import add_root_argument
from ccsa.errors import UserError, reports_user_errors

FAMILIES = {**semantic.FAMILIES, **panoptic.FAMILIES}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", metavar="NAME", help=", ".join(FAMILIES))
    which.add_argument("--all", action="store_true", help="check every dataset that exists")
    add_root_argument(parser)
    return parser.parse_args()


@reports_user_errors
def main() -> None:
    args = parse_args()
    families = list(FAMILIES.values()) if args.all else [find_family(args.name, FAMILIES)]
    reports, notes = [], []
    for family in families:
        if family.write and not args.all:
            family.write(args.root)
        check = check_panoptic_split if family.name in panoptic.FAMILIES else check_split
        try:
            family_reports, family_notes = check_family(family, args.root, check)
        except UserError as error:
            if not args.all:
                raise
            notes.append(str(error).partition(". ")[0])
            continue
        reports += family_reports
        notes += family_notes
    if not reports:
        raise UserError(
            f"none of {', '.join(FAMILIES)} is ready under {args.root.absolute()}: "
            f"{'; '.join(notes)}. See docs/DATASETS.md"
        )
    for kinds in dict.fromkeys(report.kinds for report in reports):
        rows = [report.row() for report in reports if report.kinds == kinds]
        print(tabulate(rows, HEADERS + kinds, intfmt=","))
    for line in examples(reports):
        print(line)
    for note in [*notes, *(note for report in reports if (note := report.note()))]:
        print(f"note: {note}")
    wrong = [report.split.name for report in reports if report.problems]
    if wrong:
        raise UserError(
            f"{len(wrong)} of {len(reports)} splits have problems: {', '.join(wrong)}; "
            "each problem is listed above"
        )
    print("no problems found")


if __name__ == "__main__":
    main()
