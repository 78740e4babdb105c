#!/usr/bin/env python
"""Compute the panoptic quality of result files in COCO's panoptic format, from any program.

    python tools/evaluate_panoptic.py \\
        --gt-json coco/annotations/panoptic_val2017.json --gt-dir coco/panoptic_val2017 \\
        --pred-json predictions.json --pred-dir predictions/ --output results.json

The results agree with those of panopticapi. If a file or an image is missing, segments do not
correspond to their PNG, or a category is unknown, the program ends with status 2 and a message that
names them. The JSON file of --output contains All, Things, Stuff and per_class, from 0 to 1.
"""

import argparse
import json
import time
from pathlib import Path

from ccsa.errors import reports_user_errors
from ccsa.evaluation.panoptic_files import evaluate_files
from ccsa.evaluation.panoptic_tables import as_json, class_table, panoptic_table
from ccsa.utils.files import check_new_file, write_text


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for option, metavar, text in (
        ("--gt-json", "FILE", "the ground truth with annotations and categories"),
        ("--gt-dir", "FOLDER", "the PNGs of the ground truth"),
        ("--pred-json", "FILE", "the predictions with annotations"),
        ("--pred-dir", "FOLDER", "the PNGs of the predictions"),
    ):
        parser.add_argument(option, type=Path, required=True, metavar=metavar, help=text)
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="write the results to this JSON file"
    )
    return parser.parse_args()


@reports_user_errors
def main() -> None:
    args = parse_args()
    if args.output:
        check_new_file(args.output, "--output")
    started = time.perf_counter()
    quality, truth = evaluate_files(args.gt_json, args.gt_dir, args.pred_json, args.pred_dir)
    seconds = time.perf_counter() - started
    results = quality.results()
    print(class_table(results, {c.id: c.name for c in truth.categories.values()}))
    print()
    print(panoptic_table(results))
    images = len(truth.annotations)
    print(f"\n{images:,} images in {seconds:.1f} s: {60 * images / seconds:,.0f} images per minute")
    if args.output:
        write_text(args.output, f"{json.dumps(as_json(results), indent=1)}\n")
        print(f"results: {args.output}")


if __name__ == "__main__":
    main()
