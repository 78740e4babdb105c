"""Export to torch.export, TorchScript and ONNX, and comparison of the program with the model.

Height and width are free, in multiples of the part's ``multiple``. Only then is the size of every
feature map one formula of the image size, whatever its parity, and torch.export can prove that the
program is valid for every size. The batch is one image, as in inference, or the frames of one clip.
"""

import importlib.util
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ccsa.errors import MissingPackageError, UserError
from ccsa.export.wrappers import Part

MAX_SIZE = 8192  # the largest height and width, in pixels
OPSET = 18
Program = Callable[[Tensor], tuple[Tensor, ...]]


class Format(NamedTuple):
    """An export format: how it is written and loaded, and the packages that each of these needs.

    Attributes:
        suffix: the suffix of its files.
        write: writes a part to a file, given an example image.
        load: returns the program in a file as a function from an image to a tuple of tensors.
        packages: the packages that ``write`` and ``run`` need besides torch.
    """

    suffix: str
    write: Callable[[Part, Tensor, Path], None]
    load: Callable[[Path], Program]
    packages: Mapping[str, Sequence[str]] = {"write": (), "run": ()}


def _exported_program(part: Part, image: Tensor) -> Any:
    # At least 2 multiples, because torch.export treats a feature map of size 1 as a constant size.
    largest = MAX_SIZE // part.multiple
    height, width = (
        part.multiple * torch.export.Dim(name, min=2, max=largest) for name in ("rows", "columns")
    )
    sizes = ({2: height, 3: width},)
    return torch.export.export(part, (image,), dynamic_shapes=sizes, strict=False)


def _write_exported_program(part: Part, image: Tensor, file: Path) -> None:
    torch.export.save(_exported_program(part, image), file)


def _load_exported_program(file: Path) -> Program:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own read-only buffers
        return torch.export.load(file).module()


def _write_torchscript(part: Part, image: Tensor, file: Path) -> None:
    # torch's own check uses the size of the example; `difference` compares another size.
    torch.jit.save(torch.jit.trace(part, image, check_trace=False), file)


def _write_onnx(part: Part, image: Tensor, file: Path) -> None:
    torch.onnx.export(
        _exported_program(part, image),
        (),
        file,
        opset_version=OPSET,
        dynamo=True,
        input_names=["image"],
        output_names=part.outputs,
        external_data=False,  # a single file
        verbose=False,
    )


def _load_onnx(file: Path) -> Program:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, session.run(None, {"image": image.cpu().numpy()})))

    return run


FORMATS = {
    "torch.export": Format(".pt2", _write_exported_program, _load_exported_program),
    "torchscript": Format(".pt", _write_torchscript, torch.jit.load),
    "onnx": Format(
        ".onnx",
        _write_onnx,
        _load_onnx,
        {"write": ("onnx", "onnxscript"), "run": ("onnxruntime",)},
    ),
}
"""The export formats by name."""


def check_packages(name: str, *uses: str) -> None:
    """Check that the packages of a format are installed.

    Args:
        name: a format in :data:`FORMATS`.
        uses: ``write``, ``run``, or both.

    Raises:
        MissingPackageError: a package is missing; the message names the command that installs it.
    """
    packages = [package for use in uses for package in FORMATS[name].packages[use]]
    missing = [package for package in packages if not _is_installed(package)]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise MissingPackageError(
            f"the format {name} needs {' and '.join(missing)}, which {verb} not installed: run "
            "pip install '.[export]' in a clone of ccsa"
        )


def _is_installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # a package that is hidden or half imported
        return False


def export(part: Part, name: str, file: Path) -> None:
    """Write a part of a model as a program.

    Args:
        part: the part, in evaluation mode; see :func:`ccsa.export.exported_part`. The program is
            written on its device.
        name: a format in :data:`FORMATS`.
        file: the file to write.

    Raises:
        UserError: the packages of the format are not installed, or it cannot express the model.

    Example:
        >>> export(exported_part(model), "onnx", Path("ccnet.onnx"))  # doctest: +SKIP
    """
    check_packages(name, "write")
    image = example_image(part, 2, 3)
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # Tracing warns about sizes that become constants; `difference` compares other sizes.
            warnings.simplefilter("ignore")
            FORMATS[name].write(part, image, file)
    except (RuntimeError, AssertionError, torch._dynamo.exc.UserError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        others = ", ".join(other for other in FORMATS if other != name)
        raise UserError(
            f"{name} cannot express this model ({reason}); try another --format: {others}"
        ) from error


def difference(part: Part, name: str, file: Path) -> tuple[tuple[int, int], float]:
    """Compare a written program with the part, at another image size than it was written with.

    Args:
        part: the part that was exported.
        name: a format in :data:`FORMATS`.
        file: the program.

    Returns:
        The (height, width) of the image, and the largest difference of an output, relative to the
        largest absolute value of that output. It is infinite if shapes differ.

    Raises:
        MissingPackageError: the packages that run the format are not installed.
    """
    check_packages(name, "run")
    image = example_image(part, 5, 4)
    with torch.no_grad():
        outputs = FORMATS[name].load(file)(image)
        expected = part(image)
    differences = [
        float((a.cpu() - b).abs().max() / b.abs().max()) if a.shape == b.shape else float("inf")
        for a, b in zip(outputs, (x.cpu() for x in expected), strict=True)
    ]
    height, width = image.shape[-2:]
    return (height, width), max(differences)


def example_image(part: Part, rows: int, columns: int) -> Tensor:
    """Return uniform noise that is the same in every call, on the device of the part.

    Args:
        part: the part that takes the image.
        rows, columns: height and width, in multiples of ``part.multiple``.

    Returns:
        Shape (1, C, H, W), or (T, C, H, W) for a clip; values from 0 to 255.
    """
    channels, device = part.pixel_mean.shape[0], part.pixel_mean.device
    generator = torch.Generator().manual_seed(0)
    size = (part.frames, channels, rows * part.multiple, columns * part.multiple)
    return (255 * torch.rand(size, generator=generator)).to(device)
