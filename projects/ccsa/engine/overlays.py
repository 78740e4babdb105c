"""Overlays: small configuration files that ``--with A,B`` applies on top of a base configuration.

An overlay is a file ``configs/overlays/NAME.yaml``, a folder ``configs/overlays/NAME/`` with one
file for each kind of base, or a YAML file of the user, given by its path. Its top-level key
``_OVERLAY_`` describes it and is removed before the rest is merged:

* ``description``: what the overlay does, one sentence.
* ``for``: the bases that it fits, in words.
* ``fits``: conditions that the configuration must meet. A key is a configuration key or one of
  ``ARCHITECTURE`` (the meta-architecture, without ContextModel around it), ``HEAD`` (the semantic
  head, if the architecture has one) and ``BLOCKS`` (the classes of the context blocks). A value is
  the required value, or a list of values of which one must match. The conditions hold where the
  overlay is applied, and all but those on context blocks also with every other overlay applied.
* ``kind``: at most one overlay of a kind may be used, e.g. one backbone or one block.
* ``edit_blocks``: new keywords for the context blocks of a class; ``null`` removes these blocks,
  and the class ``any`` stands for all of them. Unlike a key, it keeps the location of a block.

An overlay comes after those that it needs: ``criss_cross,r3``. The order has no other influence on
whether it is accepted: it must change something that the model uses in the end, and must not be
undone by a later one.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from ccsa.engine.config_files import OVERLAY_KEY, existing_file, read_config_file
from ccsa.engine.config_values import check_key, check_no_section, find_value, merge_content
from ccsa.engine.model_parts import (
    all_values,
    architecture,
    block_lists,
    read_blocks,
    semantic_head,
    used_values,
)
from ccsa.errors import UserError, shown, suggestion
from ccsa.utils.files import real_path
from ccsa.utils.run_folders import is_overlay_path

_FIELDS = {"description": str, "for": str, "fits": dict, "kind": str, "edit_blocks": dict}


@dataclass(frozen=True)
class Overlay:
    """One overlay file.

    Attributes:
        name: its name on the command line.
        file: the file that it was read from.
        content: the keys that are merged.
        description: what it does.
        bases: the bases that it fits, in words.
        fits: the conditions that the configuration must meet.
        kind: at most one overlay of a kind may be used; empty for no limit.
        edit_blocks: by class name, new keywords of the context blocks, or None to remove them.
    """

    name: str
    file: str
    content: dict[str, Any]
    description: str = ""
    bases: str = ""
    fits: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    edit_blocks: dict[str, dict[str, Any] | None] = field(default_factory=dict)

    def mismatches(self, cfg: CfgNode, *, blocks: bool = True) -> list[str]:
        """Return the conditions that ``cfg`` does not meet, in words; an empty list if it fits.

        Args:
            cfg: a configuration.
            blocks: whether the conditions on context blocks count.
        """
        return [
            words
            for condition, wanted in self.fits.items()
            if (blocks or not condition.endswith("BLOCKS"))
            and (words := _mismatch(cfg, condition, wanted))
        ]

    def applied(self, cfg: CfgNode) -> CfgNode:
        """Return a copy of ``cfg`` with this overlay merged into it."""
        cfg = cfg.clone()
        merge_content(cfg, copy.deepcopy(self.content), self.file)
        self.edit(cfg)
        return cfg

    def edit(self, cfg: CfgNode) -> bool:
        """Edit the context blocks of ``cfg`` in place; return whether this changes them."""
        changed = False
        for key in block_lists(cfg) if self.edit_blocks else ():
            section, _, name = key.rpartition(".")
            edited = []
            for entry, spec in zip(find_value(cfg, key), read_blocks(cfg, key), strict=True):
                change = self.edit_blocks.get(spec.block, self.edit_blocks.get("any", {}))
                if change is not None:
                    edited.append({**entry, **change})
            parent = find_value(cfg, section)
            changed |= edited != list(parent[name])
            parent[name] = edited
        return changed


def overlay_folder(config_file: str) -> Path:
    """Return the ``overlays`` folder of the ``configs`` folder that holds ``config_file``.

    A file elsewhere uses the overlays of this project.
    """
    for parent in real_path(config_file).parents:
        if parent.name == "configs" and (parent / "overlays").is_dir():
            return parent / "overlays"
    return Path(__file__).resolve().parents[3] / "configs" / "overlays"


def read_overlays(folder: Path) -> dict[str, list[Overlay]]:
    """Return the overlays in a folder by name, each with its files for different bases."""
    return {name: _read_overlay(folder, name) for name in _overlay_names(folder)}


def apply_overlays(cfg: CfgNode, names: Sequence[str], config_file: str) -> CfgNode:
    """Return ``cfg`` with overlays merged into it, in the order given.

    Args:
        cfg: the configuration of ``config_file``; not modified.
        names: names in ``configs/overlays``, or paths of YAML files.
        config_file: the base, for messages and to find the overlays.

    Raises:
        UserError: an overlay does not exist, does not fit the base, changes nothing, is undone by
        a later one, or is the second one of its kind.
    """
    if not names:
        return cfg
    folder = overlay_folder(config_file)
    used: list[Overlay] = []
    first, base = cfg, config_file
    for name in names:
        _check_name(cfg, name, folder, used)
        used.append(_choose(cfg, _read_overlay(folder, name), name, base, folder, used))
        cfg = used[-1].applied(cfg)
        base = f"{config_file} with {','.join(o.name for o in used)}"
    for overlay in used:
        others = first
        for other in used:
            others = others if other is overlay else other.applied(others)
        _check_with_others(overlay, others, cfg, names, config_file, folder)
    return cfg


def overlay_files(names: Sequence[str], config_file: str) -> list[str]:
    """Return the files of overlays, of each overlay those for all kinds of bases."""
    folder = overlay_folder(config_file)
    return [overlay.file for name in names for overlay in _read_overlay(folder, name)]


def _check_with_others(
    overlay: Overlay,
    others: CfgNode,
    cfg: CfgNode,
    names: Sequence[str],
    config_file: str,
    folder: Path,
) -> None:
    """Raise a UserError if the other overlays undo an overlay or make it unsuitable.

    Args:
        overlay: one of the overlays.
        others: the configuration with all overlays but this one.
        cfg: the configuration with all overlays.
        names: the overlays of the command line.
        config_file: the base, for the message.
        folder: the folder of the overlays.
    """
    if used_values(others) == used_values(cfg):
        raise UserError(
            f"--with {overlay.name} has no effect on {config_file}: the overlays after it in "
            f"{','.join(names)} replace what it changes; remove one of them"
        )
    mismatches = overlay.mismatches(others, blocks=False)
    if mismatches:
        raise UserError(
            f"--with {overlay.name} does not fit {config_file} with the other overlays in "
            f"{','.join(names)}: {' and '.join(mismatches)}; remove one of them"
        )
    fitting = [o for o in _read_overlay(folder, overlay.name) if not o.mismatches(others)]
    _check_unambiguous(fitting, overlay.name, f"{config_file} with {','.join(names)}")
    if overlay.edit(cfg.clone()):
        raise UserError(
            f"--with {overlay.name}: a later overlay in {','.join(names)} replaces the context "
            f"blocks that it edits; put {overlay.name} last"
        )


def _check_name(cfg: CfgNode, name: str, folder: Path, used: list[Overlay]) -> None:
    """Raise a UserError if a name is not that of an overlay; a path is checked when it is read.

    The message has the most similar names, or else the overlays that fit.
    """
    known = _overlay_names(folder)
    if is_overlay_path(name) or name in known:
        return
    if not known:
        raise UserError(
            f"--with {name}: there is no folder {folder}, because an installed package does not "
            "include the overlays of this project; use a --config-file in a clone of the project, "
            "or give the path of a YAML file, e.g. --with ./mine.yaml"
        )
    default = (
        "; R = 2 is the default of criss-cross attention, so leave it out"
        if name.lower() == "r2"
        else ""
    )
    near = "" if default else suggestion(name, known, listed=0)
    hint = near or f"{default}{_fitting_overlays(cfg, folder, used)}"
    raise UserError(f"--with {name}: there is no such overlay in {folder}{hint}")


def _fitting_overlays(cfg: CfgNode, folder: Path, used: list[Overlay]) -> str:
    """Return the end of a message that lists the overlays that can be applied to ``cfg``."""
    fitting = [
        name
        for name, files in read_overlays(folder).items()
        if any(not o.mismatches(cfg) and not _refusal(cfg, o, used) for o in files)
    ]
    return f"; overlays that fit: {', '.join(fitting)}" if fitting else "; no overlay fits"


def _overlay_names(folder: Path) -> list[str]:
    """Return the names of the overlays in a folder."""
    paths = (p for p in folder.glob("*") if p.suffix == ".yaml" or any(p.glob("*.yaml")))
    names = {p.stem for p in paths}
    return sorted(names, key=str.lower)


def _read_overlay(folder: Path, name: str) -> list[Overlay]:
    """Return the files of an overlay: one, or one for each kind of base.

    Raises:
        UserError: there is no such overlay or file, or a file is not an overlay.
    """
    known = _overlay_names(folder)
    if is_overlay_path(name):
        stem = Path(name).stem
        if "/" not in name and stem in known and not Path(name).exists():
            raise UserError(
                f"--with {name} does not exist; did you mean {stem}, the overlay in {folder}?"
            )
        return [_read(name, existing_file(name, "--with"))]
    files = [folder / f"{name}.yaml", *sorted((folder / name).glob("*.yaml"))]
    return [_read(name, str(file)) for file in files if file.is_file()]


def _read(name: str, file: str) -> Overlay:
    """Read one overlay file."""
    content = read_config_file(file, keep_overlay=True)
    about = content.pop(OVERLAY_KEY, None)
    about = {} if about is None else about
    if not isinstance(about, dict):
        raise UserError(
            f"{file}: {OVERLAY_KEY} must be a mapping with the fields {', '.join(_FIELDS)}, "
            f"not {shown(about)}"
        )
    for key, value in about.items():
        if key not in _FIELDS:
            raise UserError(
                f"{file}: {OVERLAY_KEY} has no field {key}{suggestion(str(key), list(_FIELDS))}"
            )
        if not isinstance(value, _FIELDS[key]):
            raise UserError(f"{file}: {OVERLAY_KEY} {key} must be a {_FIELDS[key].__name__}")
    edits = about.get("edit_blocks", {})
    for field_name in ("fits", "edit_blocks"):
        for key in about.get(field_name, {}):
            if not isinstance(key, str):
                raise UserError(f"{file}: a key in {field_name} must be a string, not {shown(key)}")
    for block, change in edits.items():
        if change is not None and not (
            isinstance(change, dict) and all(isinstance(key, str) for key in change)
        ):
            raise UserError(
                f"{file}: edit_blocks must give new keywords {{name: value}} for {block}, or null "
                f"to remove these blocks, not {shown(change)}"
            )
    return Overlay(
        name,
        file,
        content,
        description=about.get("description", ""),
        bases=about.get("for", ""),
        fits=about.get("fits", {}),
        kind=about.get("kind", ""),
        edit_blocks=edits,
    )


def _choose(
    cfg: CfgNode,
    candidates: list[Overlay],
    name: str,
    base: str,
    folder: Path,
    used: list[Overlay],
) -> Overlay:
    """Return the file of an overlay that fits ``cfg``, or raise the error that says why not."""
    fitting = [overlay for overlay in candidates if not overlay.mismatches(cfg)]
    _check_unambiguous(fitting, name, base)
    refusal = _refusal(cfg, fitting[0], used) if fitting else ""
    if fitting and not refusal:
        return fitting[0]
    for other in used:
        if fitting and fitting[0].kind and fitting[0].kind == other.kind:
            raise UserError(
                f"--with {other.name},{name}: both overlays change the {other.kind}; use only one "
                "of them"
            )
    listed = _fitting_overlays(cfg, folder, used)
    if fitting:
        raise UserError(f"--with {name} {refusal.format(base=base)}{listed}")
    bases = " or ".join(o.bases for o in candidates if o.bases)
    closest = min((o.mismatches(cfg) for o in candidates), key=len, default=[])
    raise UserError(
        f"--with {name} does not fit {base}: "
        + (f"it is for {bases}, but " if bases else "")
        + " and ".join(closest)
        + listed
    )


def _check_unambiguous(fitting: list[Overlay], name: str, base: str) -> None:
    """Raise a UserError if several files of one overlay fit a configuration."""
    if len(fitting) > 1:
        files = " or ".join(overlay.file for overlay in fitting)
        raise UserError(
            f"--with {name} is ambiguous on {base}, because several of its files fit; "
            f"give the path of one: {files}"
        )


def _refusal(cfg: CfgNode, overlay: Overlay, used: list[Overlay]) -> str:
    """Return why an overlay whose conditions are met cannot be applied; empty if it can.

    The text completes a sentence about the overlay; ``{base}`` stands for the base.
    """
    for other in used:
        if overlay.kind and overlay.kind == other.kind:
            return (
                f"does not fit {{base}}: {other.name} is a {overlay.kind} overlay as well, and "
                "only one can be used"
            )
    after = overlay.applied(cfg)
    if not semantic_head(after):
        before = all_values(cfg)
        for key, value in all_values(after).items():
            if key.startswith("MODEL.SEM_SEG_HEAD.") and value != before[key]:
                return f"does not fit {{base}}: it sets {key}, but the model has no semantic head"
    if used_values(cfg) == used_values(after):
        return "has no effect on {base}: it would change nothing that the model uses"
    return ""


def _mismatch(cfg: CfgNode, condition: str, wanted: Any) -> str:
    """Return in words how ``cfg`` fails a condition; empty if it meets it."""
    allowed = wanted if isinstance(wanted, list) else [wanted]
    if condition == "ARCHITECTURE":
        name = architecture(cfg)
        return "" if name in allowed else f"the architecture is {name}"
    if condition == "HEAD":
        name = semantic_head(cfg)
        actual = f"the semantic head is {name}" if name else "the model has no semantic head"
        return "" if name in allowed else actual
    if condition == "BLOCKS":
        blocks = [spec.block for key in block_lists(cfg) for spec in read_blocks(cfg, key)]
        fits = any(block in allowed for block in blocks) if allowed else not blocks
        described = f"only {', '.join(map(str, blocks))}" if blocks else "no context block"
        return "" if fits else f"the model has {described}"
    where = f"in the conditions of an {OVERLAY_KEY}"
    check_key(cfg, condition, where)
    check_no_section(cfg, condition, where)
    value = find_value(cfg, condition)
    values = list(value) if isinstance(value, list | tuple) else [value]
    return "" if all(v in allowed for v in values) else f"{condition} is {value!r}"
