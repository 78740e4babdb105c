"""The parts of the model that a configuration describes, and the keys that these parts use."""

from typing import Any

from detectron2.config import CfgNode

from ccsa.blocks.spec import BlockSpec, parse_block_spec
from ccsa.engine.config_values import find_value
from ccsa.errors import UserError, shown

# Meta-architectures of Detectron2 that ignore MODEL.SEM_SEG_HEAD.
_WITHOUT_SEMANTIC_HEAD = ("GeneralizedRCNN", "ProposalNetwork", "RetinaNet", "FCOS")

WITHOUT_PANOPTIC = (*_WITHOUT_SEMANTIC_HEAD, "DenseSegmentor", "VideoSemanticSegmentor")
"""Meta-architectures without a panoptic segmentation."""

# Sections and lists of MODEL.SEM_SEG_HEAD that only some heads use, and the known heads that do.
# A head of the user is not listed and may use all of them.
_HEAD_KEYS = {
    "CCNetHead": ("BLOCKS", "AUX", "CCL", "OHEM"),
    "VideoCCNetHead": ("BLOCKS", "AUX", "CCL", "OHEM"),
    "SANetHead": ("SANET", "OHEM"),
    "FCNHead": ("AUX", "OHEM"),
    "SemSegFPNHead": (),
}
_SPECIAL_HEAD_KEYS = {key for keys in _HEAD_KEYS.values() for key in keys}


def architecture(cfg: CfgNode) -> str:
    """Return the name of the meta-architecture, without ContextModel around it."""
    name = cfg.MODEL.META_ARCHITECTURE
    return cfg.MODEL.CONTEXT.META_ARCHITECTURE if name == "ContextModel" else name


def semantic_head(cfg: CfgNode) -> str:
    """Return the name of the semantic head that the model uses; empty if it uses none."""
    return "" if architecture(cfg) in _WITHOUT_SEMANTIC_HEAD else cfg.MODEL.SEM_SEG_HEAD.NAME


def block_lists(cfg: CfgNode) -> list[str]:
    """Return the keys of the lists of context blocks that the model of ``cfg`` uses."""
    keys = ["MODEL.CONTEXT.BLOCKS"] if cfg.MODEL.META_ARCHITECTURE == "ContextModel" else []
    head = semantic_head(cfg)
    if head == "SANetHead":
        keys.append("MODEL.SEM_SEG_HEAD.SANET.BLOCKS")
    elif head in ("CCNetHead", "VideoCCNetHead"):
        keys.append("MODEL.SEM_SEG_HEAD.BLOCKS")
    return keys


def read_blocks(cfg: CfgNode, key: str) -> list[BlockSpec]:
    """Return the parsed context blocks of one of the lists of :func:`block_lists`.

    Raises:
        UserError: the value is not a list of block specifications.
    """
    blocks = find_value(cfg, key)
    if not isinstance(blocks, list | tuple):
        raise UserError(
            f"{key} must be a list of context blocks, not {shown(blocks)}; [] means none"
        )
    placed = key == "MODEL.CONTEXT.BLOCKS"
    try:
        return [parse_block_spec(spec, placed=placed) for spec in blocks]
    except UserError as error:
        raise UserError(f"{key}: {error}") from error


def used_values(cfg: CfgNode) -> dict[str, Any]:
    """Return the values of all keys but those that the model is known not to use, by dotted key.

    The keys of blocks, semantic heads and timm backbones are left out where the model has no such
    part. A key that no rule covers counts as used.
    """
    head, backbone = semantic_head(cfg), cfg.MODEL.BACKBONE.NAME
    unused = [] if cfg.MODEL.META_ARCHITECTURE == "ContextModel" else ["MODEL.CONTEXT."]
    if "resnet" in backbone:
        unused.append("MODEL.TIMM.")
    if not head:
        unused.append("MODEL.SEM_SEG_HEAD.")
    else:
        names = _SPECIAL_HEAD_KEYS.difference(_HEAD_KEYS.get(head, _SPECIAL_HEAD_KEYS))
        unused += [f"MODEL.SEM_SEG_HEAD.{name}." for name in names]
    values = all_values(cfg)
    return {k: v for k, v in values.items() if not f"{k}.".startswith(tuple(unused))}


def all_values(cfg: CfgNode, prefix: str = "") -> dict[str, Any]:
    """Return the values of all keys by dotted key."""
    values: dict[str, Any] = {}
    for key, value in cfg.items():
        if isinstance(value, CfgNode):
            values |= all_values(value, f"{prefix}{key}.")
        else:
            values[f"{prefix}{key}"] = value
    return values
