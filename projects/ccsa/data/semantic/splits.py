"""Splits of semantic segmentation datasets, and their registration with Detectron2.

No file is read before a dataset is loaded.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ccsa.data.family import Family
from ccsa.data.formats.id_lists import read_id_list
from ccsa.data.formats.label_images import IGNORE, misread_reason
from ccsa.data.paths import list_files
from ccsa.errors import UserError
from ccsa.utils.files import regular_file


@dataclass(frozen=True)
class Split:
    """Images ``<image_root>/<id><image_suffix>`` and labels ``<label_root>/<id><label_suffix>``.

    The ids are those of ``list_file`` or, without one, those of all files in either folder or its
    subfolders.
    """

    name: str  # as registered
    image_root: Path
    label_root: Path
    classes: tuple[str, ...]  # label i is classes[i]
    colors: list[list[int]]  # RGB, one per class
    group: str  # splits that are made together; a family may have files of one group only
    published: int  # the number of images that the publication states
    list_file: Path | None = None
    image_suffix: str = ".jpg"
    label_suffix: str = ".png"
    flip_pairs: tuple[tuple[int, int], ...] = ()  # labels that a horizontal flip exchanges
    frames_root: Path | None = None  # of video: all frames, named like the images

    def first_missing(self) -> Path | None:
        """Return the first of its folders and lists that does not exist; None if all exist."""
        paths = (self.image_root, self.label_root, self.list_file)
        return next((path for path in paths if path and not path.exists()), None)

    def ids(self) -> list[str]:
        """Return the ids in the order of the list, or sorted; their files may be missing.

        Raises:
            UserError: the list cannot be read.
        """
        if self.list_file:
            return read_id_list(self.list_file)
        images = _ids_below(self.image_root, self.image_suffix)
        return sorted(images | _ids_below(self.label_root, self.label_suffix))

    def pair(self, name: str) -> tuple[Path, Path]:
        """Return the image and the label image of an id."""
        return (
            self.image_root / f"{name}{self.image_suffix}",
            self.label_root / f"{name}{self.label_suffix}",
        )


def load(family: Family, name: str, root: Path) -> list[dict[str, Any]]:
    """Return the records of the split called ``name`` in Detectron2's format.

    Each record has ``file_name`` and ``sem_seg_file_name``; a video dataset also has
    ``frames_root``, which may not exist. Sizes are left to the mapper, which reads them from the
    image: this costs nothing, and they cannot be wrong.

    Raises:
        UserError: the dataset is not downloaded or not prepared, or its labels would be misread.
    """
    # The splits are listed again, because files may have been added since the registration.
    split = next(split for split in family.splits(root) if split.name == name)
    missing = split.first_missing()
    ids = [] if missing else split.ids()
    if not ids:
        raise family.unavailable(root, missing or split.image_root / f"*{split.image_suffix}")
    for path in split.pair(ids[0]):
        if not path.exists():
            raise family.unavailable(root, path)
    _check_label_image(split.pair(ids[0])[1])
    video = {"frames_root": str(split.frames_root)} if split.frames_root else {}
    return [
        {"file_name": str(image), "sem_seg_file_name": str(label), **video}
        for image, label in map(split.pair, ids)
    ]


def register(family: Family, split: Split, root: Path) -> None:
    """Register a split. If Detectron2 has registered it already, only missing metadata is added."""
    metadata = MetadataCatalog.get(split.name)
    extra = {"stuff_colors": split.colors, "prepare_command": family.prepare_command}
    if split.name in DatasetCatalog:
        metadata.set(**{key: value for key, value in extra.items() if not metadata.get(key)})
        return
    DatasetCatalog.register(split.name, partial(load, family, split.name, root))
    metadata.set(
        evaluator_type="sem_seg",
        image_root=str(split.image_root),
        sem_seg_root=str(split.label_root),
        stuff_classes=list(split.classes),
        ignore_label=IGNORE,
        flip_pairs=split.flip_pairs,
        **extra,
    )


def _ids_below(folder: Path, suffix: str) -> set[str]:
    files = list_files(folder, f"**/*{suffix}")
    return {path.relative_to(folder).as_posix().removesuffix(suffix) for path in files}


def _check_label_image(path: Path) -> None:
    """Raise a UserError if Detectron2 would misread a label image."""
    try:
        with Image.open(regular_file(path)) as image:
            reason = misread_reason(image)
    except (OSError, SyntaxError) as error:
        raise UserError(f"cannot read {path} ({error}); replace it with an intact copy") from error
    if reason:
        raise UserError(
            f"{path} has {reason}; move the folder {path.parent.absolute()} away and let "
            "tools/prepare_dataset.py make it again"
        )
