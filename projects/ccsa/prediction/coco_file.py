"""Predictions of many images as one COCO JSON file, for review in an annotation tool."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccsa.errors import UserError
from ccsa.utils.files import check_new_file, check_writable, write_text
from ccsa.visualization.media import IMAGE_SUFFIXES

if TYPE_CHECKING:
    from ccsa.prediction.predictor import Predictor
    from ccsa.prediction.result import Prediction


class CocoFile:
    """A COCO JSON file of predictions, filled image by image and written once.

    Args:
        path: the file to write.
        root: the folder of the images, to which file names are relative.
        categories: COCO's ``categories``.
        description: what the file contains, for its ``info``.
        overwrite: replace the file if it exists.
        option: the name of the option or argument that names the file, for messages.

    Raises:
        UserError: the file exists, or cannot be written.
    """

    def __init__(
        self,
        path: Path,
        root: Path,
        categories: Sequence[dict[str, Any]],
        *,
        description: str = "",
        overwrite: bool = False,
        option: str = "output",
    ):
        path = path.expanduser()
        if path.suffix.lower() != ".json":
            raise UserError(f"{option} {path} does not end in .json; name a JSON file")
        if path.is_dir():
            raise UserError(f"{option} {path} is a folder; name a JSON file")
        (check_writable if overwrite else check_new_file)(path, option)
        self.path, self.root = path, root
        self._content: dict[str, Any] = {
            "info": {"description": description},
            "images": [],
            "annotations": [],
            "categories": [dict(category) for category in categories],
        }

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._content["images"])

    @property
    def annotations(self) -> list[dict[str, Any]]:
        """All annotations so far."""
        return self._content["annotations"]

    def add(self, file: str | Path, prediction: "Prediction") -> None:
        """Add an image and what was predicted for it."""
        number = len(self) + 1
        found = prediction.to_coco(number)
        height, width = prediction.size
        name = Path(os.path.relpath(file, self.root)).as_posix()
        self._content["images"].append(
            {"id": number, "file_name": name, "width": width, "height": height}
        )
        first = len(self.annotations) + 1
        self.annotations.extend({"id": first + i, **entry} for i, entry in enumerate(found))

    def write(self) -> None:
        """Write the file, which is complete or absent."""
        write_text(self.path, json.dumps(self._content))


def describe(weights: str, confidence: float) -> str:
    """Return the ``info`` of a file of predictions."""
    return (
        f"Predictions of {weights or 'random weights'} with a score of at least {confidence:g}, "
        "not reviewed; written by ccsa"
    )


def images_below(folder: Path) -> list[Path]:
    """Return the image files in a folder and in the folders below it, sorted, without hidden ones.

    Raises:
        UserError: it is not a folder, or has no images.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; name a folder of images")
    found = sorted(file for file in _visible_files(folder) if file.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise UserError(
            f"{folder} has no images ({', '.join(IMAGE_SUFFIXES)}); name a folder of images"
        )
    return found


def _visible_files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names if not name.startswith("."))


def annotate_folder(
    predictor: "Predictor", folder: Path, output: Path, *, overwrite: bool = False
) -> Path:
    """Write predictions for a folder of images; see :meth:`ccsa.Predictor.annotate_folder`."""
    folder = folder.expanduser()
    files = images_below(folder)
    weights, confidence = predictor.cfg.MODEL.WEIGHTS, predictor.confidence
    target = CocoFile(
        output,
        folder,
        predictor.categories,
        description=describe(weights, confidence),
        overwrite=overwrite,
    )
    if predictor.clip is not None:
        raise UserError("the model takes clips of videos, and a COCO file is for images")
    failed = []
    for file in files:
        try:
            target.add(file, predictor(file))
        except UserError as error:
            failed.append(str(error))
    if len(failed) == len(files):
        raise UserError(f"none of the {len(files)} images can be read: {failed[0]}")
    target.write()
    if failed:
        raise UserError(
            f"{len(failed)} of {len(files)} images could not be read, and {target.path} has the "
            f"others: {'; '.join(failed[:3])}{'; ...' if len(failed) > 3 else ''}"
        )
    return target.path
