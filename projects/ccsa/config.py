"""The configuration keys that ccsa adds to those of Detectron2.

docs/CONFIG.md is generated from this file: the docstring of each function introduces a section, and
the comment above a key describes it. Run ``python tools/document_config.py`` after a change.
"""

from detectron2.config import CfgNode

# Former names of keys. Files, the config.yaml of existing runs, and KEY VALUE pairs may use them.
RENAMED_KEYS = {
    "MODEL.SEM_SEG_HEAD.CONTEXT": "MODEL.SEM_SEG_HEAD.BLOCKS",
    "TEST.SLIDING_WINDOW.ENABLED": "TEST.TILES.ENABLED",
}
# Former keys whose value is converted, and the keys that replace them.
CONVERTED_KEYS = {
    "TEST.SLIDING_WINDOW.CROP": "TEST.TILES.SIZE",
    "TEST.SLIDING_WINDOW.STRIDE": "TEST.TILES.OVERLAP",
}


def add_ccsa_config(cfg: CfgNode) -> None:
    """Add the keys of ccsa to ``cfg``, and change defaults of Detectron2 where they differ.

    Example:
        >>> from detectron2.config import get_cfg
        >>> cfg = get_cfg()
        >>> add_ccsa_config(cfg)
        >>> cfg.MODEL.CONTEXT.BLOCKS
        []

        Detectron2's ``build_model`` does not know the default device, "auto":

        >>> from ccsa.engine.setup import resolve_device
        >>> cfg.MODEL.DEVICE = resolve_device(cfg.MODEL.DEVICE)
    """
    _add_model_keys(cfg)
    _add_backbone_keys(cfg)
    _add_semantic_keys(cfg)
    _add_solver_keys(cfg)
    _add_data_keys(cfg)
    _add_input_keys(cfg)
    _add_inference_keys(cfg)


def _add_model_keys(cfg: CfgNode) -> None:
    """Add the keys of model, device and run folder."""
    # The device. "auto" uses an accelerator if one is available, and otherwise the CPU. A device
    # that is named must be available. The tools of ccsa and ccsa.engine.setup_cfg resolve "auto";
    # elsewhere, set cfg.MODEL.DEVICE = ccsa.engine.setup.resolve_device(cfg.MODEL.DEVICE) before
    # Detectron2's build_model.
    cfg.MODEL.DEVICE = "auto"
    # Whether the model runs in channels-last memory format. Convolutions are then faster, and
    # criss-cross attention does not copy rows and columns.
    cfg.MODEL.CHANNELS_LAST = False
    # Whether backbone and heads are compiled by torch.compile, for training and evaluation. Tools
    # that load a trained model compile it only if the key is written in their command. A C++
    # compiler is needed; see docs/TRAINING.md.
    cfg.MODEL.COMPILE = False

    cfg.MODEL.EMA = CfgNode()
    # Whether an exponential moving average of the weights is kept. It is evaluated next to the
    # weights themselves and written to model_ema.pth at the end of training.
    cfg.MODEL.EMA.ENABLED = False
    # The factor of the previous average in each iteration. In the first iterations it is smaller.
    cfg.MODEL.EMA.DECAY = 0.999

    cfg.MODEL.CONTEXT = CfgNode()
    # The meta-architecture to which blocks are attached. It is used if MODEL.META_ARCHITECTURE is
    # "ContextModel".
    cfg.MODEL.CONTEXT.META_ARCHITECTURE = "GeneralizedRCNN"
    # The context blocks, a list of {at: module path, block: registered name, **keywords of the
    # block}; see docs/INSERTION.md.
    cfg.MODEL.CONTEXT.BLOCKS = []

    # The folder of the run. If it is empty, each run gets a new numbered folder under
    # output/<config>+<overlay>.../.
    cfg.OUTPUT_DIR = ""
    # The experiment tracker that gets the metrics: "wandb", "mlflow" or "trackio". If it is empty,
    # none is used. Its package must be installed.
    cfg.TRACKER = ""


