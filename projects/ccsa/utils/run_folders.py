"""Run folders: where the files of a run are written, so that no run ever overwrites another."""

import argparse
import hashlib
import os.path
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from ccsa.errors import UserError, shown, suggestion
from ccsa.utils.files import real_path, regular_file
from ccsa.utils.yaml_files import read_yaml

CONFIG = "config.yaml"
LAST = "last_checkpoint"
LOG = "log.txt"
RESULTS = "results.json"
RUN_ID = "run_id.txt"  # of the launcher's job
FINAL, BEST = "model_final.pth", "model_best.pth"
_NUMBERED = re.compile(r"model_(\d+)\.pth")  # Detectron2's names of periodic checkpoints


def choose_output_dir(cfg: CfgNode, args: argparse.Namespace) -> Path:
    """Return the folder of this run; create it if it is new.

    Without OUTPUT_DIR, the folder is the next number under ``output/<config>+<overlay>.../``, or
    with ``--resume`` the latest one there that has a checkpoint. If OUTPUT_DIR is given, it may
    contain a run only with ``--resume``.

    Raises:
        UserError: the folder contains a run and ``--resume`` was not given, there is nothing to
            resume, or the folder cannot be created.
    """
    try:
        if cfg.OUTPUT_DIR:
            return _named_folder(Path(cfg.OUTPUT_DIR), args)
        if args.num_machines > 1:
            raise UserError("with --num-machines above 1, name one OUTPUT_DIR for all of them")
        name = config_name(args.config_file, overlay_names(args))
        folder = _numbered_folder(Path("output") / name, args)
        if args.resume:
            _check_same_model(cfg, folder)
        return folder
    except OSError as error:
        raise UserError(f"cannot write a run to {error.filename}: {error.strerror}") from error


def config_name(file: str, overlays: Sequence[str] = ()) -> Path:
    """Return the name of a configuration: its path below ``configs``, then its overlays.

    A file outside a ``configs`` folder is named after the file. An overlay given by its path is
    named after the file and its content, so that different overlays never share a name.

    Raises:
        UserError: an overlay given by its path cannot be read.

    Example:
        >>> config_name("configs/digits/ccnet.yaml", ["r3", "ccl"]).as_posix()
        'digits/ccnet+r3+ccl'
    """
    path = real_path(file).with_suffix("")
    parts = path.parts
    if "configs" in parts[:-1]:
        last = len(parts) - 1 - parts[::-1].index("configs")
        path = Path(*parts[last + 1 :])
    else:
        path = Path(path.name)
    return path.with_name("+".join([path.name, *map(_overlay_name, overlays)]))


def is_overlay_path(name: str) -> bool:
    """Return whether a value of ``--with`` is the path of a file, not the name of an overlay."""
    return "/" in name or name.endswith((".yaml", ".yml"))


def _overlay_name(name: str) -> str:
    """Return the name of an overlay in a run folder; that of a file ends in a hash of its bytes."""
    if not is_overlay_path(name):
        return name
    try:
        content = regular_file(Path(name)).read_bytes()
    except OSError as error:
        raise UserError(f"--with {name} cannot be read: {error.strerror}") from error
    return f"{Path(name).stem}-{hashlib.sha256(content).hexdigest()[:8]}"


def overlay_names(args: argparse.Namespace) -> list[str]:
    """Return the overlays of a command line, in order: ``--with A,B --with C`` is A, B and C.

    Raises:
        UserError: a ``--with`` names no overlay, or a path contains a comma.
    """
    found: list[str] = []
    for value in getattr(args, "overlays", None) or []:
        names = [name.strip() for name in str(value).split(",")]
        if not any(names):
            raise UserError("--with names no overlay; give names or paths, e.g. --with r3,ccl")
        for first in range(len(names)):
            for last in range(first + 2, len(names) + 1):
                path = ",".join(names[first:last])
                if is_overlay_path(path) and os.path.isfile(path):
                    raise UserError(
                        f"--with {path}: the path of an overlay cannot contain a comma, which "
                        "separates overlays; rename it"
                    )
        found += filter(None, names)
    return found


def is_run_config(file: str) -> bool:
    """Return whether a configuration file is the one that a run has written to its folder."""
    return os.path.basename(file) == CONFIG


def holds_run(folder: Path) -> bool:
    """Return whether a run was started in this folder."""
    return (folder / CONFIG).exists() or has_checkpoint(folder)


def has_checkpoint(folder: Path) -> bool:
    """Return whether a run has left a checkpoint in this folder, also if ``last_checkpoint`` is
    missing."""
    named = any((folder / name).exists() for name in (LAST, FINAL, BEST))
    return named or bool(numbered_checkpoints(folder))


