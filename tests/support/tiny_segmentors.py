"""Configurations of tiny semantic and video models, for tests of exported programs."""

BLOCK = {"block": "CrissCross", "recurrence": 1}  # torch.export needs seconds for each recurrence


def semantic(cfg):
    """Configure CCNet's head on two convolutions."""
    cfg.MODEL.CONTEXT.META_ARCHITECTURE = "DenseSegmentor"
    cfg.MODEL.BACKBONE.NAME = "PlainBackbone"
    cfg.MODEL.PLAIN.CHANNELS, cfg.MODEL.PLAIN.STRIDES = [4, 8], [2, 2]
    head = cfg.MODEL.SEM_SEG_HEAD
    head.NAME, head.IN_FEATURES, head.NUM_CLASSES, head.CONVS_DIM = "CCNetHead", ["conv2"], 5, 8
    head.NORM, head.AUX.WEIGHT, head.BLOCKS, head.ALIGN_CORNERS = "BN", 0.0, [BLOCK], True


def video(cfg):
    """Configure 3D criss-cross attention on clips of three frames, the middle one labeled."""
    semantic(cfg)
    cfg.MODEL.CONTEXT.META_ARCHITECTURE = "VideoSemanticSegmentor"
    cfg.MODEL.SEM_SEG_HEAD.NAME = "VideoCCNetHead"
    cfg.INPUT.CLIP.FRAMES, cfg.INPUT.CLIP.LABELLED = 3, "middle"