def _add_backbone_keys(cfg: CfgNode) -> None:
    """Add the keys of backbones.

    The keys below belong to the backbones. ``STEM_TYPE`` and ``RES5_MULTI_GRID`` of
    ``build_dilated_resnet_backbone`` mean the same as in Detectron2's DeepLab project.
    ``MODEL.PLAIN`` belongs to ``PlainBackbone``, and ``MODEL.TIMM`` to ``build_timm_backbone`` and
    ``build_timm_fpn_backbone``; see docs/TIMM.md.
    """
    keys = cfg.MODEL.RESNETS
    # The stride of res5: 8 or 16 with dilation, or 32 without.
    keys.OUTPUT_STRIDE = 8
    # Whether the first block of a dilated stage keeps the dilation of the previous stage, as in
    # MMSegmentation. The official CCNet code does not do this.
    keys.CONTRACT_DILATION = False
    # Factors of the dilation of the blocks of res5, one for each block. An empty list means 1 for
    # all of them.
    keys.RES5_MULTI_GRID = []
    # The stem: "basic", one 7x7 convolution, or "deeplab", three 3x3 convolutions. With "deeplab",
    # STEM_OUT_CHANNELS 128 gives the widths 64, 64, 128 (CCNet) and 64 gives 32, 32, 64
    # (ResNetV1c).
    keys.STEM_TYPE = "basic"
    # Whether the max-pooling of the deep stem rounds sizes up, as in the official CCNet code.
    keys.STEM_CEIL_MODE = False

    cfg.MODEL.PLAIN = CfgNode()
    # The output channels of the 3x3 convolutions.
    cfg.MODEL.PLAIN.CHANNELS = [16, 32, 32]
    # The strides of the convolutions.
    cfg.MODEL.PLAIN.STRIDES = [2, 2, 1]
    # The norm after each convolution.
    cfg.MODEL.PLAIN.NORM = "BN"

    cfg.MODEL.TIMM = CfgNode()
    # The model, one of timm.list_models(), optionally with the tag of its weights. MODEL.WEIGHTS is
    # then a checkpoint, "timm://hub" for the weights that timm provides for this name, or
    # "timm://FILE" for a .pth or .safetensors file with timm's keys. If PIXEL_MEAN and PIXEL_STD
    # are empty or have Detectron2's default, the values of the model are used.
    cfg.MODEL.TIMM.NAME = "resnet50d.ra2_in1k"
    # The stride of res5: 32, or 8 or 16 if the model can be dilated.
    cfg.MODEL.TIMM.OUTPUT_STRIDE = 32
    # The levels that are used. The last level of a model is always called res5.
    cfg.MODEL.TIMM.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # The norm: an empty string keeps the norms of the model; "SyncBN" and "FrozenBN" replace its
    # batch norms.
    cfg.MODEL.TIMM.NORM = ""
    # Further keywords for timm.create_model, e.g. [{drop_path_rate: 0.1}].
    cfg.MODEL.TIMM.ARGUMENTS = []


