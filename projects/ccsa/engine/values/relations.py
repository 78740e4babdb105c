"""Conditions on the values of several keys.

Each function returns what is wrong, as one sentence that names the keys and the fix; empty if
nothing is. All values are valid for their own keys.
"""

from collections.abc import Callable

from detectron2.config import CfgNode

from ccsa.engine.model_parts import architecture, semantic_head
from ccsa.errors import shown
from ccsa.modeling.clip import takes_clips

_CHANNELS = {"RGB": 3, "BGR": 3, "L": 1}
_DETECTORS = ("GeneralizedRCNN", "PanopticFPN", "RetinaNet", "FCOS", "ProposalNetwork")


def _pixels(cfg: CfgNode) -> str:
    mean, std = cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD
    channels = _CHANNELS[cfg.INPUT.FORMAT]
    if len(mean) == len(std) == channels:
        return ""
    return (
        f"MODEL.PIXEL_MEAN has {len(mean)} values and MODEL.PIXEL_STD {len(std)}, but INPUT.FORMAT "
        f"{cfg.INPUT.FORMAT} has {channels} channels; give one value for each channel"
    )


def _training_sizes(cfg: CfgNode) -> str:
    keys = cfg.INPUT
    if keys.MIN_SIZE_TRAIN_SAMPLING == "range" and (
        len(keys.MIN_SIZE_TRAIN) != 2 or keys.MIN_SIZE_TRAIN[0] > keys.MIN_SIZE_TRAIN[1]
    ):
        return (
            "INPUT.MIN_SIZE_TRAIN must be [low, high] for INPUT.MIN_SIZE_TRAIN_SAMPLING range, not "
            f"{shown(list(keys.MIN_SIZE_TRAIN))}; give two sizes, or use the sampling choice"
        )
    if keys.SEM_SEG.SCALE_RANGE:  # replaces both keys
        return ""
    return _shorter_side("TRAIN", max(keys.MIN_SIZE_TRAIN), keys.MAX_SIZE_TRAIN)


def _test_sizes(cfg: CfgNode) -> str:
    return _shorter_side("TEST", cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)


def _shorter_side(split: str, shorter: int, longer: int) -> str:
    if shorter <= longer:
        return ""
    return (
        f"INPUT.MAX_SIZE_{split} {longer} is below INPUT.MIN_SIZE_{split} {shorter}, so that no "
        f"image would get that size; raise MAX_SIZE_{split} or lower MIN_SIZE_{split}"
    )


def _augmented_test_sizes(cfg: CfgNode) -> str:
    keys = cfg.TEST.AUG
    if not keys.ENABLED or max(keys.MIN_SIZES) <= keys.MAX_SIZE:
        return ""
    return (
        f"TEST.AUG.MAX_SIZE {keys.MAX_SIZE} is below TEST.AUG.MIN_SIZES {max(keys.MIN_SIZES)}, so "
        "that no image would get that size; raise MAX_SIZE or remove the size"
    )


def _semantic_inference(cfg: CfgNode) -> str:
    if cfg.TEST.SEM_SEG_AUG.ENABLED and architecture(cfg) in _DETECTORS:
        return (
            "TEST.SEM_SEG_AUG.ENABLED True is for models of semantic segmentation, and "
            f"{architecture(cfg)} is not one; set it to False, or for GeneralizedRCNN use "
            "TEST.AUG.ENABLED True"
        )
    return ""


def _tiles(cfg: CfgNode) -> str:
    for name in ("INPUT", "TEST"):
        keys = cfg[name].TILES
        sizes = zip(keys.SIZE, keys.OVERLAP, strict=True)
        if keys.ENABLED and any(overlap >= size for size, overlap in sizes):
            return (
                f"{name}.TILES.OVERLAP {list(keys.OVERLAP)} must be smaller than "
                f"{name}.TILES.SIZE {list(keys.SIZE)}; lower it"
            )
    if cfg.INPUT.TILES.ENABLED:
        for key, on in (
            ("MODEL.KEYPOINT_ON True", cfg.MODEL.KEYPOINT_ON),
            ("MODEL.LOAD_PROPOSALS True", cfg.MODEL.LOAD_PROPOSALS),
            ("a model that takes clips", takes_clips(cfg)),
        ):
            if on:
                return f"INPUT.TILES.ENABLED True is not possible with {key}; set it to False"
    return ""


