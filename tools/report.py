#!/usr/bin/env python
"""Write a page that evaluates one or several runs of train_net.py.

    python tools/report.py output/digits/ccnet_mask_rcnn/1
    python tools/report.py output/digits/fcn/1 output/digits/sanet/1 --output report.html

The page is one file that any browser opens from the disk, without a network. It has the metric with
its interval, the metrics of every class, what the errors cost, the worst images, and more; of
several configurations, the first one is the baseline. Every run of train_net.py ends with one.
docs/REPORT.md explains it.
"""

import argparse
import logging
from pathlib import Path

from ccsa.analysis.runs import find_runs, read_run
from ccsa.engine.own_data import add_data_arguments, data_options
from ccsa.errors import UserError, reports_user_errors
from ccsa.report.evaluation import report_data
from ccsa.report.page import write_report
from ccsa.utils.files import check_new_file, check_writable

NAME = "report.html"


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="runs, or folders that contain runs")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help=f"the page; by default {NAME} in the folder of the run, which is replaced",
    )
    add_data_arguments(parser)
    return parser.parse_args()


def output_file(args: argparse.Namespace, folders: list[Path]) -> Path:
    """Return the path of the page.

    Raises:
        UserError: it cannot be written, or exists and was named with --output.
    """
    if args.output is not None:
        check_new_file(args.output, "--output")
        return args.output
    if len(folders) > 1:
        raise UserError(f"there are {len(folders)} runs; name the page with --output")
    check_writable(folders[0] / NAME, "--output")
    return folders[0] / NAME


@reports_user_errors
def main() -> None:
    args = parse_args()
    logging.disable(logging.INFO)  # how configurations and weights are loaded; warnings remain
    folders, unfinished = find_runs(args.runs)
    file = output_file(args, folders)
    data = data_options(args)
    content = report_data([read_run(folder, **data) for folder in folders])
    write_report(content, file)
    for sentence in content["verdict"]["sentences"]:
        print(sentence)
    for run in unfinished:
        print(f"note: {run} is not finished and is left out")
    print(f"written: {file}")


if __name__ == "__main__":
    main()
