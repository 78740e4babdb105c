"""The valid values of the keys of data, training and evaluation."""

import math
from collections.abc import Mapping
from typing import Any

from ccsa.engine.values.rules import (
    Rule,
    constant,
    either,
    flag,
    integer,
    listed,
    number,
    one_of,
    pair_in_order,
    section,
    text,
    word,
)

_ITERATIONS = 10**9
_PIXELS = 10**6  # the side of an image
_MAX_SEED = 2**32 - 2**16  # the generators take 32 bits, and each process adds its rank
_LARGEST = 10**6  # learning rate, weight decay, or factor
_FLAG, _TEXT = flag(), text()
_TEXTS = listed(_TEXT)
_FRACTION = number(0, 1)
_POSITIVE = number(0, _LARGEST, above=True)
_WEIGHT = number(0, _LARGEST)
_COUNT = integer(1, 10**6)  # objects or proposals
_SIDE = integer(1, _PIXELS)
_LABEL, _CLASS = integer(0, 2**16 - 1), integer(0, 2**8 - 1)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        _LABEL.accepts(label) and _CLASS.accepts(other) for label, other in value.items()
    )


def _is_expected_result(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(value) == 4
        and all(map(_TEXT.accepts, value[:2]))
        and all(map(number(-math.inf).accepts, value[2:]))
    )


RULES: dict[str, Rule] = section(
    "INPUT",
    MIN_SIZE_TRAIN=listed(integer(0, _PIXELS), 1),
    MIN_SIZE_TRAIN_SAMPLING=word("choice", "range"),
    MAX_SIZE_TRAIN=integer(1, 2**63 - 1),
    MIN_SIZE_TEST=integer(0, _PIXELS),
    MAX_SIZE_TEST=integer(1, 2**63 - 1),
    RANDOM_FLIP=word("horizontal", "vertical", "none"),
    FORMAT=word("RGB", "BGR", "L"),
    MASK_FORMAT=word("polygon", "bitmask"),
    INTENSITY_RANGE=either(word("auto"), pair_in_order(number(-math.inf), equal=False)),
    MAPPER=word("auto", "semantic", "detection"),
)
RULES |= section(
    "INPUT.CROP",
    ENABLED=_FLAG,
    TYPE=word("relative", "relative_range", "absolute", "absolute_range"),
    SIZE=listed(number(0, _PIXELS, above=True), 2, 2),
    SINGLE_CATEGORY_MAX_AREA=number(0, 1, above=True),
)
RULES |= section(
    "INPUT.TILES",
    ENABLED=_FLAG,
    SIZE=listed(_SIDE, 2, 2),
    OVERLAP=listed(integer(0, 100_000), 2, 2),
    MIN_VISIBLE=number(0, 1),
)
RULES |= section(
    "INPUT.CLIP",
    FRAMES=integer(1, 1000),
    LABELLED=word("last", "middle"),
    STEP=integer(1, 10**6),
    SOURCE=word("raw", "labelled"),
)
RULES |= section(
    "INPUT.SEM_SEG",
    SCALE_RANGE=either(constant([]), pair_in_order(number(0, 100, above=True))),
    SCALE_STEP=number(0, 100),
    LONG_SIDE=integer(0, _PIXELS),
)
RULES |= section(
    "INPUT.SEM_SEG.COLOR_JITTER",
    ENABLED=_FLAG,
    BRIGHTNESS=number(0, 255),
    CONTRAST=pair_in_order(number(0, 255)),
    SATURATION=pair_in_order(number(0, 255)),
    HUE=integer(0, 180),
)

RULES |= section(
    "DATASETS",
    TRAIN=_TEXTS,
    TEST=_TEXTS,
    ALLOW=_TEXTS,
    LABEL_MAPPING=listed(
        Rule("a mapping of label values to classes, e.g. {255: 1}", _is_mapping), 0, 1
    ),
    PROPOSAL_FILES_TRAIN=_TEXTS,
    PROPOSAL_FILES_TEST=_TEXTS,
    PRECOMPUTED_PROPOSAL_TOPK_TRAIN=_COUNT,
    PRECOMPUTED_PROPOSAL_TOPK_TEST=_COUNT,
)
RULES |= section(
    "DATASETS.OWN",
    **dict.fromkeys(("ROOT", "FORMAT", "IMAGES", "VAL", "VAL_IMAGES", "NAME"), _TEXT),
    **dict.fromkeys(("SPLITS", "CLASSES", "STUFF_CLASSES"), _TEXTS),
    KIND=word("", "detection", "semantic", "panoptic"),
)
RULES |= section(
    "DATALOADER",
    NUM_WORKERS=integer(0, 256),
    ASPECT_RATIO_GROUPING=_FLAG,
    SAMPLER_TRAIN=word("TrainingSampler", "RepeatFactorTrainingSampler"),
    REPEAT_THRESHOLD=_FRACTION,
    FILTER_EMPTY_ANNOTATIONS=_FLAG,
)

