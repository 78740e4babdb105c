"""Overlays: small configuration files that ``--with A,B`` applies on top of a base configuration.

An overlay is a file ``configs/overlays/NAME.yaml``, a folder ``configs/overlays/NAME/`` with one
file for each kind of base, or a YAML file of the user, given by its path. Its top-level key
``_OVERLAY_`` describes it and is removed before the rest is merged:

* ``description``: what the overlay does, one sentence.
* ``for``: the bases that it fits, in words.
* ``fits``: conditions that the configuration must meet. A key is a configuration key or one of
  ``ARCHITECTURE`` (the meta-architecture, without ContextModel around it), ``HEAD`` (the semantic
  head, if the architecture has one) and ``BLOCKS`` (the classes of the context blocks). A value is
  the required value, or a list of values of which one must match.
* ``kind``: at most one overlay of a kind may be used, e.g. one backbone or one block.
* ``edit_blocks``: new keywords for the context blocks of a class; ``null`` removes these blocks,
  and the class ``any`` stands for all of them. Unlike a key, it keeps the location of a block.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode

from ccsa.engine.config_files import (
    OVERLAY_KEY,
    check_key,
    existing_file,
    merge_content,
    read_config_file,
)
from ccsa.errors import UserError, suggestion

# Meta-architectures of Detectron2 that ignore MODEL.SEM_SEG_HEAD.
_WITHOUT_SEMANTIC_HEAD = ("GeneralizedRCNN", "ProposalNetwork", "RetinaNet", "FCOS")
_FIELDS = {"description": str, "for": str, "fits": dict, "kind": str, "edit_blocks": dict}


@dataclass(frozen=True)
class Overlay:
    """One overlay file.

    Attributes:
        name: its name on the command line.
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

    def mismatches(self, cfg: CfgNode) -> list[str]:
        """Return the conditions that ``cfg`` does not meet, in words; an empty list if it fits."""
        return [
            words
            for condition, wanted in self.fits.items()
            if (words := _mismatch(cfg, condition, wanted))
        ]

    def applied(self, cfg: CfgNode) -> CfgNode:
        """Return a copy of ``cfg`` with this overlay merged into it."""
        cfg = cfg.clone()
        merge_content(cfg, copy.deepcopy(self.content), self.file)
        for key in block_lists(cfg):
            parent, name = _parent(cfg, key)
            parent[name] = _edited(parent[name], self.edit_blocks)
        return cfg


def overlay_folder(config_file: str) -> Path:
    """Return the ``overlays`` folder of the ``configs`` folder that holds ``config_file``.

    A file elsewhere uses the overlays of this project.
    """
    for parent in Path(config_file).resolve().parents:
        if parent.name == "configs" and (parent / "overlays").is_dir():
            return parent / "overlays"
    return Path(__file__).resolve().parents[3] / "configs" / "overlays"


def read_overlays(folder: Path) -> dict[str, list[Overlay]]:
    """Return the overlays in a folder by name, each with its files for different bases."""
    names = {p.stem for p in folder.glob("*") if p.is_dir() or p.suffix == ".yaml"}
    return {name: _read_overlay(folder, name) for name in sorted(names, key=str.lower)}


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
        candidates = _read_overlay(folder, name)
        if not candidates:
            known = list(read_overlays(folder))
            hint = suggestion(name, known, listed=len(known))
            raise UserError(f"--with {name}: there is no such overlay in {folder}{hint}")
        used.append(_choose(cfg, candidates, name, base, folder, used))
        cfg = used[-1].applied(cfg)
        base = f"{config_file} with {','.join(o.name for o in used)}"
    for overlay in used[:-1]:
        others = first
        for other in used:
            others = others if other is overlay else other.applied(others)
        if others == cfg:
            raise UserError(
                f"--with {overlay.name} has no effect on {config_file}: the overlays after it in "
                f"{','.join(names)} replace what it changes; remove one of them"
            )
    return cfg


def overlay_files(names: Sequence[str], config_file: str) -> list[str]:
    """Return the files of overlays, of each overlay those for all kinds of bases."""
    folder = overlay_folder(config_file)
    return [overlay.file for name in names for overlay in _read_overlay(folder, name)]


def block_lists(cfg: CfgNode) -> list[str]:
    """Return the keys of the lists of context blocks that the model of ``cfg`` uses."""
    keys = ["MODEL.CONTEXT.BLOCKS"] if cfg.MODEL.META_ARCHITECTURE == "ContextModel" else []
    head = semantic_head(cfg)
    if head == "SANetHead":
        keys.append("MODEL.SEM_SEG_HEAD.SANET.BLOCKS")
    elif head in ("CCNetHead", "VideoCCNetHead"):
        keys.append("MODEL.SEM_SEG_HEAD.BLOCKS")
    return keys


