#!/usr/bin/env python
"""Read every image and label of a semantic or panoptic dataset and say what is wrong.

    python tools/check_dataset.py lip
    python tools/check_dataset.py coco_panoptic
    python tools/check_dataset.py --all --root /data/datasets

Counted are images, labels, missing and unreadable files, labels of another size than their image
and labels out of range; of panoptic datasets also segments whose id, category or area is wrong. The
exit status is 2 if anything is wrong. A count that differs from the published one is a note, not an
error.
"""

import argparse
from pathlib import Path

from tabulate import tabulate

from ccsa.data import panoptic, semantic
from ccsa.data.checks.panoptic import check_panoptic_split
from ccsa.data.checks.semantic import HEADERS, check_family, check_split, examples
from ccsa.data.semantic import find_family
from ccsa.data.synthetic.storage import datasets_root
from ccsa.errors import UserError, reports_user_errors

FAMILIES = {**semantic.FAMILIES, **panoptic.FAMILIES}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("name", nargs="?", metavar="NAME", help=", ".join(FAMILIES))
    which.add_argument("--all", action="store_true", help="every one that is there")
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
    families = list(FAMILIES.values()) if args.all else [find_family(args.name, FAMILIES)]
    reports, notes = [], []
    for family in families:
        if family.write and not args.all:
            family.write(args.root)
        check = check_panoptic_split if family.name in panoptic.FAMILIES else check_split
        try:
            found, remarks = check_family(family, args.root, check)
        except UserError as error:
            if not args.all:
                raise
            notes.append(str(error).partition(". ")[0])
            continue
        reports += found
        notes += remarks
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
    wrong = [report.split.name for report in reports if report.troubles]
    if wrong:
        raise UserError(
            f"{len(wrong)} of {len(reports)} have something wrong: {', '.join(wrong)}; "
            "each is named above"
        )
    print("nothing wrong found")


if __name__ == "__main__":
    main()
