#!/usr/bin/env python
"""Compare runs of train_net.py: a metric over several seeds, parameters, FLOPs, time and memory.

    for seed in 1 2 3; do
        python tools/train_net.py --config-file configs/digits/fcn.yaml SEED $seed
        python tools/train_net.py --config-file configs/digits/sanet.yaml SEED $seed
    done
    python tools/compare_runs.py output/digits/fcn output/digits/sanet --output comparison/

A folder is a run, or contains runs at any depth. Runs that differ only in SEED form one row. Each
row is compared with the first one, or with --baseline NAME: the difference has a 95 % interval over
images and seeds, and a sentence states whether there is a difference. The cost is measured on this
machine, with the first run of each row on the first test image, so nothing else should run at the
same time. --output writes table.md and chart.png, and --html a page.
"""

import argparse
import logging
from pathlib import Path

from ccsa.analysis.chart import draw_chart
from ccsa.analysis.comparison import compare
from ccsa.analysis.group_evidence import with_evidence
from ccsa.analysis.runs import choose_metric, find_runs, group_runs, read_run
from ccsa.engine.own_data import add_data_arguments, data_options
from ccsa.errors import UserError, one_of, reports_user_errors
from ccsa.report.comparison import comparison_page
from ccsa.utils.files import atomic_write, check_new_file, check_writable, write_text


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "runs", nargs="+", metavar="FOLDER", help="runs, or folders that contain runs"
    )
    parser.add_argument(
        "--metric", metavar="NAME", help="e.g. mIoU or segm/AP50; by default the main metric"
    )
    parser.add_argument(
        "--baseline", metavar="NAME", help="the row to compare with (default: the first one)"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the comparison as a page")
    parser.add_argument(
        "--output", type=Path, metavar="FOLDER", help="write table.md and chart.png to it"
    )
    parser.add_argument(
        "--no-cost",
        action="store_true",
        help="do not measure the cost, show only what the runs recorded",
    )
    add_data_arguments(parser)
    return parser.parse_args()


def new_files(folder: Path) -> list[Path]:
    """Return the paths of the table and the chart in a folder.

    Raises:
        UserError: one of them exists already, or the folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--output {folder} is a file; name a folder")
    files = [folder / "table.md", folder / "chart.png"]
    for file in files:
        if file.exists():
            raise UserError(f"{file} exists already; name another folder with --output")
        check_writable(file, "--output")
    return files


@reports_user_errors
def main() -> None:
    args = parse_args()
    logging.disable(logging.INFO)  # how configurations and weights are loaded; warnings remain
    folders, unfinished = find_runs(args.runs)
    data = data_options(args)
    groups = group_runs([read_run(folder, **data) for folder in folders])
    metric = choose_metric(groups, args.metric)
    if args.baseline is not None:
        one_of([group.name for group in groups], args.baseline, "--baseline")
    files = [] if args.output is None else new_files(args.output)
    if args.html is not None:
        check_new_file(args.html, "--html")
    comparison = compare(groups, metric, costs=not args.no_cost)
    comparison = with_evidence(comparison, groups, metric, args.baseline)
    comparison.notes.extend(f"{run} is not finished and is left out" for run in unfinished)
    print(comparison.table())
    print()
    for sentence in comparison.sentences:
        print(sentence)
    for note in comparison.notes:
        print(f"note: {note}")
    if files:
        with atomic_write(files[0]) as table, atomic_write(files[1]) as chart:
            table.write_text(comparison.markdown(), encoding="utf-8")
            draw_chart(comparison, chart)
    if args.html is not None:
        write_text(args.html, comparison_page(comparison))
        files.append(args.html)
    for file in files:
        print(f"written: {file}")


if __name__ == "__main__":
    main()
