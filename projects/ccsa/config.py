"""The keys that ccsa adds to Detectron2's configuration."""

from detectron2.config import CfgNode

# Former names of keys. Files, the config.yaml of existing runs, and KEY VALUE pairs may use them.
RENAMED_KEYS = {"MODEL.SEM_SEG_HEAD.CONTEXT": "MODEL.SEM_SEG_HEAD.BLOCKS"}


def add_ccsa_config(cfg: CfgNode) -> None:
    """Add the keys of ccsa to ``cfg``, and Detectron2's own where ccsa's default differs."""
    # The device that is there: "cuda" where there is one, else "cpu". Naming one that is not there
    # is an error.
    cfg.MODEL.DEVICE = "auto"
    # Run the model in channels-last memory format: faster convolutions, and attention lines without
    # copies.
    cfg.MODEL.CHANNELS_LAST = False

    cfg.MODEL.CONTEXT = CfgNode()
    # With MODEL.META_ARCHITECTURE "ContextModel": the meta-architecture that is built and then
    # given the blocks.
    cfg.MODEL.CONTEXT.META_ARCHITECTURE = "GeneralizedRCNN"
    # A list of {at: module path, block: registered name, **keywords of the block}; see
    # docs/INSERTION.md.
    cfg.MODEL.CONTEXT.BLOCKS = []

    # Empty: a new numbered folder under output/<config>/ for each run.
    cfg.OUTPUT_DIR = ""

    _add_backbone_keys(cfg)
    _add_semantic_keys(cfg)
    _add_solver_keys(cfg)
    _add_input_keys(cfg)
    _add_inference_keys(cfg)


def _add_backbone_keys(cfg: CfgNode) -> None:
    """Keys of the backbones. Those of build_dilated_resnet_backbone: STEM_TYPE and RES5_MULTI_GRID
    mean what they mean in Detectron2's DeepLab."""
    keys = cfg.MODEL.RESNETS
    # Stride of res5: 8, 16, or 32 for no dilation.
    keys.OUTPUT_STRIDE = 8
    # The first block of a dilated stage keeps the dilation of the stage before, as in
    # MMSegmentation; False as in the official CCNet code.
    keys.CONTRACT_DILATION = False
    # Factors of the dilation of res5's blocks, one each; [] is all 1.
    keys.RES5_MULTI_GRID = []
    # "basic", one 7x7 convolution, or "deeplab", three 3x3. STEM_OUT_CHANNELS 128 then gives widths
    # 64, 64, 128 (CCNet) and 64 gives 32, 32, 64 (ResNetV1c).
    keys.STEM_TYPE = "basic"
    # The max-pool of the deep stem rounds up, as in the official CCNet code.
    keys.STEM_CEIL_MODE = False

    # PlainBackbone: 3x3 convolutions of these widths and strides, with this norm.
    cfg.MODEL.PLAIN = CfgNode()
    cfg.MODEL.PLAIN.CHANNELS = [16, 32, 32]
    cfg.MODEL.PLAIN.STRIDES = [2, 2, 1]
    cfg.MODEL.PLAIN.NORM = "BN"

    # build_timm_backbone and build_timm_fpn_backbone: a model of timm. MODEL.WEIGHTS is then a
    # checkpoint as ever, timm://hub for the weights that timm names, or timm://FILE for a .pth or
    # .safetensors file with timm's keys. PIXEL_MEAN and PIXEL_STD that are empty, or Detectron2's
    # default, become those of the model.
    cfg.MODEL.TIMM = CfgNode()
    # In timm.list_models(), with the tag of its weights or without, e.g. resnet50d.ra2_in1k.
    cfg.MODEL.TIMM.NAME = "resnet50d.ra2_in1k"
    # Stride of res5: 32, or 8 or 16 where the model can be dilated.
    cfg.MODEL.TIMM.OUTPUT_STRIDE = 32
    # The levels that are used; res5 is the last one that the model has.
    cfg.MODEL.TIMM.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    # "" for the model's own norms; its batch norms made "SyncBN" or "FrozenBN".
    cfg.MODEL.TIMM.NORM = ""
    # More keywords for timm.create_model, e.g. [{drop_path_rate: 0.1}].
    cfg.MODEL.TIMM.ARGUMENTS = []


