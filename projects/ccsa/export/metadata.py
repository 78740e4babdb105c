"""What an exported program says about itself: its classes, and how the image it takes is read.

The program is used without its configuration, so everything that its caller must know is in the
file: as ``metadata_props`` in ONNX, and as the extra file ``metadata.json`` in the other formats.
"""

from collections.abc import Sequence
from typing import Any

from detectron2.config import CfgNode

import ccsa
from ccsa.data.image_reader import intensity_range
from ccsa.export.rcnn import InstancePart
from ccsa.export.whole import WholePart

EXTRA_FILE = "metadata.json"  # in torch.export and TorchScript
_READING = (
    "float32 values from 0 to 255 in the order of 'channels'; gray images are repeated in every "
    "channel"
)
_ANY_SIZE = (
    "uint8 of shape (height, width, 3) in the order of 'input_channels', of any height and width; "
    "the program resizes and normalizes it"
)
_TILE = (
    "uint8 of shape (height, width, 3) in the order of 'input_channels', one of the 'tiles' of an "
    "image whose sides were resized to 'shorter_side' (0: not resized) and 'longer_side_at_most'; "
    "the program normalizes it"
)
_DEEP = (
    "; images of more than 8 bits are mapped linearly, so that intensity_range becomes 0 and 255, "
    "rounded and clipped"
)


def program_metadata(
    cfg: CfgNode,
    things: Sequence[str] = (),
    stuff: Sequence[str] = (),
    part: WholePart | None = None,
) -> dict[str, Any]:
    """Return the metadata of an exported program, as JSON values.

    Args:
        cfg: the configuration of the model.
        things: its classes of objects.
        stuff: its classes of pixels; those of a semantic model are the axis 1 of its logits.
        part: the exported model, if it takes images of any size.

    Example:
        >>> from detectron2.config import get_cfg
        >>> from ccsa.config import add_ccsa_config
        >>> cfg = get_cfg()
        >>> add_ccsa_config(cfg)
        >>> cfg.INPUT.INTENSITY_RANGE = [0, 4000]
        >>> metadata = program_metadata(cfg, stuff=["background", "cell"])
        >>> metadata["stuff_classes"], metadata["channels"], metadata["intensity_range"]
        (['background', 'cell'], 'BGR', [0.0, 4000.0])
    """
    known = intensity_range(cfg.INPUT.INTENSITY_RANGE)
    more: dict[str, Any] = {}
    if part is not None:
        more = {
            "image": (_TILE if cfg.TEST.TILES.ENABLED else _ANY_SIZE) + _DEEP * (known is not None),
            "input_channels": "RGB",
            "outputs": part.outputs,
            "frames": part.frames,
        }
    if isinstance(part, InstancePart):
        more |= {"score_threshold": part.threshold, "most_detections": part.most}
    if cfg.TEST.TILES.ENABLED:
        keys = cfg.TEST.TILES
        more["tiles"] = {"size": list(keys.SIZE), "overlap": list(keys.OVERLAP)}
    return {
        "thing_classes": list(things),
        "stuff_classes": list(stuff),
        "channels": cfg.INPUT.FORMAT,
        "intensity_range": list(known) if known else None,
        "image": _READING + _DEEP * (known is not None),
        "shorter_side": cfg.INPUT.MIN_SIZE_TEST,
        "longer_side_at_most": cfg.INPUT.MAX_SIZE_TEST,
        "version": ccsa.__version__,
        "model": cfg.MODEL.CONTEXT.META_ARCHITECTURE,
        "blocks": [dict(block) for block in cfg.MODEL.CONTEXT.BLOCKS],
        **more,
    }