def _crop(cfg: CfgNode) -> str:
    keys = cfg.INPUT.CROP
    size = list(keys.SIZE)
    if not keys.ENABLED:
        return ""
    if keys.TYPE.startswith("relative") and max(size) > 1:
        return (
            f"INPUT.CROP.SIZE must be fractions of at most 1 for INPUT.CROP.TYPE {keys.TYPE}, not "
            f"{size}; use TYPE absolute for a size in pixels"
        )
    if keys.TYPE.startswith("absolute") and any(n != int(n) for n in size):
        return (
            f"INPUT.CROP.SIZE must be whole pixels for INPUT.CROP.TYPE {keys.TYPE}, not {size}; "
            "use TYPE relative for fractions of the image"
        )
    if keys.TYPE == "absolute_range" and size[0] > size[1]:
        return (
            f"INPUT.CROP.SIZE must be [low, high] for INPUT.CROP.TYPE absolute_range, not {size}; "
            "exchange the values"
        )
    return ""


def _matchers(cfg: CfgNode) -> str:
    for name in ("RPN", "ROI_HEADS", "RETINANET"):
        keys = cfg.MODEL[name]
        thresholds, labels = len(keys.IOU_THRESHOLDS), len(keys.IOU_LABELS)
        if labels != thresholds + 1:
            return (
                f"MODEL.{name}.IOU_LABELS has {labels} values and MODEL.{name}.IOU_THRESHOLDS "
                f"{thresholds}, but there is one label more than thresholds; correct one of them"
            )
    return ""


def _cascade(cfg: CfgNode) -> str:
    keys = cfg.MODEL.ROI_BOX_CASCADE_HEAD
    if cfg.MODEL.ROI_HEADS.NAME != "CascadeROIHeads" or len(keys.IOUS) == len(
        keys.BBOX_REG_WEIGHTS
    ):
        return ""
    return (
        f"MODEL.ROI_BOX_CASCADE_HEAD has {len(keys.IOUS)} IOUS and {len(keys.BBOX_REG_WEIGHTS)} "
        "BBOX_REG_WEIGHTS; give one of each for every stage"
    )


def _class_weights(cfg: CfgNode) -> str:
    keys = cfg.MODEL.SEM_SEG_HEAD
    weights = keys.CLASS_WEIGHTS
    if not weights or not semantic_head(cfg):
        return ""
    if len(weights) != keys.NUM_CLASSES:
        return (
            f"MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS has {len(weights)} values, but NUM_CLASSES is "
            f"{keys.NUM_CLASSES}; give one weight per class, or remove the key"
        )
    if not any(weights):
        return (
            "MODEL.SEM_SEG_HEAD.CLASS_WEIGHTS are all 0, so that nothing would be trained; give a "
            "weight above 0, or remove the key"
        )
    return ""


def _momentum(cfg: CfgNode) -> str:
    keys = cfg.SOLVER
    if keys.OPTIMIZER == "SGD" and keys.NESTEROV and not keys.MOMENTUM:
        return "SOLVER.NESTEROV True needs SOLVER.MOMENTUM above 0, but it is 0; set it, e.g. 0.9"
    return ""


def _final_rate(cfg: CfgNode) -> str:
    keys = cfg.SOLVER
    if keys.LR_SCHEDULER_NAME == "WarmupCosineLR" and keys.BASE_LR_END > keys.BASE_LR:
        return (
            f"SOLVER.BASE_LR_END {keys.BASE_LR_END} is above SOLVER.BASE_LR {keys.BASE_LR}, but "
            "WarmupCosineLR lowers the learning rate; lower BASE_LR_END"
        )
    return ""


