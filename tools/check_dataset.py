#!/usr/bin/env python
"""Read every image and annotation of a dataset and report what is wrong.

    python tools/check_dataset.py --data my_folder --preview preview.png
    python tools/check_dataset.py --data train.json --images images --val val.json
    python tools/check_dataset.py digits_train digits_val
    python tools/check_dataset.py --import my_datasets.py my_train my_val
    python tools/check_dataset.py --data my_folder DATASETS.LABEL_MAPPING "{255: 1}"
    python tools/check_dataset.py --data my_folder --config-file configs/own/mask_rcnn.yaml
    python tools/check_dataset.py lip
    python tools/check_dataset.py --all --root /data/datasets

The table lists the kind, severity and number of problems, the first files, and how to fix them. The
exit status is 2 if there are errors, otherwise 0. --kinds lists all kinds.

KEY VALUE pairs set DATASETS.LABEL_MAPPING, INPUT.INTENSITY_RANGE and DATASETS.ALLOW as in training.
With --config-file, the data is checked for that model; without --data and NAME, the datasets of the
configuration are checked.

NAME is a registered dataset, or a benchmark (lip, coco_panoptic, ...). For a benchmark, the table
counts images, labels, missing and unreadable files, labels whose size differs from their image, and
invalid labels; for panoptic datasets also segments whose id, category or area is wrong. If the
number of images differs from the published one, this is a note, not an error.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import ccsa  # noqa: F401  first, because it silences a warning of the imports below

# isort: split
import cv2
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tabulate import tabulate

from ccsa.data import panoptic, semantic
from ccsa.data.checks import (
    HEADERS,
    check_family,
    check_panoptic_split,
    check_split,
    examples,
)
from ccsa.data.checks.dataset import Checked, check_records
from ccsa.data.checks.own import check_folder
from ccsa.data.checks.registered import load_registered
from ccsa.data.family import find_family
from ccsa.data.formats.layout import split_of
from ccsa.data.image_reader import intensity_range
from ccsa.data.own import Source, label_mapping, map_registered_labels, read_source
from ccsa.data.paths import add_root_argument
from ccsa.data.problems import ERROR, KINDS, Problems, kinds_table
from ccsa.data.tasks import derive
from ccsa.engine import add_config_arguments
from ccsa.engine.check_settings import (
    check_cfg,
    checked_kind,
    checked_range,
    checked_source,
    masks_needed,
    split_words,
)
from ccsa.engine.own_data import add_data_arguments
from ccsa.errors import UserError, near_misses, reports_user_errors, suggestion
from ccsa.utils.files import check_writable, write_text
from ccsa.utils.user_code import import_user_code
from ccsa.visualization.preview import draw_preview

FAMILIES = {**semantic.FAMILIES, **panoptic.FAMILIES}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"registered datasets, or one of {', '.join(FAMILIES)}; then KEY VALUE pairs",
    )
    parser.add_argument("--all", action="store_true", help="check every benchmark that exists")
    parser.add_argument("--kinds", action="store_true", help="list all kinds of problems")
    add_root_argument(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the result as JSON")
    parser.add_argument(
        "--preview", type=Path, metavar="FILE.png", help="draw images with their annotations"
    )
    add_config_arguments(parser, help="check the data for the model of this configuration")
    add_data_arguments(parser)
    args = parser.parse_intermixed_args()
    args.names, args.opts = split_words(args.names)
    named = sum(map(bool, (args.names, args.all, args.data)))
    if not args.kinds and named != 1 and (named or not args.config_file):
        parser.error("name either datasets, or --data, or --all")
    return args


@reports_user_errors
def main() -> None:
    args = parse_args()
    if args.kinds:
        print(kinds_table())
        return
    check_outputs(args)
    import_user_code(args.imports)
    cfg = check_cfg(args)
    families = [name for name in args.names if name in FAMILIES]
    if args.all or (families and len(args.names) == 1):
        if args.json or args.preview or args.config_file or args.opts:
            raise UserError(
                "--json, --preview, --config-file and KEY VALUE pairs need --data, or the names of "
                "registered datasets"
            )
        check_families(args)
        return
    source = checked_source(args, cfg)
    if source.data and not args.names:
        checked, facts = check_own(source, args, cfg)
    else:
        checked, facts = check_registered(args, cfg)
    report(checked, facts, args)
    if checked.problems.stopping(cfg.DATASETS.ALLOW):
        sys.exit(2)


def check_outputs(args: argparse.Namespace) -> None:
    """Check that the files of --json and --preview can be written, before anything is read.

    Raises:
        UserError: one of them cannot.
    """
    for option, file in (("--json", args.json), ("--preview", args.preview)):
        if file:
            check_writable(file, option)
    if args.preview and not cv2.haveImageWriter(str(args.preview)):
        raise UserError(f"--preview {args.preview} is not an image file; name a .png or .jpg file")


def check_own(
    source: Source, args: argparse.Namespace, cfg: CfgNode
) -> tuple[Checked, dict[str, Any]]:
    """Check a user's data; return the result, and facts about the data."""
    data = read_source(source)
    task = derive(data, checked_kind(args, cfg, data))
    if args.preview:
        draw_preview(args.preview, task.splits, task.thing_classes, task.stuff_classes)
    checked = check_folder(
        data,
        task,
        masks=masks_needed(args, cfg),
        intensity_range=checked_range(cfg, task),
    )
    splits = {name: len(records) for name, records in data.splits.items()}
    facts = {"data": str(data.root), "format": data.format, "classes": data.classes}
    return checked, {**facts, "images": splits}


