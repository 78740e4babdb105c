"""Comparison of a detection program with its model, at sizes that were not traced.

The program runs in a process of its own (:mod:`ccsa.export.run_program`). The model runs in eager
mode on the image as the program resizes it.
"""

import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from ccsa.errors import UserError
from ccsa.export import run_program
from ccsa.export.canvas import eager_inputs
from ccsa.export.rcnn import InstancePart
from ccsa.export.semantic import SemanticProgram

BOX, SCORE, IOU = 0.01, 1e-4, 0.999
"""The largest differences: boxes in pixels, scores, and the smallest IoU of two masks."""

SIZES = ((120, 150), (77, 203), (300, 64), (211, 333), (128, 128), (1, 1))
"""Heights and widths of the compared images; none is the size of the example of the trace."""


class Difference(NamedTuple):
    """How a program differs from its model on one image.

    Attributes:
        expected: the number of detections of the model.
        box, score: the largest differences, in pixels and of scores.
        iou: the smallest IoU of two masks of one detection.
        unmatched: how many detections only one of them has, apart from those at a limit.
    """

    expected: int
    box: float
    score: float
    iou: float
    unmatched: int

    @property
    def agrees(self) -> bool:
        """Whether all differences are within :data:`BOX`, :data:`SCORE` and :data:`IOU`."""
        within = self.box <= BOX and self.score <= SCORE and self.iou >= IOU
        return within and not self.unmatched


def test_images() -> dict[str, np.ndarray]:
    """Return blurred noise of every size in :data:`SIZES`, and a uniform image, by name.

    The images are uint8 (H, W, 3) and the same in every call.
    """
    generator = np.random.default_rng(0)
    images = {}
    for height, width in SIZES:
        coarse = generator.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        large = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
        noise = generator.integers(0, 32, large.shape)
        images[f"{height}x{width}"] = (large * (224 / 256) + noise).astype(np.uint8)
    images["uniform"] = np.full((90, 111, 3), 128, np.uint8)
    return images


def run_alone(file: Path, images: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Return the outputs of a program by image and name, run in a process without ccsa.

    Raises:
        UserError: the program failed there.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, results = Path(folder, "images.npz"), Path(folder, "outputs.npz")
        np.savez(given, **images)  # type: ignore[arg-type]  # the stubs take any to be a flag
        # -I: neither the current folder nor PYTHONPATH is searched for modules.
        command = [sys.executable, "-I", run_program.__file__, str(file), str(given), str(results)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise UserError(f"the program {file} failed in a process of its own: {reason}")
        outputs: dict[str, dict[str, np.ndarray]] = {key: {} for key in images}
        with np.load(results) as stored:
            for key in stored.files:
                image, name = key.rsplit("/", 1)
                outputs[image][name] = stored[key]
        return outputs


def detection_differences(
    model: Any, part: InstancePart, file: Path, images: Mapping[str, np.ndarray] | None = None
) -> dict[str, Difference]:
    """Compare a program with its model in eager mode, by name of the image.

    Args:
        model: the Detectron2 model, in evaluation mode.
        part: its exported form, which states how images are resized and where detections end.
        file: the program.
        images: uint8 RGB (H, W, 3) by name; by default :func:`test_images`.

    Raises:
        UserError: the program failed.
    """
    images = test_images() if images is None else images
    found = run_alone(file, images)
    differences = {}
    for name, image in images.items():
        with torch.no_grad():
            instances = model(eager_inputs(part, [torch.from_numpy(image)]))[0]["instances"]
        expected = {
            "boxes": instances.pred_boxes.tensor.cpu().numpy(),
            "scores": instances.scores.cpu().numpy(),
            "classes": instances.pred_classes.cpu().numpy(),
        }
        if "masks" in part.outputs:
            expected["masks"] = instances.pred_masks.cpu().numpy()
        differences[name] = compare(found[name], expected, part.threshold, part.most)
    return differences


def semantic_differences(model: Any, part: SemanticProgram, file: Path) -> dict[str, float]:
    """Return the fraction of pixels whose class differs from the model's, by name of the image.

    Pixels whose two best logits are within a thousandth of the largest logit are not counted. A
    result of another size counts completely.

    Args:
        model: the model in evaluation mode.
        part: its exported form.
        file: the program.

    Raises:
        UserError: the program failed.
    """
    images = test_images()
    if part.frames > 1:  # each frame is another one, so that their order matters
        clips = {k: [np.roll(x, i, (0, 1)) for i in range(part.frames)] for k, x in images.items()}
        images = {key: np.stack(clip) for key, clip in clips.items()}
    found = run_alone(file, images)
    differences = {}
    for name, image in images.items():
        with torch.no_grad():
            logits = model(eager_inputs(part, [torch.from_numpy(image)]))[0]["sem_seg"].cpu()
        classes, expected = found[name]["semantic"], logits.argmax(0).numpy()
        if classes.shape != expected.shape:
            differences[name] = 1.0
            continue
        best = logits.topk(2, dim=0).values
        clear = (best[0] - best[1] > 1e-3 * logits.abs().max()).numpy()
        differences[name] = float(((classes != expected) & clear).mean())
    return differences


def compare(
    found: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    threshold: float,
    most: int,
) -> Difference:
    """Compare the detections of a program with those of its model.

    A detection that only one of them has is accepted if its score is within :data:`SCORE` of the
    threshold, or of the lowest score if there are as many as the limit allows.

    Args:
        found, expected: boxes (N, 4), scores (N,), classes (N,), and masks (N, H, W) or none.
        threshold, most: the threshold of the scores, and the largest number of detections.
    """
    free = set(range(len(found["scores"])))
    box = score = 0.0
    iou, single = 1.0, []
    for i, value in enumerate(expected["scores"]):
        near = [j for j in free if found["classes"][j] == expected["classes"][i]]
        gaps = {j: _gap(found["boxes"][j], expected["boxes"][i]) for j in near}
        best = min(near, key=gaps.__getitem__, default=None)
        if best is None or gaps[best] > 1.0:  # another detection
            single.append(float(value))
            continue
        free.remove(best)
        box = max(box, gaps[best])
        score = max(score, abs(float(found["scores"][best]) - float(value)))
        if "masks" in expected:
            iou = min(iou, _iou(found["masks"][best], expected["masks"][i]))
    single += [float(found["scores"][j]) for j in free]
    limits = [threshold]
    for side in (found["scores"], expected["scores"]):
        if len(side) == most:
            limits.append(float(side.min()))
    unmatched = sum(all(abs(x - limit) > SCORE for limit in limits) for x in single)
    return Difference(len(expected["scores"]), box, score, iou, unmatched)


def _gap(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    """Return the IoU of two masks; 1 if both are empty, 0 if their sizes differ."""
    if a.shape != b.shape:
        return 0.0
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 1.0
