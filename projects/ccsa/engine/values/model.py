"""The valid values of the keys of MODEL."""

import math

from ccsa.engine.values.rules import (
    Rule,
    either,
    flag,
    integer,
    listed,
    number,
    one_of,
    section,
    text,
    word,
)

_CLASSES = integer(1, 10**5)
_WIDTH = integer(1, 2**16)
_DEPTH = integer(0, 100)  # layers
_COUNT = integer(1, 10**6)  # objects or proposals
_PIXELS = 10**6
_LARGEST = 10**6  # weight of a loss, or factor
_FLAG, _TEXT = flag(), text()
_TEXTS = listed(_TEXT)
_FRACTION = number(0, 1)
_POSITIVE = number(0, _LARGEST, above=True)
_WEIGHT = number(0, _LARGEST)
_NORM = word("", "BN", "SyncBN", "FrozenBN", "GN", "nnSyncBN", "naiveSyncBN", "naiveSyncBN_N", "LN")
_FEATURES = listed(_TEXT, 1)
_BOX_LOSS = word("smooth_l1", "giou", "diou", "ciou")
_BOX_WEIGHTS = listed(_POSITIVE, 4, 4)
_POOLER = word("ROIPool", "ROIAlign", "ROIAlignV2", "ROIAlignRotated")
_RESOLUTION = integer(1, 256)
_SAMPLES = integer(0, 64)
_STRIDE = one_of(8, 16, 32)
_IOUS = listed(number(0, 1, above=True), 1, increasing=True)
_IOU_LABELS = listed(one_of(-1, 0, 1), 2)


def _nested(rule: Rule) -> Rule:
    """Return the rule for a list with one list for each feature map, or one for all of them."""
    return either(listed(listed(rule, 1), 1), listed(rule, 1))