def check_registered(args: argparse.Namespace, cfg: CfgNode) -> tuple[Checked, dict[str, Any]]:
    """Check registered datasets, by default those of the configuration; return the result, and
    facts about them."""
    registered = DatasetCatalog.list()
    names = args.names or list(dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)))
    if not names:
        raise UserError(f"--config-file {args.config_file} names no dataset; add --data FOLDER")
    for name in names:
        if name not in registered:
            if near_misses(name, registered, cutoff=0.8):
                hint = suggestion(name, registered, listed=0, cutoff=0.8)
                raise UserError(f"there is no dataset called '{name}'{hint}")
            find_family(name, FAMILIES)  # raises an error that lists the benchmarks
            raise UserError(f"check {name} by a command of its own, because it is a benchmark")
    map_registered_labels(names, label_mapping(cfg))
    problems = Problems()
    splits: dict[str, list[dict[str, Any]]] = {}
    for name in names:
        split = split_of(name) or name
        splits.setdefault(split, []).extend(load_registered(name, problems, list(KINDS)))
    metadata = MetadataCatalog.get(names[0])
    things, stuff = metadata.get("thing_classes", ()), metadata.get("stuff_classes", ())
    if args.preview:
        draw_preview(args.preview, splits, things, stuff)
    checked = check_records(
        splits,
        things=things,
        stuff=stuff,
        ignore=metadata.get("ignore_label", 255),
        source=", ".join(names),
        masks=bool(masks_needed(args, cfg)),
        intensity_range=intensity_range(cfg.INPUT.INTENSITY_RANGE),
    )
    problems.extend(checked.problems)
    counts = {name: len(records) for name, records in splits.items()}
    facts = {"data": ", ".join(names), "format": "registered", "classes": [*things] or [*stuff]}
    return Checked(problems, checked.images, checked.decoded), {**facts, "images": counts}


def report(checked: Checked, facts: dict[str, Any], args: argparse.Namespace) -> None:
    """Print the result of a check, and write it as JSON if a file was named."""
    images = ", ".join(f"{count:,} {name}" for name, count in facts["images"].items())
    classes = facts["classes"]
    listed = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    print(f"{facts['data']} ({facts['format']}): {images} images")
    print(f"{len(classes)} classes: {listed}")
    if len(checked.problems):
        print(checked.table())
        for kind in checked.problems.kinds():
            first = next(p for p in checked.problems if p.kind == kind)
            print(f"{kind}: {first.file}: {first.message}")
    print(checked.summary())
    if args.preview:
        print(f"preview: {args.preview}")
    if args.json:
        problems = [p._asdict() for p in checked.problems]
        kinds = {
            kind: {
                **KINDS[kind]._asdict(),
                "count": checked.problems.counts[kind],
                "files": checked.problems.files(kind),
            }
            for kind in checked.problems.kinds()
        }
        content = {**facts, "decoded": checked.decoded, "kinds": kinds, "problems": problems}
        content["errors"] = sum(k["count"] for k in kinds.values() if k["severity"] == ERROR)
        write_text(args.json, json.dumps(content, indent=2))


def check_families(args: argparse.Namespace) -> None:
    """Check benchmarks, and print a table of their splits.

    Raises:
        UserError: a benchmark does not exist, or a split has problems.
    """
    families = (
        list(FAMILIES.values()) if args.all else [find_family(n, FAMILIES) for n in args.names]
    )
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
            f"none of {', '.join(FAMILIES)} is ready under {args.root.absolute()}; "
            "docs/DATASETS.md shows their layout, or name the folder with --root"
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