def _accumulation(cfg: CfgNode) -> str:
    keys = cfg.SOLVER
    if keys.ACCUMULATE <= keys.IMS_PER_BATCH:
        return ""
    return (
        f"SOLVER.ACCUMULATE {keys.ACCUMULATE} divides a batch of SOLVER.IMS_PER_BATCH "
        f"{keys.IMS_PER_BATCH} images into more parts than it has images; lower ACCUMULATE or "
        "raise IMS_PER_BATCH"
    )


def _early_stopping(cfg: CfgNode) -> str:
    if not cfg.SOLVER.EARLY_STOPPING.ENABLED or 0 < cfg.TEST.EVAL_PERIOD < cfg.SOLVER.MAX_ITER:
        return ""
    return (
        f"SOLVER.EARLY_STOPPING.ENABLED True needs evaluations during training, but "
        f"TEST.EVAL_PERIOD is {cfg.TEST.EVAL_PERIOD} and SOLVER.MAX_ITER {cfg.SOLVER.MAX_ITER}; "
        f"set EVAL_PERIOD, e.g. {max(1, cfg.SOLVER.MAX_ITER // 20)}"
    )


def _sampler(cfg: CfgNode) -> str:
    keys = cfg.DATALOADER
    if keys.SAMPLER_TRAIN != "RepeatFactorTrainingSampler":
        return ""
    if architecture(cfg) not in _DETECTORS:
        return (
            f"DATALOADER.SAMPLER_TRAIN {keys.SAMPLER_TRAIN} repeats images by the classes of their "
            f"objects, which {architecture(cfg)} is not trained on; use TrainingSampler"
        )
    if not keys.REPEAT_THRESHOLD:
        return (
            f"DATALOADER.SAMPLER_TRAIN {keys.SAMPLER_TRAIN} repeats nothing with "
            "DATALOADER.REPEAT_THRESHOLD 0; set it, e.g. 0.001, or use TrainingSampler"
        )
    return ""


def _proposals(cfg: CfgNode) -> str:
    precomputed = cfg.MODEL.PROPOSAL_GENERATOR.NAME == "PrecomputedProposals"
    if precomputed != cfg.MODEL.LOAD_PROPOSALS and architecture(cfg) == "GeneralizedRCNN":
        return (
            "MODEL.LOAD_PROPOSALS True and MODEL.PROPOSAL_GENERATOR.NAME PrecomputedProposals need "
            "each other; set both or none"
        )
    if not cfg.MODEL.LOAD_PROPOSALS:
        return ""
    keys = cfg.DATASETS
    for split in ("TRAIN", "TEST"):
        files, names = keys[f"PROPOSAL_FILES_{split}"], keys[split]
        if len(files) != len(names):
            return (
                f"DATASETS.PROPOSAL_FILES_{split} names {len(files)} files for {len(names)} "
                f"datasets in DATASETS.{split}; give one file for each"
            )
    return ""


def _keypoints(cfg: CfgNode) -> str:
    count = cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS
    sigmas = cfg.TEST.KEYPOINT_OKS_SIGMAS
    if not cfg.MODEL.KEYPOINT_ON or len(sigmas) in (0, count):
        return ""
    return (
        f"TEST.KEYPOINT_OKS_SIGMAS has {len(sigmas)} values, but the model has {count} key points; "
        "give one value for each"
    )


RELATIONS: tuple[Callable[[CfgNode], str], ...] = (
    *(_pixels, _training_sizes, _test_sizes, _augmented_test_sizes, _crop),
    *(_semantic_inference, _tiles),
    *(_matchers, _cascade, _class_weights, _momentum, _final_rate, _sampler),
    *(_accumulation, _early_stopping),
    *(_proposals, _keypoints),
)
