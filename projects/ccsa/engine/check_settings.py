"""Settings of ``tools/check_dataset.py``: from a configuration, or from single keys."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from detectron2.config import CfgNode, get_cfg

from ccsa.config import add_ccsa_config
from ccsa.data.checks.own import natural_kind
from ccsa.data.folder import FolderDataset
from ccsa.data.image_reader import Range, intensity_range
from ccsa.data.own import Source, label_mapping, source_of
from ccsa.data.problems import check_allowed
from ccsa.data.statistics import training_intensities
from ccsa.data.tasks import TaskData
from ccsa.engine.config_values import merge_options
from ccsa.engine.data_settings import model_kind
from ccsa.engine.dataset_checks import needs_masks
from ccsa.engine.setup import merged_cfg
from ccsa.errors import UserError
from ccsa.utils.run_folders import overlay_names

# Keys that a check uses without the configuration of a model.
KEYS = ("DATASETS.ALLOW", "DATASETS.LABEL_MAPPING", "INPUT.INTENSITY_RANGE")
_KEY = re.compile(r"[A-Z][A-Z0-9_]*\.[A-Z0-9_.]+")


def split_words(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Divide words of a command line into names of datasets, and KEY VALUE pairs after them.

    Example:
        >>> split_words(["digits_train", "INPUT.INTENSITY_RANGE", "[0, 10]"])
        (['digits_train'], ['INPUT.INTENSITY_RANGE', '[0, 10]'])
    """
    count = next((i for i, word in enumerate(words) if _KEY.fullmatch(word)), len(words))
    return list(words[:count]), list(words[count:])


def check_cfg(args: argparse.Namespace) -> CfgNode:
    """Return the configuration of a check: that of ``--config-file``, or the defaults, with KEY
    VALUE pairs.

    Nothing is derived from the data, so that a check also reports data that no run can be set up
    for.

    Args:
        args: ``config_file``, ``overlays`` and ``opts``.

    Raises:
        UserError: a file or a key is wrong, or a key has no effect without a configuration.
    """
    if args.config_file:
        cfg = merged_cfg(args)
    else:
        if overlay_names(args):
            raise UserError(f"--with {','.join(overlay_names(args))} needs --config-file")
        cfg = get_cfg()
        add_ccsa_config(cfg)
        merge_options(cfg, args.opts)
        without_effect = [key for key in args.opts[::2] if key not in KEYS]
        if without_effect:
            raise UserError(
                f"{without_effect[0]} has no effect on a check without --config-file; name the "
                f"configuration of the training, or use {', '.join(KEYS)}"
            )
    check_allowed(cfg.DATASETS.ALLOW)
    intensity_range(cfg.INPUT.INTENSITY_RANGE)
    label_mapping(cfg)
    return cfg


def checked_source(args: argparse.Namespace, cfg: CfgNode) -> Source:
    """Return the user's data that is checked: that of ``--data``, or of the configuration of a run;
    ``data`` is empty if there is none."""
    recorded = source_of(cfg)
    if not args.data:
        return recorded
    places = (args.data, args.images, args.val, args.val_images)
    data, images, val, val_images = (
        str(Path(place).expanduser().absolute()) if place else "" for place in places
    )
    return Source(data, args.data_format, images, val, val_images, recorded.mapping)


def checked_kind(args: argparse.Namespace, cfg: CfgNode, data: FolderDataset) -> str:
    """Return the kind of model that the data is checked for: that of the configuration, or else the
    one that suits the data."""
    if not args.config_file:
        return natural_kind(data)
    return cfg.DATASETS.OWN.KIND or model_kind(cfg)


def masks_needed(args: argparse.Namespace, cfg: CfgNode) -> bool | None:
    """Whether the model needs masks of objects; None without a configuration."""
    return needs_masks(cfg) if args.config_file else None


def checked_range(cfg: CfgNode, task: TaskData) -> Range | None:
    """Return the range of intensities that training would use; None for images of 8 bits."""
    known = intensity_range(cfg.INPUT.INTENSITY_RANGE)
    if known:
        return known
    try:
        found = training_intensities(task)
    except UserError:  # an image cannot be read, which the check reports
        return None
    return found.range if found else None