def architecture(cfg: CfgNode) -> str:
    """Return the name of the meta-architecture, without ContextModel around it."""
    name = cfg.MODEL.META_ARCHITECTURE
    return cfg.MODEL.CONTEXT.META_ARCHITECTURE if name == "ContextModel" else name


def semantic_head(cfg: CfgNode) -> str:
    """Return the name of the semantic head that the model uses; empty if it uses none."""
    return "" if architecture(cfg) in _WITHOUT_SEMANTIC_HEAD else cfg.MODEL.SEM_SEG_HEAD.NAME


def _read_overlay(folder: Path, name: str) -> list[Overlay]:
    """Return the files of an overlay: one, or one for each kind of base; none if it is unknown."""
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return [_read(Path(name).stem, name)]
    files = [folder / f"{name}.yaml", *sorted((folder / name).glob("*.yaml"))]
    return [_read(name, str(file)) for file in files if file.is_file()]


def _read(name: str, file: str) -> Overlay:
    """Read one overlay file."""
    content = read_config_file(existing_file(file, "--with"), keep_overlay=True)
    about = content.pop(OVERLAY_KEY, None) or {}
    for key, value in about.items():
        if key not in _FIELDS:
            raise UserError(
                f"{file}: {OVERLAY_KEY} has no field {key}{suggestion(key, list(_FIELDS))}"
            )
        if not isinstance(value, _FIELDS[key]):
            raise UserError(f"{file}: {OVERLAY_KEY} {key} must be a {_FIELDS[key].__name__}")
    return Overlay(
        name,
        file,
        content,
        description=about.get("description", ""),
        bases=about.get("for", ""),
        fits=about.get("fits", {}),
        kind=about.get("kind", ""),
        edit_blocks=about.get("edit_blocks", {}),
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
    reasons = []
    for overlay in candidates:
        mismatches = overlay.mismatches(cfg)
        refusal = "" if mismatches else _refusal(cfg, overlay, used)
        if not mismatches and not refusal:
            return overlay
        reasons.append((len(mismatches), mismatches or [refusal]))
    bases = " or ".join(o.bases for o in candidates if o.bases)
    _, closest = min(reasons)
    others = [
        other
        for other, files in read_overlays(folder).items()
        if any(not o.mismatches(cfg) and not _refusal(cfg, o, used) for o in files)
    ]
    raise UserError(
        f"--with {name} does not fit {base}: "
        + (f"it is for {bases}, but " if bases else "")
        + " and ".join(closest)
        + (f"; overlays that fit: {', '.join(others)}" if others else "; no overlay fits")
    )


def _refusal(cfg: CfgNode, overlay: Overlay, used: list[Overlay]) -> str:
    """Return why an overlay whose conditions are met cannot be applied; empty if it can."""
    for other in used:
        if overlay.kind and overlay.kind == other.kind:
            return f"{other.name} is a {overlay.kind} overlay as well, and only one can be used"
    if not _changes(cfg, overlay.applied(cfg)):
        return "there is nothing that it would change"
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
        blocks = [spec.get("block") for key in block_lists(cfg) for spec in _value(cfg, key)]
        fits = any(block in allowed for block in blocks) if allowed else not blocks
        described = f"only {', '.join(map(str, blocks))}" if blocks else "no context block"
        return "" if fits else f"the model has {described}"
    check_key(cfg, condition, f"in the conditions of an {OVERLAY_KEY}")
    value = _value(cfg, condition)
    values = list(value) if isinstance(value, list | tuple) else [value]
    return "" if all(v in allowed for v in values) else f"{condition} is {value!r}"


def _edited(blocks: list[Any], edits: dict[str, dict[str, Any] | None]) -> list[Any]:
    """Return the list of blocks with the edits of an overlay."""
    edited = []
    for spec in blocks:
        name = spec.get("block") if isinstance(spec, dict) else None
        change = edits.get(str(name), edits.get("any", {}))
        if change is not None:
            edited.append({**spec, **change} if change else spec)
    return edited


def _changes(before: CfgNode, after: CfgNode, prefix: str = "") -> dict[str, Any]:
    """Return the keys whose values differ, with the values after."""
    found: dict[str, Any] = {}
    for key, value in after.items():
        if isinstance(value, CfgNode):
            found |= _changes(before[key], value, f"{prefix}{key}.")
        elif before[key] != value:
            found[f"{prefix}{key}"] = value
    return found


def _parent(cfg: CfgNode, key: str) -> tuple[CfgNode, str]:
    *parents, name = key.split(".")
    for part in parents:
        cfg = cfg[part]
    return cfg, name


def _value(cfg: CfgNode, key: str) -> Any:
    parent, name = _parent(cfg, key)
    return parent[name]