def _add_semantic_keys(cfg: CfgNode) -> None:
    """Add the keys of semantic heads.

    The keys below belong to ``CCNetHead``, ``SANetHead`` and ``FCNHead``, which also use these keys
    of Detectron2: ``IN_FEATURES`` (the last feature map of the backbone in a list; all stages for
    ``SANetHead``), ``CONVS_DIM``, ``NORM``, ``NUM_CLASSES``, ``IGNORE_VALUE`` and ``LOSS_WEIGHT``.
    """
    keys = cfg.MODEL.SEM_SEG_HEAD
    # The activation: "relu", or "leaky_relu" with slope 0.01 as in the official CCNet code.
    keys.ACTIVATION = "relu"
    # The probability of dropping a channel before a classifier.
    keys.DROPOUT = 0.1
    # The initial standard deviation of the weights of the classifiers.
    keys.PREDICTOR_STD = 0.01
    # Whether resizing of the logits aligns the corners of the grid with the corners of the image,
    # as in the official CCNet code.
    keys.ALIGN_CORNERS = False
    # The weight of each class in the main losses. An empty list means equal weights.
    keys.CLASS_WEIGHTS = []
    # CCNetHead: its context blocks in order, a list of {block: registered name, **keywords of the
    # block}. An empty list means no attention (R = 0).
    keys.BLOCKS = [{"block": "CrissCross", "recurrence": 2}]

    keys.AUX = CfgNode()
    # CCNetHead, FCNHead: the feature map that the auxiliary FCN reads.
    keys.AUX.IN_FEATURE = "res4"
    # The width of the auxiliary FCN: 512 in the official CCNet code, 256 in MMSegmentation.
    keys.AUX.CHANNELS = 256
    # The weight of the auxiliary loss. With 0 there is no auxiliary FCN.
    keys.AUX.WEIGHT = 0.4

    keys.OHEM = CfgNode()
    # Whether only hard pixels count in the main losses (online hard example mining), as the
    # official CCNet code defines it.
    keys.OHEM.ENABLED = False
    # A pixel is hard if the predicted probability of its own class is at most this value.
    keys.OHEM.THRESHOLD = 0.7
    # The approximate minimum number of pixels that count in the batch of a process.
    keys.OHEM.MIN_KEPT = 100000

    keys.CCL = CfgNode()
    # CCNetHead: whether the category consistent loss of CCNet's journal version is added.
    keys.CCL.ENABLED = False
    # The weights of l_var, l_dis and l_reg.
    keys.CCL.WEIGHTS = [1.0, 1.0, 0.001]
    # The margins delta_v and delta_d.
    keys.CCL.DELTAS = [0.5, 1.5]
    # The number of channels after the 1x1 convolution before the loss. With 0 there is no
    # convolution. The "16" of the paper may also be a ratio, CONVS_DIM // 16.
    keys.CCL.CHANNELS = 16
    # The feature map that the loss is computed on: "context_output", the output of the context
    # blocks, or "context_input", their input. Paper and code do not specify it.
    keys.CCL.AT = "context_output"
    # Which classes are compared: those of the "batch" of one process, or those of each "image".
    keys.CCL.SCOPE = "batch"

    keys.SANET = CfgNode()
    # SANetHead: the width of the head on each stage.
    keys.SANET.CHANNELS = 256
    # SANetHead: the context blocks of each stage, a list of {block: registered name, **keywords of
    # the block}, e.g. SqueezeAttention, or SqueezeExcitation for the comparison in the paper.
    keys.SANET.BLOCKS = [{"block": "SqueezeAttention", "residual": False}]
    # The weight of the mask loss. A weight of 0 removes the part of the head that belongs to the
    # loss.
    keys.SANET.MASK_WEIGHT = 1.0
    # The weight of the categorical loss (alpha in the paper).
    keys.SANET.CATEGORY_WEIGHT = 0.2
    # The weight of the dense loss (beta in the paper).
    keys.SANET.DENSE_WEIGHT = 0.8
    # The reduction of the categorical loss over classes: "sum" as printed in the paper, or "mean".
    keys.SANET.CATEGORY_REDUCTION = "sum"
    # The final prediction: "dense", "mask" or their "sum". The paper does not specify it.
    keys.SANET.PREDICTION = "dense"


def _add_solver_keys(cfg: CfgNode) -> None:
    """Add the keys of the optimizer and the learning rate.

    The keys of the poly schedule mean the same as in Detectron2's DeepLab project.
    """
    keys = cfg.SOLVER
    # The optimizer: "SGD", or "AdamW" with the default betas of torch.
    keys.OPTIMIZER = "SGD"
    # The power of the schedule "WarmupPolyLR" (LR_SCHEDULER_NAME), with the learning rate BASE_LR *
    # (1 - iteration / MAX_ITER) ** power.
    keys.POLY_LR_POWER = 0.9
    # The learning rate does not fall below this fraction of BASE_LR.
    keys.POLY_LR_CONSTANT_ENDING = 0.0
    # The factor of the learning rate of all parameters outside the backbone. PyTorch-Encoding uses
    # 10.
    keys.HEAD_LR_FACTOR = 1.0
    # The number of parts into which each batch of IMS_PER_BATCH images is divided. The gradients of
    # the parts are accumulated before the update, which needs less memory. docs/TRAINING.md lists
    # the losses for which this differs from the whole batch.
    keys.ACCUMULATE = 1
    # The number of checkpoints model_<iteration>.pth (CHECKPOINT_PERIOD) that are kept: the newest
    # ones, at least 2, or 0 for all. The last, the final and the best checkpoint are always kept.
    keys.CHECKPOINT_KEEP = 10

    keys.EARLY_STOPPING = CfgNode()
    # Whether training ends when the main metric has stopped to improve.
    keys.EARLY_STOPPING.ENABLED = False
    # The number of evaluations without improvement after which training ends.
    keys.EARLY_STOPPING.PATIENCE = 5
    # The metric improves if it is better than before by more than this, in its unit (AP and mIoU
    # are percentages).
    keys.EARLY_STOPPING.MIN_DELTA = 0.0


