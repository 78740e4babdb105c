"""Run folders: where a run's files go, so that no run ever overwrites another."""

import argparse
from pathlib import Path

from detectron2.config import CfgNode

from ccsa.errors import UserError, suggestion

CONFIG = "config.yaml"
LAST = "last_checkpoint"
RESULTS = "results.json"


def choose_output_dir(cfg: CfgNode, args: argparse.Namespace) -> Path:
    """The folder for this run; a new one is made.

    With no OUTPUT_DIR it is the next number under ``output/<config>/``, or with ``--resume`` the
    latest one there that has a checkpoint. A given OUTPUT_DIR may hold a run only with
    ``--resume``.

    Raises:
        UserError: the folder holds a run and ``--resume`` was not given, there is nothing to
        resume, or it cannot be made.
    """
    try:
        if cfg.OUTPUT_DIR:
            return _given(Path(cfg.OUTPUT_DIR), args)
        if args.num_machines > 1:
            raise UserError("with --num-machines above 1, name one OUTPUT_DIR for all of them")
        return _numbered(Path("output") / config_name(args.config_file), args)
    except OSError as error:
        raise UserError(f"cannot write a run to {error.filename}: {error.strerror}") from error


def config_name(file: str) -> Path:
    """``configs/digits/x.yaml`` is called ``digits/x``; a file outside a ``configs`` folder goes by
    its own name."""
    path = Path(file).resolve().with_suffix("")
    parts = path.parts
    if "configs" in parts[:-1]:
        last = len(parts) - 1 - parts[::-1].index("configs")
        return Path(*parts[last + 1 :])
    return Path(path.name)


def holds_run(folder: Path) -> bool:
    """Whether a run was started in this folder."""
    return (folder / CONFIG).exists() or (folder / LAST).exists()


def last_weights(folder: Path) -> Path | None:
    """The latest checkpoint of the run in this folder; None if it has none."""
    names = [(folder / LAST).read_text().strip()] if (folder / LAST).is_file() else []
    for name in (*names, "model_final.pth"):
        if (folder / name).is_file():
            return folder / name
    return None


def run_files(weights: str) -> tuple[str, str]:
    """(configuration, weights) of a run's folder or of a file in one; no configuration: "".

    Raises:
        UserError: nothing is there, a folder that holds no run, or one without weights.
    """
    path = Path(weights).expanduser()
    if not ("://" in weights or path.exists()):
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = suggestion(path.name, sorted(beside), listed=8)
        raise UserError(f"--weights {weights} does not exist in {path.parent}{hint}")
    if not path.is_dir():
        config = path.parent / CONFIG
        return (str(config) if config.is_file() else ""), weights
    if not (path / CONFIG).is_file():
        raise UserError(
            f"--weights {weights} holds no run ({CONFIG} is not there); name a run or a file"
        )
    file = last_weights(path)
    if file is None:
        raise UserError(
            f"run {weights} has no checkpoint yet; wait for one, or name another run or file"
        )
    return str(path / CONFIG), str(file)


def _given(folder: Path, args: argparse.Namespace) -> Path:
    if holds_run(folder) and not args.resume and args.machine_rank == 0:
        raise UserError(
            f"OUTPUT_DIR {folder} holds a run already; "
            "continue it with --resume, or name another folder"
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"OUTPUT_DIR {folder} is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _numbered(parent: Path, args: argparse.Namespace) -> Path:
    if args.resume:
        resumable = [n for n in _numbers(parent) if (parent / str(n) / LAST).exists()]
        if not resumable:
            raise UserError(
                f"--resume: no run under {parent} has a checkpoint; start one without --resume"
            )
        return parent / str(max(resumable))
    return new_folder(parent)


def new_folder(parent: Path) -> Path:
    """Make the next numbered folder under ``parent``."""
    parent.mkdir(parents=True, exist_ok=True)
    number = max(_numbers(parent), default=0) + 1
    while True:
        try:
            (parent / str(number)).mkdir()  # two runs that start together get two folders
        except FileExistsError:
            number += 1
        else:
            return parent / str(number)


def _numbers(parent: Path) -> list[int]:
    return [int(p.name) for p in parent.glob("*") if p.name.isdigit()]