def _add_semantic_keys(cfg: CfgNode) -> None:
    """Keys of CCNetHead, SANetHead and FCNHead, beside Detectron2's: IN_FEATURES (the last backbone
    feature in a list; all stages for SANetHead), CONVS_DIM, NORM, NUM_CLASSES, IGNORE_VALUE,
    LOSS_WEIGHT."""
    keys = cfg.MODEL.SEM_SEG_HEAD
    # "relu", or "leaky_relu" with slope 0.01 as in the official CCNet code.
    keys.ACTIVATION = "relu"
    # Dropout of whole channels before a classifier.
    keys.DROPOUT = 0.1
    # Standard deviation of the weights of the head's own classifiers at the start.
    keys.PREDICTOR_STD = 0.01
    # Corners of the logits lie on corners of the image; True in the official CCNet code.
    keys.ALIGN_CORNERS = False
    # What a pixel of each class weighs in the main losses; [] is all the same.
    keys.CLASS_WEIGHTS = []
    # CCNetHead: its context blocks in order, {block: registered name, **keywords}; [] is R = 0.
    keys.BLOCKS = [{"block": "CrissCross", "recurrence": 2}]

    keys.AUX = CfgNode()
    # CCNetHead, FCNHead: the feature that the auxiliary FCN reads.
    keys.AUX.IN_FEATURE = "res4"
    # Its width: 512 in the official CCNet code, 256 in MMSegmentation.
    keys.AUX.CHANNELS = 256
    # The factor of its loss; 0 for no auxiliary FCN.
    keys.AUX.WEIGHT = 0.4

    keys.OHEM = CfgNode()
    # Only hard pixels count in the main losses, as the official CCNet code defines it.
    keys.OHEM.ENABLED = False
    # A pixel is hard up to this probability of its own class.
    keys.OHEM.THRESHOLD = 0.7
    # About how many pixels of a process's batch count at least.
    keys.OHEM.MIN_KEPT = 100000

    keys.CCL = CfgNode()
    # CCNetHead: the category consistent loss of CCNet's journal version.
    keys.CCL.ENABLED = False
    # Factors of l_var, l_dis and l_reg.
    keys.CCL.WEIGHTS = [1.0, 1.0, 0.001]
    # delta_v and delta_d.
    keys.CCL.DELTAS = [0.5, 1.5]
    # Channels after the 1x1 convolution before it; 0 for no convolution. The paper's "16" may also
    # be a ratio: CONVS_DIM // 16.
    keys.CCL.CHANNELS = 16
    # The features it takes: "context_output" or "context_input". Sources do not settle it.
    keys.CCL.AT = "context_output"
    # Whether classes are those of the "batch" of one process or of each "image".
    keys.CCL.SCOPE = "batch"

    keys.SANET = CfgNode()
    # Width of the head on each stage.
    keys.SANET.CHANNELS = 256
    # The block of each head: SqueezeAttention, or SqueezeExcitation for the paper's comparison; []
    # is none. Norms of the block are its own keyword.
    keys.SANET.BLOCKS = [{"block": "SqueezeAttention", "residual": False}]
    # Weights of the three losses; 0 leaves the part out.
    keys.SANET.MASK_WEIGHT = 1.0
    keys.SANET.CATEGORY_WEIGHT = 0.2
    keys.SANET.DENSE_WEIGHT = 0.8
    # The categorical loss over classes: "sum" as printed, or "mean".
    keys.SANET.CATEGORY_REDUCTION = "sum"
    # The final prediction: "dense", "mask" or their "sum". The paper leaves it open.
    keys.SANET.PREDICTION = "dense"


def _add_solver_keys(cfg: CfgNode) -> None:
    """Keys of the learning rate; those of the poly schedule mean what they mean in Detectron2's
    DeepLab."""
    keys = cfg.SOLVER
    # "SGD", or "AdamW" with torch's betas.
    keys.OPTIMIZER = "SGD"
    # With LR_SCHEDULER_NAME "WarmupPolyLR": rate = BASE_LR * (1 - iteration / MAX_ITER) ** power.
    keys.POLY_LR_POWER = 0.9
    # The rate does not fall below this share of BASE_LR.
    keys.POLY_LR_CONSTANT_ENDING = 0.0
    # Factor of the rate of all that is not in the backbone; 10 in PyTorch-Encoding.
    keys.HEAD_LR_FACTOR = 1.0


