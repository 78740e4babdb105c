"""Export to torch.export, TorchScript and ONNX, and comparison of the program with the model.

A :class:`WholePart` takes an image of any height and width. Of the other parts,
height and width are free, in multiples of the part's ``multiple``. Only then is the size of every
feature map one formula of the image size, whatever its parity, and torch.export can prove that the
program is valid for every size. The batch is one image, as in inference, or the frames of one clip.
"""

import importlib.util
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ccsa.errors import MissingPackageError, UserError
from ccsa.export.metadata import EXTRA_FILE
from ccsa.export.whole import WholePart
from ccsa.export.wrappers import Part
from ccsa.ops.criss_cross import use_backend

MAX_SIZE = 8192  # the largest height and width, in pixels
OPSET = 18
Program = Callable[[Tensor], tuple[Tensor, ...]]
Metadata = Mapping[str, Any]
AnyPart = Part | WholePart


class Format(NamedTuple):
    """An export format: how it is written and loaded, and the packages that each of these needs.

    Attributes:
        suffix: the suffix of its files.
        write: writes a part to a file, given an example image and the metadata, as JSON values.
        load: returns the program in a file as a function from an image to a tuple of tensors.
        metadata: returns the metadata in a file.
        packages: the packages that ``write`` and ``run`` need besides torch.
    """

    suffix: str
    write: Callable[[AnyPart, Tensor, Path, Metadata], None]
    load: Callable[[Path], Program]
    metadata: Callable[[Path], Metadata]
    packages: Mapping[str, Sequence[str]] = {"write": (), "run": ()}


def _exported_program(part: AnyPart, image: Tensor) -> Any:
    if isinstance(part, WholePart):
        names = enumerate(("height", "width"))
        free = ({axis: torch.export.Dim(name, min=1, max=MAX_SIZE) for axis, name in names},)
        return torch.export.export(part, (image,), dynamic_shapes=free, strict=False)
    # At least 2 multiples, because torch.export treats a feature map of size 1 as a constant size.
    largest = MAX_SIZE // part.multiple
    height, width = (
        part.multiple * torch.export.Dim(name, min=2, max=largest) for name in ("rows", "columns")
    )
    sizes = ({2: height, 3: width},)
    return torch.export.export(part, (image,), dynamic_shapes=sizes, strict=False)


def _write_exported_program(part: AnyPart, image: Tensor, file: Path, metadata: Metadata) -> None:
    extra = {EXTRA_FILE: json.dumps(metadata)}
    torch.export.save(_exported_program(part, image), file, extra_files=extra)


def _load_exported_program(file: Path) -> Program:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns about its own read-only buffers
        return torch.export.load(file).module()


def _exported_program_metadata(file: Path) -> Metadata:
    extra = {EXTRA_FILE: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.load(file, extra_files=extra)
    return json.loads(extra[EXTRA_FILE])


def _write_torchscript(part: AnyPart, image: Tensor, file: Path, metadata: Metadata) -> None:
    # torch's own check uses the size of the example; `difference` compares another size.
    program = torch.jit.trace(part, image, check_trace=False)
    torch.jit.save(program, file, _extra_files={EXTRA_FILE: json.dumps(metadata)})


def _torchscript_metadata(file: Path) -> Metadata:
    extra = {EXTRA_FILE: ""}
    torch.jit.load(file, _extra_files=extra)
    return json.loads(extra[EXTRA_FILE])


def _write_onnx(part: AnyPart, image: Tensor, file: Path, metadata: Metadata) -> None:
    if isinstance(part, WholePart):
        _write_traced_onnx(part, image, file, metadata)
        return
    program = torch.onnx.export(
        _exported_program(part, image),
        (),
        opset_version=OPSET,
        dynamo=True,
        input_names=["image"],
        output_names=part.outputs,
        verbose=False,
    )
    assert program is not None  # torch returns None only for its former exporter
    for key, value in metadata.items():
        program.model.metadata_props[key] = json.dumps(value)
    program.save(file, external_data=False)  # a single file


def _write_traced_onnx(part: WholePart, image: Tensor, file: Path, metadata: Metadata) -> None:
    # This exporter takes the trace as it is; the newer one has to prove every size, which takes
    # minutes for a detector.
    import onnx

    first = image.dim() - 3  # the axis of the height; 1 for a clip
    size = {first: "height", first + 1: "width"}
    axes = {name: {0: "detections"} for name in part.outputs}
    axes |= {"semantic": {0: "height", 1: "width"}} if "semantic" in axes else {}
    if "masks" in axes:
        axes["masks"] |= {1: "height", 2: "width"}
    torch.onnx.export(
        part,
        (image,),
        file,
        dynamo=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=part.outputs,
        dynamic_axes={"image": size, **axes},
    )
    program = onnx.load(file)
    onnx.helper.set_model_props(program, {k: json.dumps(v) for k, v in metadata.items()})
    onnx.save(program, file)


def _load_onnx(file: Path) -> Program:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> tuple[Tensor, ...]:
        return tuple(map(torch.from_numpy, session.run(None, {"image": image.cpu().numpy()})))

    return run


def _onnx_metadata(file: Path) -> Metadata:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    properties = session.get_modelmeta().custom_metadata_map
    return {key: json.loads(value) for key, value in properties.items()}


FORMATS = {
    "torch.export": Format(
        ".pt2", _write_exported_program, _load_exported_program, _exported_program_metadata
    ),
    "torchscript": Format(".pt", _write_torchscript, torch.jit.load, _torchscript_metadata),
    "onnx": Format(
        ".onnx",
        _write_onnx,
        _load_onnx,
        _onnx_metadata,
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


def export(part: AnyPart, name: str, file: Path, metadata: Metadata | None = None) -> None:
    """Write a part of a model as a program.

    Args:
        part: the part, in evaluation mode; see :func:`ccsa.export.exported_part`. The program is
            written on its device.
        name: a format in :data:`FORMATS`.
        file: the file to write.
        metadata: what the file says about the program, as JSON values by name; see
            :func:`ccsa.export.metadata.program_metadata`.

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
            with use_backend("export"):  # a program cannot call the operators of ccsa
                FORMATS[name].write(part, image, file, metadata or {})
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


def example_image(part: AnyPart, rows: int, columns: int) -> Tensor:
    """Return noise that is the same in every call, on the device of the part.

    Args:
        part: the part that takes the image.
        rows, columns: height and width, in multiples of ``part.multiple``; of 61 and 67 pixels for
            a :class:`WholePart`.

    Returns:
        Shape (1, C, H, W), or (T, C, H, W) for a clip; values from 0 to 255. For a
        :class:`WholePart`, uint8 of shape (H, W, 3) or (T, H, W, 3).
    """
    if isinstance(part, WholePart):
        generator = torch.Generator().manual_seed(0)
        clip = (part.frames,) if part.frames > 1 else ()
        shape = (*clip, 61 * rows, 67 * columns, 3)
        noise = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
        return noise.to(part.preparation.mean.device)
    channels, device = part.pixel_mean.shape[0], part.pixel_mean.device
    generator = torch.Generator().manual_seed(0)
    size = (part.frames, channels, rows * part.multiple, columns * part.multiple)
    return (255 * torch.rand(size, generator=generator)).to(device)
