"""Configurations of tiny detectors with random weights, on the digits."""

from copy import deepcopy

MASK_RCNN = {
    "MODEL": {
        "META_ARCHITECTURE": "ContextModel",
        "MASK_ON": True,
        "DEVICE": "cpu",
        "WEIGHTS": "",
        "BACKBONE": {"NAME": "build_resnet_fpn_backbone"},
        "RESNETS": {
            "DEPTH": 18,
            "RES2_OUT_CHANNELS": 64,
            "NORM": "BN",
            "OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        },
        "FPN": {"IN_FEATURES": ["res2", "res3", "res4", "res5"], "OUT_CHANNELS": 32},
        "ANCHOR_GENERATOR": {"SIZES": [[16], [32], [64], [128], [256]]},
        "RPN": {"IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"], "POST_NMS_TOPK_TEST": 20},
        "ROI_HEADS": {
            "NAME": "StandardROIHeads",
            "IN_FEATURES": ["p2", "p3", "p4", "p5"],
            "NUM_CLASSES": 10,
        },
        "ROI_BOX_HEAD": {"NAME": "FastRCNNConvFCHead", "NUM_FC": 1, "FC_DIM": 64},
        "ROI_MASK_HEAD": {"NAME": "MaskRCNNConvUpsampleHead", "NUM_CONV": 1, "CONV_DIM": 16},
        "CONTEXT": {"BLOCKS": [{"at": "backbone.bottom_up.res4", "block": "CrissCross"}]},
    },
    "DATASETS": {"TRAIN": ["digits_train"], "TEST": ["digits_val"]},
    "DATALOADER": {"NUM_WORKERS": 0},
    "INPUT": {"MIN_SIZE_TEST": 128, "MAX_SIZE_TEST": 256},
    "TEST": {"DETECTIONS_PER_IMAGE": 5},
}

PANOPTIC_FPN = deepcopy(MASK_RCNN)
PANOPTIC_FPN["MODEL"]["CONTEXT"]["META_ARCHITECTURE"] = "PanopticFPN"
PANOPTIC_FPN["MODEL"]["SEM_SEG_HEAD"] = {
    "NAME": "SemSegFPNHead",
    "NUM_CLASSES": 4,
    "CONVS_DIM": 32,
}
for split, names in PANOPTIC_FPN["DATASETS"].items():
    PANOPTIC_FPN["DATASETS"][split] = [f"{name}_panoptic_separated" for name in names]
