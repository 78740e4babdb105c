"""Programs in 8-bit integers: onnxruntime's static quantization of convolutions and linear layers.

Weights and activations of convolutions and linear layers are quantized (QDQ form, weights of each
channel); everything else stays float32, and so do the context blocks, because the softmax of
attention depends on small differences of large scores. The ranges of the activations are those that
occur on images of the run's dataset.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from torch import nn

from ccsa.blocks.base import GatedBlock
from ccsa.data.image_reader import intensity_range, read_image
from ccsa.data.loaders import load_records
from ccsa.errors import UserError
from ccsa.utils.files import atomic_write

IMAGES = 64  # for calibration
LEAST = 8
QUANTIZED = ("Conv", "Gemm")
INFO = "int8"  # the name of the entry in the metadata


def calibration_images(cfg: CfgNode, count: int = IMAGES) -> list[np.ndarray]:
    """Return images of the first training dataset at equal distances, or of the first test dataset
    if there is none.

    Args:
        cfg: the configuration of a run.
        count: the number of images, at most.

    Returns:
        uint8 RGB (H, W, 3), or clips (T, H, W, 3) for a model that takes clips.

    Raises:
        UserError: the configuration has no dataset, or fewer than eight images.
    """
    names = (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)
    if not names:
        raise UserError(
            "--int8 needs images of the run's dataset, but its configuration has none; set "
            "DATASETS.TRAIN"
        )
    if names[0] not in DatasetCatalog.list():
        raise UserError(f"--int8 needs the dataset {names[0]}, which is not registered; see --data")
    records = load_records(cfg, names[0])
    if len(records) < LEAST:
        raise UserError(
            f"--int8 needs at least {LEAST} images, but {names[0]} has {len(records)}; add images"
        )
    chosen = np.linspace(0, len(records) - 1, min(count, len(records))).round().astype(int)
    intensities = intensity_range(cfg.INPUT.get("INTENSITY_RANGE", "auto"))
    return [program_input(records[i], intensities) for i in chosen]


def program_input(record: dict[str, Any], intensities: Any) -> np.ndarray:
    """Return the image (H, W, 3) of a record, or its clip (T, H, W, 3), as a program takes it."""
    files = record.get("clip_file_names")
    if files is None:
        return read_image(record["file_name"], intensity_range=intensities)
    return np.stack([read_image(file, intensity_range=intensities) for file in files])


def block_paths(model: nn.Module) -> list[str]:
    """Return the module paths of the context blocks of a model."""
    return [path for path, module in model.named_modules() if isinstance(module, GatedBlock)]


def is_quantized(operation: str, name: str, blocks: Sequence[str]) -> bool:
    """Return whether a node of an ONNX program is quantized.

    Args:
        operation: the type of the node.
        name: its name, whose parts are the modules that it is in.
        blocks: the module paths of the context blocks.

    Example:
        >>> is_quantized("Conv", "/backbone/res4/conv1/Conv", ["backbone.res4.0.context"])
        True
        >>> is_quantized("Gemm", "/backbone/res4/context/Gemm", ["backbone.res4.0.context"])
        False
    """
    parts = [part for part in name.split("/") if part and not part.isdigit()]
    inside = any(path == part or path.endswith(f".{part}") for part in parts for path in blocks)
    return operation in QUANTIZED and not inside


def quantize(file: Path, output: Path, images: Sequence[np.ndarray], blocks: Sequence[str]) -> int:
    """Write a program in 8-bit integers.

    Args:
        file: a program in ONNX that takes images of any size.
        output: the file to write.
        images: for calibration.
        blocks: the module paths of the context blocks, which stay float32.

    Returns:
        The number of layers that are quantized.

    Raises:
        UserError: the program has no layer to quantize, or onnxruntime cannot quantize it.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.remaining = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.remaining, None)
            return None if image is None else {"image": image}

    program = onnx.load(file)
    nodes = [n.name for n in program.graph.node if is_quantized(n.op_type, n.name, blocks)]
    if not nodes:
        raise UserError("--int8: the program has no convolution outside its context blocks")
    info = {
        "calibration_images": len(images),
        "quantized_layers": len(nodes),
        "float32": "context blocks, and all operations but convolutions and linear layers",
    }
    with atomic_write(output) as partial:
        try:
            quantize_static(
                str(file),
                str(partial),
                Images(),
                quant_format=QuantFormat.QDQ,
                nodes_to_quantize=nodes,
                per_channel=True,
            )
        except UserError:
            raise
        except Exception as error:  # whatever onnxruntime raises
            reason = " ".join(str(error).split())[:200]
            raise UserError(
                f"--int8: onnxruntime cannot quantize this program ({reason})"
            ) from error
        written = onnx.load(partial)
        # onnxruntime adds entries that are not JSON.
        known = {entry.key: entry.value for entry in program.metadata_props}
        del written.metadata_props[:]
        onnx.helper.set_model_props(written, known | {INFO: json.dumps(info)})
        onnx.save(written, partial)
    return len(nodes)
