#!/usr/bin/env python
"""Train and evaluate any model of ccsa or of Detectron2.

    python tools/train_net.py --config-file configs/digits/ccnet_mask_rcnn.yaml
    python tools/train_net.py --config-file configs/ccnet_mask_rcnn.yaml --num-gpus 8
    torchrun --nproc-per-node 8 tools/train_net.py --config-file configs/ccnet_mask_rcnn.yaml \\
        OUTPUT_DIR output/mine
    python tools/train_net.py --config-file configs/mask_rcnn.yaml --with R_101,criss_cross,r3
    python tools/train_net.py --config-file configs/digits/ccnet_mask_rcnn.yaml --resume
    python tools/train_net.py --config-file configs/digits/ccnet_mask_rcnn.yaml \\
        --eval-only MODEL.WEIGHTS FILE.pth
    python tools/train_net.py --config-file configs/own/mask_rcnn.yaml --with criss_cross \\
        --data my_folder --epochs 50

--with applies overlays of configs/overlays on top of the configuration. KEY VALUE pairs at the end
override single keys. Without OUTPUT_DIR, each run gets a new folder under
output/<config>+<overlay>.../.
"""

import argparse
import contextlib
import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path

STARTED = time.perf_counter()  # before the imports, whose time counts as well

import ccsa  # noqa: F401  first, because it silences a warning of the imports below

# isort: split
from detectron2.config import CfgNode
from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from ccsa.checkpoint import Checkpointer
from ccsa.engine import (
    Trainer,
    add_config_arguments,
    check_run,
    choose_output_dir,
    describe_device,
    finish_run,
    record_config,
    setup_cfg,
    start_run,
)
from ccsa.engine.compilation import compile_parts
from ccsa.engine.launched_run import launch_within
from ccsa.engine.launchers import apply_launcher, launcher
from ccsa.engine.local_processes import launch
from ccsa.engine.own_data import add_data_arguments, data_table
from ccsa.engine.resume_changes import read_progress
from ccsa.errors import UserError, reports_user_errors
from ccsa.utils.run_lock import RunLock
from ccsa.utils.user_code import import_user_code


def work(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Train or evaluate. Every process of the job runs this function."""
    import_user_code(args.imports)  # this may be a process of its own
    if comm.is_main_process():
        print(f"{describe_device(cfg.MODEL.DEVICE)}\noutput: {cfg.OUTPUT_DIR}", flush=True)
    start_run(cfg, args.header)
    earlier_seconds = 0.0  # of the parts of a resumed run before this one
    if args.eval_only:
        model = compile_parts(cfg, Trainer.build_model(cfg))
        checkpointer = Checkpointer(model, cfg.OUTPUT_DIR)
        checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
        record_config(cfg)
        results: Mapping = Trainer.test(cfg, model)
    else:
        trainer = Trainer(cfg, read_progress(cfg.OUTPUT_DIR) if args.resume else None)
        trainer.resume_or_load(resume=args.resume)
        record_config(cfg)
        trainer.train()
        model, results = trainer.checkpointer.model, trainer.results or {}
        earlier_seconds = trainer.progress.earlier_seconds
    if comm.is_main_process():
        finish_run(cfg, model, results, earlier_seconds + time.perf_counter() - STARTED)
        report(cfg)


def report(cfg: CfgNode) -> None:
    """Write the report of the run; a failure is reported in one sentence, because the run itself is
    done."""
    file = Path(cfg.OUTPUT_DIR) / "report.html"
    if not cfg.TEST.REPORT or not cfg.DATASETS.TEST:
        return
    silenced = logging.root.manager.disable
    logging.disable(logging.INFO)  # the weights are loaded again to measure their cost
    try:
        from ccsa.report.evaluation import report_data
        from ccsa.report.page import write_report
        from ccsa.report.run_files import run_of

        write_report(report_data([run_of(cfg)]), file)
        print(f"report:      {file}")
        return
    except UserError as error:
        reason = str(error)
    except Exception as error:  # whatever a file, a model or a library may cause
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    finally:
        logging.disable(silenced)
    logging.getLogger("ccsa").warning("The report was not written (%s).", reason)


def parse_args() -> argparse.Namespace:
    parser = default_argument_parser(epilog=__doc__)
    # Detectron2's default is one address for all jobs of a user on a machine.
    parser.set_defaults(dist_url="auto")
    add_config_arguments(parser, config_file=False)  # Detectron2's parser has --config-file
    add_data_arguments(parser, training=True)
    return parser.parse_args()


@reports_user_errors
def main() -> None:
    args = parse_args()
    found = launcher()
    if found:
        apply_launcher(found, args)
    if found and found.place.rank > 0:  # rank 0 prints the same
        logging.getLogger("ccsa").addHandler(logging.NullHandler())
    try:
        cfg = setup_cfg(args)
    except UserError:
        # The launcher stops this process when the first one of the machine has reported the error.
        time.sleep(3.0 if found and found.place.local_rank else 0.0)
        raise
    args.header = "\n\n".join(filter(None, (data_table(cfg), getattr(args, "data_settings", ""))))
    if args.header and not (found and found.place.rank):
        print(args.header + "\n", flush=True)
    if cfg.MODEL.DEVICE == "cpu":
        # Otherwise Detectron2 would create contexts on a GPU that the run does not use.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if found:
        launch_within(work, cfg, args, found)
        return
    check_run(cfg, args)
    folder = choose_output_dir(cfg, args)
    cfg.defrost()
    cfg.OUTPUT_DIR = str(folder)
    cfg.freeze()
    # The processes of other machines share the folder, which that of rank 0 has locked.
    with RunLock(folder) if args.machine_rank == 0 else contextlib.nullcontext():
        launch(work, (cfg, args), args, cfg.MODEL.DEVICE)


if __name__ == "__main__":
    main()