def _add_input_keys(cfg: CfgNode) -> None:
    """Keys of training augmentation for semantic segmentation, beside Detectron2's MIN_SIZE_TRAIN,
    MAX_SIZE_TRAIN, RANDOM_FLIP (which exchanges the dataset's "flip_pairs") and CROP. There the
    crop follows the resize, and one of TYPE "absolute" is padded to SIZE with PIXEL_MEAN and
    IGNORE_VALUE."""
    keys = cfg.INPUT
    # "detection", Detectron2's mapper; "semantic", with the keys below; "auto" by the datasets. A
    # video model has clips, augmented by the keys below, whatever is said here.
    keys.MAPPER = "auto"
    # A crop is drawn anew, ten times at most, while one class has more than this share of it.
    keys.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0

    keys.CLIP = CfgNode()
    # VideoSemanticSegmentor: frames of a clip, T.
    keys.CLIP.FRAMES = 5
    # The frame that has labels and is predicted: "last" or "middle". Not found in CCNet's paper.
    keys.CLIP.LABELLED = "last"
    # From one frame of a clip to the next. Not found in CCNet's paper.
    keys.CLIP.STEP = 1
    # Where the other frames come from: "raw", all frames of the video; "labelled", the dataset's
    # own, which may be a second apart. Never one for the other.
    keys.CLIP.SOURCE = "raw"

    keys.SEM_SEG = CfgNode()
    # Random factors of the image's size, [low, high], in place of MIN_SIZE_TRAIN; [] for that.
    keys.SEM_SEG.SCALE_RANGE = []
    # Factors are low, low + step, ... high; 0.0 for any between them.
    keys.SEM_SEG.SCALE_STEP = 0.0
    # The longer side that a factor of 1 gives; 0 for the image's own.
    keys.SEM_SEG.LONG_SIDE = 0

    keys.SEM_SEG.COLOR_JITTER = CfgNode()
    # Brightness, contrast, saturation and hue, each changed with probability 1/2.
    keys.SEM_SEG.COLOR_JITTER.ENABLED = False
    # Up to this much is added, of 255.
    keys.SEM_SEG.COLOR_JITTER.BRIGHTNESS = 32.0
    # Factors, [low, high].
    keys.SEM_SEG.COLOR_JITTER.CONTRAST = [0.5, 1.5]
    keys.SEM_SEG.COLOR_JITTER.SATURATION = [0.5, 1.5]
    # Up to this much is added, of 180.
    keys.SEM_SEG.COLOR_JITTER.HUE = 18


def _add_inference_keys(cfg: CfgNode) -> None:
    """Keys of evaluation, and of semantic inference for any model with a "sem_seg" output."""
    keys = cfg.TEST
    # Write the panoptic predictions of a test set as COCO's JSON and PNGs, to inference/<test set>.
    keys.PANOPTIC_FILES = False
    # What windows, scales and flips average: "logits", as in the official CCNet code, or "softmax".
    keys.SEM_SEG_AVERAGE = "logits"

    keys.SLIDING_WINDOW = CfgNode()
    # Run the model on overlapping windows of the (resized) test image.
    keys.SLIDING_WINDOW.ENABLED = False
    # Height and width of a window; a smaller image is one window of its own size.
    keys.SLIDING_WINDOW.CROP = [769, 769]
    # Steps down and right; ceil(2 / 3 of the crop) in the official CCNet code.
    keys.SLIDING_WINDOW.STRIDE = [513, 513]

    keys.SEM_SEG_AUG = CfgNode()
    # Average over scales and flips of the (resized) test image.
    keys.SEM_SEG_AUG.ENABLED = False
    # Factors of its size.
    keys.SEM_SEG_AUG.SCALES = [0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    # Each scale also mirrored; classes in the dataset's "flip_pairs" are swapped back.
    keys.SEM_SEG_AUG.FLIP = True