def _add_data_keys(cfg: CfgNode) -> None:
    """Add the keys of a user's own data; see docs/OWN_DATA.md.

    ``DATASETS.OWN`` is written by ``--data`` and stored in the run, so that every tool works from
    the run folder only.
    """
    keys = cfg.DATASETS
    # Kinds of errors in a dataset that do not stop training; tools/check_dataset.py lists them.
    keys.ALLOW = []
    # Label values that are replaced before anything else sees them, {value: class}, e.g. {255: 1}.
    keys.LABEL_MAPPING = []

    keys.OWN = CfgNode()
    # The folder or COCO JSON file; empty if the run uses registered datasets.
    keys.OWN.ROOT = ""
    # The name of its format; empty if it is detected.
    keys.OWN.FORMAT = ""
    # The folder of the images of a JSON file.
    keys.OWN.IMAGES = ""
    # The JSON file of the validation split.
    keys.OWN.VAL = ""
    # The folder of the images of the validation split.
    keys.OWN.VAL_IMAGES = ""
    # The name under which the splits are registered.
    keys.OWN.NAME = ""
    # What the model is trained on: "detection", "semantic" or "panoptic".
    keys.OWN.KIND = ""
    # The names of the splits.
    keys.OWN.SPLITS = []
    # The classes of objects.
    keys.OWN.CLASSES = []
    # The classes of pixels.
    keys.OWN.STUFF_CLASSES = []


def _add_input_keys(cfg: CfgNode) -> None:
    """Add the keys of training data and augmentation for semantic segmentation.

    Detectron2's keys ``MIN_SIZE_TRAIN``, ``MAX_SIZE_TRAIN``, ``RANDOM_FLIP`` (which swaps the
    ``flip_pairs`` of the dataset) and ``CROP`` apply as well. The crop follows the resize. A
    crop of TYPE ``absolute`` is padded to ``SIZE`` with ``PIXEL_MEAN`` and ``IGNORE_VALUE``.
    """
    keys = cfg.INPUT
    # How images of more than 8 bits become 8 bits: [low, high] is mapped to 0 and 255. With "auto",
    # --data takes the 0.1 and 99.9 percentiles of the training set and stores them in the run.
    keys.INTENSITY_RANGE = "auto"
    # The mapper of the training data: "detection" is Detectron2's, "semantic" uses the keys below,
    # and "auto" decides by the datasets. A video model always gets clips, augmented by the keys
    # below.
    keys.MAPPER = "auto"
    # A crop is drawn again, at most ten times, while one class covers more than this fraction of
    # it.
    keys.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0

    keys.TILES = CfgNode()
    # Whether training uses overlapping tiles of each image instead of the whole image, so that
    # small objects of large images keep their size. Tiles without an object are left out if
    # DATALOADER.FILTER_EMPTY_ANNOTATIONS is True.
    keys.TILES.ENABLED = False
    # The height and width of a tile in pixels of the file.
    keys.TILES.SIZE = [512, 512]
    # The vertical and horizontal overlap of neighbors.
    keys.TILES.OVERLAP = [64, 64]
    # The smallest share of an object that is inside a tile; with less, it does not belong to it.
    keys.TILES.MIN_VISIBLE = 0.25

    keys.CLIP = CfgNode()
    # VideoSemanticSegmentor: the number of frames of a clip (T).
    keys.CLIP.FRAMES = 5
    # Which frame of a clip has the label and is predicted: "last" or "middle". CCNet's paper does
    # not specify it.
    keys.CLIP.LABELLED = "last"
    # The distance between two frames of a clip, in frames. CCNet's paper does not specify it.
    keys.CLIP.STEP = 1
    # The source of the other frames: "raw" for all frames of the video, or "labelled" for the
    # frames of the dataset, which may be a second apart. One source never replaces the other.
    keys.CLIP.SOURCE = "raw"

    keys.SEM_SEG = CfgNode()
    # The range [low, high] of the random factor of the image size. It replaces MIN_SIZE_TRAIN; with
    # an empty list, MIN_SIZE_TRAIN is used.
    keys.SEM_SEG.SCALE_RANGE = []
    # The factors are low, low + step, ..., high. With 0.0 the factor is continuous.
    keys.SEM_SEG.SCALE_STEP = 0.0
    # The length of the longer side for a factor of 1. With 0 it is that of the image.
    keys.SEM_SEG.LONG_SIDE = 0

    keys.SEM_SEG.COLOR_JITTER = CfgNode()
    # Whether brightness, contrast, saturation and hue are changed, each with probability 1/2.
    keys.SEM_SEG.COLOR_JITTER.ENABLED = False
    # The largest change of the brightness, for values up to 255.
    keys.SEM_SEG.COLOR_JITTER.BRIGHTNESS = 32.0
    # The range [low, high] of the factor of the contrast.
    keys.SEM_SEG.COLOR_JITTER.CONTRAST = [0.5, 1.5]
    # The range [low, high] of the factor of the saturation.
    keys.SEM_SEG.COLOR_JITTER.SATURATION = [0.5, 1.5]
    # The largest change of the hue, for values up to 180.
    keys.SEM_SEG.COLOR_JITTER.HUE = 18


