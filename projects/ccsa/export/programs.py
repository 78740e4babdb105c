"""Export to three formats, and the exported program run beside the model.

Height and width are free, in multiples of what the part names: only then do sizes of all maps
follow from the image's by one formula each, whichever parity they have, and torch.export can prove
that the program holds for every size. The batch is one image, as at test time, or the frames of one
clip.
"""

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ccsa.errors import UserError
from ccsa.export.wrappers import Part

LARGEST = 8192  # of height and width
OPSET = 18
Run = Callable[[Tensor], tuple[Tensor, ...]]


class Format(NamedTuple):
    """How a format is written and run, and the packages that each takes."""

    suffix: str
    write: Callable[[Part, Tensor, Path], None]
    load: Callable[[Path], Run]
    packages: Mapping[str, Sequence[str]] = {"write": (), "run": ()}


def _program(part: Part, image: Tensor) -> Any:
    # From 2 on: torch.export takes the size of a map that is 1 for a constant.
    largest = LARGEST // part.multiple
    height, width = (
        part.multiple * torch.export.Dim(name, min=2, max=largest) for name in ("rows", "columns")
    )
    sizes = ({2: height, 3: width},)
    return torch.export.export(part, (image,), dynamic_shapes=sizes, strict=False)


def _write_program(part: Part, image: Tensor, file: Path) -> None:
    torch.export.save(_program(part, image), file)


def _load_program(file: Path) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its own buffers, which it does not write to
        return torch.export.load(file).module()


def _write_torchscript(part: Part, image: Tensor, file: Path) -> None:
    # The program is compared at another size afterwards; torch's own check is of this one.
    torch.jit.save(torch.jit.trace(part, image, check_trace=False), file)


def _write_onnx(part: Part, image: Tensor, file: Path) -> None:
    torch.onnx.export(
        _program(part, image),
        (),
        file,
        opset_version=OPSET,
        dynamo=True,
        input_names=["image"],
        output_names=part.outputs,
        external_data=False,  # one file
        verbose=False,
    )


def _load_onnx(file: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, session.run(None, {"image": image.cpu().numpy()})))

    return run


FORMATS = {
    "torch.export": Format(".pt2", _write_program, _load_program),
    "torchscript": Format(".pt", _write_torchscript, torch.jit.load),
    "onnx": Format(
        ".onnx",
        _write_onnx,
        _load_onnx,
        {"write": ("onnx", "onnxscript"), "run": ("onnxruntime",)},
    ),
}


def check_packages(name: str, *uses: str) -> None:
    """Refuse a format whose packages are not installed.

    Args:
        name: of the format, among ``FORMATS``.
        uses: "write", "run".

    Raises:
        UserError: with the command that gets them.
    """
    packages = [package for use in uses for package in FORMATS[name].packages[use]]
    lacking = [package for package in packages if importlib.util.find_spec(package) is None]
    if lacking:
        raise UserError(f"{name} needs {' and '.join(lacking)}: pip install {' '.join(lacking)}")


def export(part: Part, name: str, file: Path) -> None:
    """Write a part of a model, on its device, in evaluation mode.

    Args:
        part: see :func:`ccsa.export.exported_part`.
        name: of the format, among ``FORMATS``.
        file: what is written.

    Raises:
        UserError: the format's packages are not installed, or it cannot express the model.
    """
    check_packages(name, "write")
    image = example(part, 2, 3)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that tracing takes for constants: compared
            FORMATS[name].write(part, image, file)
    except (RuntimeError, AssertionError, torch._dynamo.exc.UserError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        others = ", ".join(other for other in FORMATS if other != name)
        raise UserError(
            f"{name} cannot express this model ({reason}); try another --format: {others}"
        ) from error


def difference(part: Part, name: str, file: Path) -> tuple[tuple[int, int], float]:
    """Run a written program beside the part, at another size than it was written at.

    Returns:
        That (height, width), and the largest difference of an output as a share of its largest
        value; infinite where shapes differ.

    Raises:
        UserError: the packages that run the format are not installed.
    """
    check_packages(name, "run")
    image = example(part, 5, 4)
    with torch.no_grad():
        outputs = FORMATS[name].load(file)(image)
        expected = part(image)
    shares = [
        float((a.cpu() - b).abs().max() / b.abs().max()) if a.shape == b.shape else float("inf")
        for a, b in zip(outputs, (x.cpu() for x in expected), strict=True)
    ]
    return tuple(image.shape[-2:]), max(shares)


def example(part: Part, rows: int, columns: int) -> Tensor:
    """Noise of that many multiples, (1, C, H, W) or a clip's (T, C, H, W), the same every time."""
    channels, device = part.pixel_mean.shape[0], part.pixel_mean.device
    generator = torch.Generator().manual_seed(0)
    size = (part.frames, channels, rows * part.multiple, columns * part.multiple)
    return (255 * torch.rand(size, generator=generator)).to(device)