def numbered_checkpoints(folder: Path) -> dict[Path, int]:
    """Return the checkpoints ``model_<iteration>.pth`` in a folder and their iterations, the newest
    one first.

    The order is that of the iterations, so that it does not depend on the clock.
    """
    names = {path: _NUMBERED.fullmatch(path.name) for path in folder.glob("model_*.pth")}
    found = {path: int(name[1]) for path, name in names.items() if name and path.is_file()}
    return dict(sorted(found.items(), key=lambda item: item[1], reverse=True))


def pointed_checkpoint(folder: Path) -> Path | None:
    """Return the file that ``last_checkpoint`` names, which may be missing; None if there is no
    ``last_checkpoint``, or if it is empty.

    Raises:
        UserError: see :func:`last_checkpoint_name`.
    """
    name = last_checkpoint_name(folder)
    return folder / name if name else None


def last_weights(folder: Path) -> Path | None:
    """Return the latest checkpoint of the run in this folder, or None if it has none."""
    named = (pointed_checkpoint(folder), folder / FINAL, *numbered_checkpoints(folder))
    return next((path for path in named if path is not None and path.is_file()), None)


def last_checkpoint_name(folder: Path) -> str:
    """Return the name in ``last_checkpoint``, a file in the same folder; empty if there is none.
    An empty file, which a power failure can leave, counts as none.

    Raises:
        UserError: the file cannot be read, or names a file elsewhere.
    """
    file = folder / LAST
    if not file.is_file():
        return ""
    try:
        name = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot read {file} ({error}); write the name of a checkpoint in {folder} to it"
        ) from error
    if name in (".", "..") or "\0" in name or name != os.path.basename(name):
        raise UserError(
            f"{file} names {shown(name)}, which is not a file in this folder; write the name of a "
            "checkpoint in the folder to it"
        )
    return name


def run_files(weights: str) -> tuple[str, str]:
    """Return the configuration and the weights of a run folder, or of a file inside one.

    The configuration is empty if the file is not inside a run folder.

    Raises:
        UserError: the path does not exist, or is a folder without a run or without weights.
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
            f"--weights {weights} is not the folder of a run, because it has no {CONFIG}; "
            "name the folder of a run or a weights file"
        )
    file = last_weights(path)
    if file is None:
        raise UserError(
            f"run {weights} has no checkpoint yet; wait for one, or name another run or file"
        )
    return str(path / CONFIG), str(file)


def _named_folder(folder: Path, args: argparse.Namespace) -> Path:
    """Return the folder that OUTPUT_DIR names, created if necessary."""
    if holds_run(folder) and not args.resume and args.machine_rank == 0:
        raise UserError(
            f"OUTPUT_DIR {folder} already contains a run; "
            "continue it with --resume, or name another folder"
        )
    if folder.exists() and not folder.is_dir():
        raise UserError(f"OUTPUT_DIR {folder} is a file; name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _numbered_folder(parent: Path, args: argparse.Namespace) -> Path:
    """Return a new numbered folder, or with ``--resume`` the latest one with a checkpoint."""
    if args.resume:
        resumable = [n for n in _numbers(parent) if has_checkpoint(parent / str(n))]
        if not resumable:
            raise UserError(
                f"--resume: no run under {parent} has a checkpoint; start one without --resume"
            )
        return parent / str(max(resumable))
    return new_folder(parent)


def _check_same_model(cfg: CfgNode, folder: Path) -> None:
    """Raise a UserError if the run in ``folder`` has another model than ``cfg``.

    Only keys of MODEL that both have are compared, because versions may differ in their keys, and
    neither the device nor the initial weights, which a resumed run does not use.
    """
    if not (folder / CONFIG).is_file():
        return
    try:
        stored = read_yaml(folder / CONFIG)["MODEL"]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"--resume: {folder / CONFIG} is not the configuration of a run, because it has no "
            "section MODEL; start a run without --resume"
        ) from error
    before, now = flat_values(stored), flat_values(yaml.safe_load(cfg.MODEL.dump()))
    for key in sorted(before.keys() & now.keys() - {"DEVICE", "WEIGHTS"}):
        if before[key] != now[key]:
            raise UserError(
                f"--resume: the run in {folder} has another model: its MODEL.{key} is "
                f"{before[key]!r}, not {now[key]!r}; give the configuration and the options of "
                "that run, or start a run without --resume"
            )


def flat_values(content: Any, prefix: str = "") -> dict[str, Any]:
    """Return the values of nested mappings by dotted key."""
    if not isinstance(content, dict):
        return {prefix: content}
    values: dict[str, Any] = {}
    for name, value in content.items():
        values |= flat_values(value, f"{prefix}.{name}".lstrip("."))
    return values


def new_folder(parent: Path) -> Path:
    """Create the next numbered folder under ``parent`` and return it."""
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