RULES: dict[str, Rule] = section(
    "MODEL",
    LOAD_PROPOSALS=_FLAG,
    MASK_ON=_FLAG,
    KEYPOINT_ON=_FLAG,
    DEVICE=_TEXT,
    META_ARCHITECTURE=_TEXT,
    WEIGHTS=_TEXT,
    CHANNELS_LAST=_FLAG,
    COMPILE=_FLAG,
    PIXEL_MEAN=listed(number(-math.inf)),
    PIXEL_STD=listed(_POSITIVE),
)
RULES |= section("MODEL.EMA", ENABLED=_FLAG, DECAY=number(0, 1, below=True))
RULES |= section("MODEL.CONTEXT", META_ARCHITECTURE=_TEXT)
RULES |= section("MODEL.BACKBONE", NAME=_TEXT, FREEZE_AT=integer(0, 5))
RULES |= section(
    "MODEL.FPN",
    IN_FEATURES=_TEXTS,
    OUT_CHANNELS=_WIDTH,
    NORM=_NORM,
    FUSE_TYPE=word("sum", "avg"),
)
RULES |= section(
    "MODEL.RESNETS",
    DEPTH=one_of(18, 34, 50, 101, 152),
    OUT_FEATURES=_FEATURES,
    NUM_GROUPS=_WIDTH,
    NORM=_NORM,
    WIDTH_PER_GROUP=_WIDTH,
    STRIDE_IN_1X1=_FLAG,
    RES5_DILATION=one_of(1, 2, 4),
    RES2_OUT_CHANNELS=_WIDTH,
    STEM_OUT_CHANNELS=_WIDTH,
    DEFORM_ON_PER_STAGE=listed(_FLAG, 4, 4),
    DEFORM_MODULATED=_FLAG,
    DEFORM_NUM_GROUPS=_WIDTH,
    OUTPUT_STRIDE=_STRIDE,
    CONTRACT_DILATION=_FLAG,
    RES5_MULTI_GRID=listed(integer(1, 64)),
    STEM_TYPE=word("basic", "deeplab"),
    STEM_CEIL_MODE=_FLAG,
)
RULES |= section(
    "MODEL.PLAIN",
    CHANNELS=listed(_WIDTH, 1, 100),
    STRIDES=listed(integer(1, 64), 1, 100),
    NORM=_NORM,
)
RULES |= section(
    "MODEL.TIMM",
    NAME=_TEXT,
    OUTPUT_STRIDE=_STRIDE,
    OUT_FEATURES=_FEATURES,
    NORM=_TEXT,
)
RULES |= section("MODEL.PROPOSAL_GENERATOR", NAME=_TEXT, MIN_SIZE=integer(0, _PIXELS))
RULES |= section(
    "MODEL.ANCHOR_GENERATOR",
    NAME=_TEXT,
    SIZES=_nested(number(0, _PIXELS, above=True)),
    ASPECT_RATIOS=_nested(number(0, 1000, above=True)),
    ANGLES=_nested(number(-360, 360)),
    OFFSET=number(0, 1, below=True),
)
RULES |= section(
    "MODEL.RPN",
    HEAD_NAME=_TEXT,
    IN_FEATURES=_FEATURES,
    BOUNDARY_THRESH=integer(-1, _PIXELS),
    IOU_THRESHOLDS=_IOUS,
    IOU_LABELS=_IOU_LABELS,
    BATCH_SIZE_PER_IMAGE=_COUNT,
    POSITIVE_FRACTION=_FRACTION,
    BBOX_REG_LOSS_TYPE=_BOX_LOSS,
    BBOX_REG_LOSS_WEIGHT=_WEIGHT,
    BBOX_REG_WEIGHTS=_BOX_WEIGHTS,
    SMOOTH_L1_BETA=_WEIGHT,
    LOSS_WEIGHT=_WEIGHT,
    NMS_THRESH=_FRACTION,
    CONV_DIMS=listed(either(_WIDTH, one_of(-1)), 1, 100),
    **{
        f"{when}_NMS_TOPK_{split}": _COUNT
        for when in ("PRE", "POST")
        for split in ("TRAIN", "TEST")
    },
)
RULES |= section(
    "MODEL.ROI_HEADS",
    NAME=_TEXT,
    NUM_CLASSES=_CLASSES,
    IN_FEATURES=_FEATURES,
    IOU_THRESHOLDS=_IOUS,
    IOU_LABELS=_IOU_LABELS,
    BATCH_SIZE_PER_IMAGE=_COUNT,
    POSITIVE_FRACTION=_FRACTION,
    SCORE_THRESH_TEST=_FRACTION,
    NMS_THRESH_TEST=_FRACTION,
    PROPOSAL_APPEND_GT=_FLAG,
)
RULES |= section(
    "MODEL.ROI_BOX_HEAD",
    NAME=_TEXT,
    BBOX_REG_LOSS_TYPE=_BOX_LOSS,
    BBOX_REG_LOSS_WEIGHT=_WEIGHT,
    BBOX_REG_WEIGHTS=_BOX_WEIGHTS,
    SMOOTH_L1_BETA=_WEIGHT,
    POOLER_RESOLUTION=_RESOLUTION,
    POOLER_SAMPLING_RATIO=_SAMPLES,
    POOLER_TYPE=_POOLER,
    NUM_FC=_DEPTH,
    FC_DIM=_WIDTH,
    NUM_CONV=_DEPTH,
    CONV_DIM=_WIDTH,
    NORM=_NORM,
    CLS_AGNOSTIC_BBOX_REG=_FLAG,
    TRAIN_ON_PRED_BOXES=_FLAG,
    USE_FED_LOSS=_FLAG,
    USE_SIGMOID_CE=_FLAG,
    FED_LOSS_FREQ_WEIGHT_POWER=_WEIGHT,
    FED_LOSS_NUM_CLASSES=_CLASSES,
)
RULES |= section(
    "MODEL.ROI_BOX_CASCADE_HEAD",
    BBOX_REG_WEIGHTS=listed(_BOX_WEIGHTS, 1, 100),
    IOUS=listed(_FRACTION, 1, 100),
)
RULES |= section(
    "MODEL.ROI_MASK_HEAD",
    NAME=_TEXT,
    POOLER_RESOLUTION=_RESOLUTION,
    POOLER_SAMPLING_RATIO=_SAMPLES,
    POOLER_TYPE=_POOLER,
    NUM_CONV=_DEPTH,
    CONV_DIM=_WIDTH,
    NORM=_NORM,
    CLS_AGNOSTIC_MASK=_FLAG,
)
RULES |= section(
    "MODEL.ROI_KEYPOINT_HEAD",
    NAME=_TEXT,
    POOLER_RESOLUTION=_RESOLUTION,
    POOLER_SAMPLING_RATIO=_SAMPLES,
    POOLER_TYPE=_POOLER,
    CONV_DIMS=listed(_WIDTH, 1, 100),
    NUM_KEYPOINTS=integer(1, 10000),
    MIN_KEYPOINTS_PER_IMAGE=integer(0, 10**6),
    NORMALIZE_LOSS_BY_VISIBLE_KEYPOINTS=_FLAG,
    LOSS_WEIGHT=_WEIGHT,
)
RULES |= section(
    "MODEL.SEM_SEG_HEAD",
    NAME=_TEXT,
    IN_FEATURES=_FEATURES,
    IGNORE_VALUE=integer(0, 255),
    NUM_CLASSES=_CLASSES,
    CONVS_DIM=_WIDTH,
    COMMON_STRIDE=integer(1, 64),
    NORM=_NORM,
    LOSS_WEIGHT=_WEIGHT,
    ACTIVATION=word("relu", "leaky_relu"),
    DROPOUT=number(0, 1, below=True),
    PREDICTOR_STD=number(0, 100),
    ALIGN_CORNERS=_FLAG,
    CLASS_WEIGHTS=listed(_WEIGHT),
)
RULES |= section("MODEL.SEM_SEG_HEAD.AUX", IN_FEATURE=_TEXT, CHANNELS=_WIDTH, WEIGHT=_WEIGHT)
RULES |= section(
    "MODEL.SEM_SEG_HEAD.OHEM", ENABLED=_FLAG, THRESHOLD=_FRACTION, MIN_KEPT=integer(0, 2**40)
)
RULES |= section(
    "MODEL.SEM_SEG_HEAD.CCL",
    ENABLED=_FLAG,
    WEIGHTS=listed(_WEIGHT, 3, 3),
    DELTAS=listed(_WEIGHT, 2, 2),
    CHANNELS=integer(0, 2**16),
    AT=word("context_output", "context_input"),
    SCOPE=word("batch", "image"),
)
RULES |= section(
    "MODEL.SEM_SEG_HEAD.SANET",
    CHANNELS=_WIDTH,
    MASK_WEIGHT=_WEIGHT,
    CATEGORY_WEIGHT=_WEIGHT,
    DENSE_WEIGHT=_WEIGHT,
    CATEGORY_REDUCTION=word("sum", "mean"),
    PREDICTION=word("dense", "mask", "sum"),
)
RULES |= section("MODEL.PANOPTIC_FPN", INSTANCE_LOSS_WEIGHT=_WEIGHT)
RULES |= section(
    "MODEL.PANOPTIC_FPN.COMBINE",
    ENABLED=_FLAG,
    OVERLAP_THRESH=_FRACTION,
    STUFF_AREA_LIMIT=integer(0, 2**40),
    INSTANCES_CONFIDENCE_THRESH=_FRACTION,
)
RULES |= section(
    "MODEL.RETINANET",
    NUM_CLASSES=_CLASSES,
    IN_FEATURES=_FEATURES,
    NUM_CONVS=_DEPTH,
    IOU_THRESHOLDS=_IOUS,
    IOU_LABELS=_IOU_LABELS,
    PRIOR_PROB=number(0, 1, above=True, below=True),
    SCORE_THRESH_TEST=_FRACTION,
    TOPK_CANDIDATES_TEST=_COUNT,
    NMS_THRESH_TEST=_FRACTION,
    BBOX_REG_WEIGHTS=_BOX_WEIGHTS,
    FOCAL_LOSS_GAMMA=_WEIGHT,
    FOCAL_LOSS_ALPHA=number(-1, 1),
    SMOOTH_L1_LOSS_BETA=_WEIGHT,
    BBOX_REG_LOSS_TYPE=_BOX_LOSS,
    NORM=_NORM,
)
