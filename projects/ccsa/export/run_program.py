"""Runs a program on images, in a process without ccsa and Detectron2.

    python run_program.py PROGRAM IMAGES.npz OUTPUTS.npz

``--check`` starts this file as a script. It imports only the standard library, NumPy, and what runs
the program: onnxruntime, or for TorchScript torch and torchvision, whose operators the program
calls. The outputs of the image named ``a`` are stored as ``a/boxes``, ``a/scores`` and so on.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np


def program(file: str) -> Callable[[Any], dict[str, Any]]:
    """Return the program in a file as a function from an image to its outputs by name."""
    if file.endswith(".onnx"):
        import onnxruntime

        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda image: dict(zip(names, session.run(None, {"image": image}), strict=True))
    import json

    import torch
    import torchvision  # noqa: F401  registers nms and roi_align

    extra = {"metadata.json": ""}
    if file.endswith(".pt2"):
        loaded = torch.export.load(file, extra_files=extra).module()
    else:
        loaded = torch.jit.load(file, _extra_files=extra)
    names = json.loads(extra["metadata.json"])["outputs"]

    def run(image: Any) -> dict[str, Any]:
        with torch.no_grad():
            results = loaded(torch.from_numpy(image))
        return {name: x.numpy() for name, x in zip(names, results, strict=True)}

    return run


def main(file: str, images: str, outputs: str) -> None:
    run = program(file)
    results = {}
    with np.load(images) as stored:
        for key in stored.files:
            for name, value in run(stored[key]).items():
                results[f"{key}/{name}"] = value
    for module in ("ccsa", "detectron2"):
        if module in sys.modules:
            raise SystemExit(f"the program imported {module}")
    np.savez(outputs, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
