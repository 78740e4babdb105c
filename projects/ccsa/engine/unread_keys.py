"""Keys that the user wrote although nothing in the run reads them.

A model, an optimizer and a mapper are built from a copy of the configuration that records which
keys are read. Keys that are read elsewhere, or only later, do not count as covered, so that a
report is never wrong about a key that has an effect.
"""

from collections.abc import Collection, Iterable
from typing import Any

from detectron2.config import CfgNode, get_cfg

from ccsa.config import add_ccsa_config
from ccsa.engine.config_values import find_value
from ccsa.engine.model_parts import WITHOUT_PANOPTIC, all_values, architecture
from ccsa.modeling.clip import takes_clips

_MOST_NAMES = 8  # of keys in a message

# Sections of which every key is read while the parts of a run are built, and keys in them that are
# read elsewhere: by the trainer, the loaders, the checkpointer, or closures that run later.
_MODEL = ("MODEL.",)
_TRAINING = (
    *("SOLVER.", "INPUT.CROP.", "INPUT.SEM_SEG.", "INPUT.MIN_SIZE_TRAIN", "INPUT.MAX_SIZE_TRAIN"),
    *("INPUT.RANDOM_FLIP", "VIS_PERIOD"),
)
_ELSEWHERE = (
    *("MODEL.DEVICE", "MODEL.WEIGHTS", "MODEL.CHANNELS_LAST", "MODEL.COMPILE", "MODEL.EMA."),
    *(
        "MODEL.MASK_ON",
        "MODEL.KEYPOINT_ON",
        "MODEL.LOAD_PROPOSALS",
        "MODEL.PIXEL_",
        "MODEL.CONTEXT.",
    ),
    *("MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE", "SOLVER.MAX_ITER"),
    *("SOLVER.CHECKPOINT_", "SOLVER.IMS_PER_BATCH", "SOLVER.REFERENCE_WORLD_SIZE"),
    *("SOLVER.AMP.", "SOLVER.ACCUMULATE", "SOLVER.EARLY_STOPPING.", "SOLVER.CLIP_GRADIENTS."),
)


class _Reads(set[str]):
    """The keys that were read; copies of a configuration share it."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "_Reads":
        return self


class _Recorder(CfgNode):
    """A section that records which of its values are read, by attribute or by index."""

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if not isinstance(value, CfgNode):
            self.__dict__["_reads"].add(self.__dict__["_prefix"] + key)
        return value


def recorded(cfg: CfgNode) -> tuple[CfgNode, set[str]]:
    """Return a copy of a configuration, and the set of dotted keys that are read from it or from
    its copies.

    Example:
        >>> cfg, reads = recorded(CfgNode({"SOLVER": {"MAX_ITER": 7, "BASE_LR": 0.1}}))
        >>> cfg.clone().SOLVER.MAX_ITER, reads
        (7, {'SOLVER.MAX_ITER'})
    """
    reads = _Reads()

    def copied(node: CfgNode, prefix: str) -> _Recorder:
        copy = _Recorder()
        copy.__dict__.update(_reads=reads, _prefix=prefix)
        for key, value in node.items():
            section = isinstance(value, CfgNode)
            dict.__setitem__(copy, key, copied(value, f"{prefix}{key}.") if section else value)
        return copy

    return copied(cfg, ""), reads


def without_effect(
    cfg: CfgNode, written: Iterable[str], reads: Collection[str], *, training: bool
) -> list[str]:
    """Return sentences about keys that the user changed although they have no effect.

    Args:
        cfg: the configuration of the run.
        written: the keys that the user wrote.
        reads: those that were read while the model and, for training, the optimizer, the schedule
            and the mapper were built.
        training: whether the run trains.
    """
    defaults = get_cfg()
    add_ccsa_config(defaults)
    known, values = all_values(defaults), all_values(cfg)
    changed = [key for key in sorted(written) if key in known and known[key] != values[key]]
    off: dict[str, list[str]] = {}
    for key in changed:
        switch = _switch(cfg, key)
        if switch:
            off.setdefault(switch, []).append(key)
    covered = _MODEL + (_TRAINING if training else ())
    disabled = {key for keys in off.values() for key in keys}
    unread = [
        key
        for key in changed
        if key.startswith(covered)
        and not key.startswith(_ELSEWHERE)
        and key not in reads
        and key not in disabled
    ]
    sentences = [f"{_listed(keys)}, because {switch}" for switch, keys in off.items()]
    if unread:
        sentences.append(f"{_listed(unread)}, because no part of this run uses it")
    return sentences


def _switch(cfg: CfgNode, key: str) -> str:
    """Return the setting that turns a key off, e.g. "TEST.AUG.ENABLED is False"; empty if none."""
    section, _, name = key.rpartition(".")
    while section:
        node = find_value(cfg, section)
        if name != "ENABLED" and node.get("ENABLED") is False:
            return f"{section}.ENABLED is False"
        section, _, name = section.rpartition(".")
    sampler = cfg.DATALOADER.SAMPLER_TRAIN
    if key == "DATALOADER.REPEAT_THRESHOLD" and sampler == "TrainingSampler":
        return f"DATALOADER.SAMPLER_TRAIN is {sampler}"
    test = cfg.TEST
    if key == "TEST.SEM_SEG_AVERAGE" and not (test.TILES.ENABLED or test.SEM_SEG_AUG.ENABLED):
        return "TEST.TILES.ENABLED and TEST.SEM_SEG_AUG.ENABLED are False"
    if key == "TEST.KEYPOINT_OKS_SIGMAS" and not cfg.MODEL.KEYPOINT_ON:
        return "MODEL.KEYPOINT_ON is False"
    proposals = ("DATASETS.PROPOSAL_FILES", "DATASETS.PRECOMPUTED_PROPOSAL")
    if key.startswith(proposals) and not cfg.MODEL.LOAD_PROPOSALS:
        return "MODEL.LOAD_PROPOSALS is False"
    if key.startswith("INPUT.CLIP.") and not takes_clips(cfg):
        return "the model takes images, not clips"
    if key == "TEST.PANOPTIC_FILES" and architecture(cfg) in WITHOUT_PANOPTIC:
        return "the model has no panoptic segmentation"
    if key == "TEST.BOUNDARY_AP" and not cfg.MODEL.MASK_ON:
        return "the model has no masks of instances"
    if key == "GLOBAL.HACK":
        return "Detectron2 does not use it"
    if key.startswith("DATASETS.OWN.") and not cfg.DATASETS.OWN.ROOT:
        return "DATASETS.OWN.ROOT is empty"
    return ""


def _listed(keys: list[str]) -> str:
    names = ", ".join(keys[:_MOST_NAMES])
    more = len(keys) - _MOST_NAMES
    names += f" and {more} more keys" if more > 0 else ""
    return f"{names} {'has' if len(keys) == 1 else 'have'} no effect"