def _add_inference_keys(cfg: CfgNode) -> None:
    """Add the keys of evaluation and semantic inference.

    The keys of semantic inference apply to any model with a ``sem_seg`` output.
    """
    keys = cfg.TEST
    # Whether the panoptic predictions of a test set are written to inference/<test set>, as COCO's
    # JSON and PNG files.
    keys.PANOPTIC_FILES = False
    # Whether the AP of mask boundaries is measured as well. This needs faster-coco-eval and, for
    # 36,000 objects, about 15 s.
    keys.BOUNDARY_AP = False
    # Whether tools/train_net.py ends with report.html, a page that evaluates the run.
    keys.REPORT = True
    # Whether the checkpoint with the best main metric is kept as model_best.pth. This needs
    # EVAL_PERIOD.
    keys.BEST_CHECKPOINT = True
    # Whether each evaluation also computes the losses on the test sets, which then need
    # annotations for training.
    keys.VALIDATION_LOSS = False
    # What windows, scales and flips average: "logits", as in the official CCNet code, or "softmax".
    keys.SEM_SEG_AVERAGE = "logits"

    keys.TILES = CfgNode()
    # Whether the model is applied to overlapping tiles of the (resized) test image, also called a
    # sliding window. Scores are averaged where tiles overlap, and objects are merged. To keep small
    # objects of large images, set INPUT.MIN_SIZE_TEST to 0, so that images are not resized.
    keys.TILES.ENABLED = False
    # The height and width of a tile. A smaller image is one tile of its own size.
    keys.TILES.SIZE = [769, 769]
    # The vertical and horizontal overlap of neighbors, at least the size of large objects. The
    # official CCNet code uses about 1 / 3 of the size.
    keys.TILES.OVERLAP = [256, 256]

    keys.SLIDING_WINDOW = CfgNode()
    # The former name of TEST.TILES.SIZE; empty if it is not used.
    keys.SLIDING_WINDOW.CROP = []
    # The former form of TEST.TILES.OVERLAP, which is the size minus this step; empty if it is not
    # used.
    keys.SLIDING_WINDOW.STRIDE = []

    keys.SEM_SEG_AUG = CfgNode()
    # Whether predictions are averaged over scales and flips of the (resized) test image.
    keys.SEM_SEG_AUG.ENABLED = False
    # The factors of the image size.
    keys.SEM_SEG_AUG.SCALES = [0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    # Whether each scale is also flipped horizontally. The classes in the "flip_pairs" of the
    # dataset are swapped back.
    keys.SEM_SEG_AUG.FLIP = True