RULES |= section(
    "SOLVER",
    OPTIMIZER=word("SGD", "AdamW"),
    LR_SCHEDULER_NAME=word(
        "WarmupPolyLR", "WarmupMultiStepLR", "WarmupCosineLR", "WarmupStepWithFixedGammaLR"
    ),
    MAX_ITER=integer(1, _ITERATIONS),
    BASE_LR=_POSITIVE,
    BASE_LR_END=_WEIGHT,
    MOMENTUM=number(0, 1, below=True),
    NESTEROV=_FLAG,
    WEIGHT_DECAY=_WEIGHT,
    WEIGHT_DECAY_NORM=_WEIGHT,
    WEIGHT_DECAY_BIAS=either(constant(None), _WEIGHT),
    GAMMA=number(0, 1000, above=True),
    STEPS=listed(integer(1, _ITERATIONS), increasing=True),
    NUM_DECAYS=integer(1, 1000),
    WARMUP_FACTOR=_FRACTION,
    WARMUP_ITERS=integer(0, _ITERATIONS),
    WARMUP_METHOD=word("linear", "constant"),
    RESCALE_INTERVAL=_FLAG,
    CHECKPOINT_PERIOD=integer(1, _ITERATIONS),
    CHECKPOINT_KEEP=either(constant(0), integer(2, _ITERATIONS)),
    IMS_PER_BATCH=integer(1, 65536),
    REFERENCE_WORLD_SIZE=integer(0, 65536),
    BIAS_LR_FACTOR=_WEIGHT,
    HEAD_LR_FACTOR=_POSITIVE,
    POLY_LR_POWER=_POSITIVE,
    POLY_LR_CONSTANT_ENDING=_FRACTION,
    ACCUMULATE=integer(1, 65536),
)
RULES |= section(
    "SOLVER.CLIP_GRADIENTS",
    ENABLED=_FLAG,
    CLIP_TYPE=word("value", "norm"),
    CLIP_VALUE=_POSITIVE,
    NORM_TYPE=either(number(0, above=True), constant(math.inf)),
)
RULES |= section("SOLVER.AMP", ENABLED=_FLAG)
RULES |= section(
    "SOLVER.EARLY_STOPPING", ENABLED=_FLAG, PATIENCE=integer(1, _ITERATIONS), MIN_DELTA=_WEIGHT
)

RULES |= section(
    "TEST",
    EXPECTED_RESULTS=listed(Rule("[task, metric, value, tolerance]", _is_expected_result)),
    EVAL_PERIOD=integer(0, _ITERATIONS),
    KEYPOINT_OKS_SIGMAS=listed(_POSITIVE),
    DETECTIONS_PER_IMAGE=_COUNT,
    PANOPTIC_FILES=_FLAG,
    BOUNDARY_AP=_FLAG,
    REPORT=_FLAG,
    BEST_CHECKPOINT=_FLAG,
    VALIDATION_LOSS=_FLAG,
    SEM_SEG_AVERAGE=word("logits", "softmax"),
)
RULES |= section("TEST.AUG", ENABLED=_FLAG, MIN_SIZES=listed(_SIDE, 1), MAX_SIZE=_SIDE, FLIP=_FLAG)
RULES |= section("TEST.PRECISE_BN", ENABLED=_FLAG, NUM_ITER=integer(1, _ITERATIONS))
RULES |= section(
    "TEST.TILES", ENABLED=_FLAG, SIZE=listed(_SIDE, 2, 2), OVERLAP=listed(integer(0, 100_000), 2, 2)
)
RULES |= section("TEST.SLIDING_WINDOW", CROP=listed(_SIDE, 0, 2), STRIDE=listed(_SIDE, 0, 2))
RULES |= section(
    "TEST.SEM_SEG_AUG", ENABLED=_FLAG, SCALES=listed(number(0, 100, above=True), 1), FLIP=_FLAG
)

RULES |= {
    "VERSION": one_of(2),
    "OUTPUT_DIR": _TEXT,
    "TRACKER": word("", "wandb", "mlflow", "trackio"),
    "SEED": integer(-1, _MAX_SEED),
    "CUDNN_BENCHMARK": _FLAG,
    "VIS_PERIOD": integer(0, _ITERATIONS),
    "GLOBAL.HACK": number(-math.inf),
}
