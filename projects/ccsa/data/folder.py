"""A user's own data: a folder, or COCO JSON files, read into Detectron2's standard dicts.

    from ccsa.data import read_folder

    data = read_folder("my_data")
    data.format, data.classes, {name: len(records) for name, records in data.splits.items()}

Nothing is copied and nothing is written. What is wrong with the data is in ``data.problems``.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ccsa.data.formats import coco, coco_folder
from ccsa.data.formats.image_files import ImageIndex
from ccsa.data.formats.registry import FORMATS
from ccsa.data.image_reader import is_file
from ccsa.data.problems import Problems
from ccsa.data.records import Split, use_one_mask_format
from ccsa.errors import UserError, one_of

logger = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")
VALIDATION_SHARE = 15  # percent of the images, if the data has no validation split


@dataclass
class FolderDataset:
    """A user's data.

    Attributes:
        root: the folder, or the folder of the JSON file.
        format: the name of its format, a key of ``ccsa.data.formats.registry.FORMATS``.
        classes: class names; ``category_id`` and label values are indices into them.
        splits: Detectron2's standard dicts of each split.
        problems: what is wrong; each has ``kind``, ``severity``, ``file`` and ``message``.
        stuff: the classes that are not countable objects (panoptic data only).
        mask_format: what ``INPUT.MASK_FORMAT`` must be.
        sources: the annotation file or folder of each split.
        created: whether the validation split was created here.
    """

    root: Path
    format: str
    classes: list[str]
    splits: dict[str, list[dict[str, Any]]]
    problems: Problems
    stuff: list[str] = field(default_factory=list)
    mask_format: str = "polygon"
    sources: dict[str, Path] = field(default_factory=dict)
    created: bool = False

    @property
    def annotations(self) -> list[dict[str, Any]]:
        """All annotations of all splits."""
        return [
            a for records in self.splits.values() for r in records for a in r.get("annotations", ())
        ]

    @property
    def has_boxes(self) -> bool:
        """Whether objects are annotated."""
        return any("annotations" in r for records in self.splits.values() for r in records)

    @property
    def has_masks(self) -> bool:
        """Whether at least one object has a mask."""
        return any("segmentation" in annotation for annotation in self.annotations)

    @property
    def has_labels(self) -> bool:
        """Whether images have a class per pixel."""
        return any("sem_seg_file_name" in r for records in self.splits.values() for r in records)

    @property
    def has_segments(self) -> bool:
        """Whether images have panoptic annotations."""
        return any("pan_seg_file_name" in r for records in self.splits.values() for r in records)


def read_folder(path: str | Path, *, format: str | None = None) -> FolderDataset:
    """Read a folder of annotated images, or a COCO JSON file whose images are beside it.

    Args:
        path: the folder or JSON file.
        format: ``coco``, ``coco_panoptic``, ``yolo``, ``labelme``, ``class_masks``,
            ``instance_labels`` or ``voc``; detected by default.

    Returns:
        The data. A missing validation split is created from a hash of the image files (85 / 15),
        the same every time.

    Raises:
        UserError: the folder does not exist, its format is not recognized, or an annotation file
            cannot be read at all. Everything else is in ``problems``.

    Example:
        >>> read_folder("no/such/folder")
        Traceback (most recent call last):
        ccsa.errors.UserError: --data no/such/folder does not exist; name a folder or a COCO file
    """
    path = Path(path).expanduser()
    if format is not None:
        one_of(FORMATS, format, "--data-format")
    if is_file(path):
        if format not in (None, "coco"):
            raise UserError(f"--data {path} is a file; name its folder to read it as {format}")
        return read_coco_files(path)
    if not os.path.isdir(path):
        state = "is not a folder" if os.path.exists(path) else "does not exist"
        raise UserError(f"--data {path} {state}; name a folder or a COCO file")
    name = format or _detect(path)
    problems = Problems()
    splits = FORMATS[name].read(path, problems)
    return _assemble(path, name, splits, problems)


def read_coco_files(
    train: str | Path,
    images: str | Path | None = None,
    val: str | Path | None = None,
    val_images: str | Path | None = None,
) -> FolderDataset:
    """Read COCO JSON files that are given one by one.

    Args:
        train: JSON file of the training split.
        images: the folder of its images; by default it is searched for beside the file.
        val: JSON file of the validation split; by default the split is created.
        val_images: the folder of its images; by default ``images``, or beside the file.

    Raises:
        UserError: a file or folder does not exist or cannot be read.
    """
    train = Path(train).expanduser()
    for option, place in (("--images", images), ("--val-images", val_images)):
        if place and not os.path.isdir(Path(place).expanduser()):
            raise UserError(f"{option} {place} is not a folder; name the folder of the images")
    if train.suffix.lower() in (".yaml", ".yml"):
        raise UserError(f"--data {train} is a YAML file; for YOLO, name its folder {train.parent}")
    files = [("train", train, _images_of(train, images, "train"))]
    if val:
        file = Path(val).expanduser()
        files.append(("val", file, _images_of(file, val_images or images, "val")))
    problems = Problems()
    return _assemble(train.parent, "coco", coco.read_splits(files, problems), problems)


def _images_of(file: Path, images: str | Path | None, split: str) -> ImageIndex:
    """Return the images of a JSON file: those in the given folder, or beside the file."""
    if images:
        return ImageIndex([Path(images).expanduser()])
    folder = file.parent.parent if file.parent.name == "annotations" else file.parent
    return coco_folder.image_index(folder, file, split)


def _detect(folder: Path) -> str:
    """Return the name of the format of a folder.

    Raises:
        UserError: no reader recognizes it.
    """
    try:
        name = next((name for name, reader in FORMATS.items() if reader.matches(folder)), None)
        inside = sorted(p.name + "/" * p.is_dir() for p in folder.iterdir())[:8]
    except PermissionError as error:
        raise UserError(f"cannot read --data {folder} ({error}); check its permissions") from error
    if name is not None:
        return name
    raise UserError(
        f"the format of --data {folder} is not recognized (it contains "
        f"{', '.join(inside) or 'nothing'}); docs/OWN_DATA.md shows the layout of each format: "
        f"{', '.join(FORMATS)}"
    )


def _assemble(root: Path, name: str, splits: list[Split], problems: Problems) -> FolderDataset:
    """Merge the classes of all splits, and create the validation split if it is missing."""
    splits = [split for split in splits if split.records or split.classes]
    if not any(split.name == "train" for split in splits):
        found = ", ".join(split.name for split in splits)
        raise UserError(
            f"--data {root} has no training split with annotated images (format {name}"
            f"{', it has ' + found if found else ''}); docs/OWN_DATA.md shows the layout"
        )
    classes = _merge_classes(splits, problems)
    _check_things(splits, problems)
    stuff = [c for c in classes if any(c in split.stuff for split in splits)]
    created = not any(split.name == "val" for split in splits)
    if created:
        train = next(split for split in splits if split.name == "train")
        splits.insert(1, _create_validation_split(train, problems))
    splits.sort(key=lambda split: SPLITS.index(split.name))
    mask_format = use_one_mask_format(splits)
    return FolderDataset(
        root=root,
        format=name,
        classes=classes,
        splits={split.name: split.records for split in splits},
        problems=problems,
        stuff=stuff,
        mask_format=mask_format,
        sources={split.name: split.source for split in splits},
        created=created,
    )


def _merge_classes(splits: Sequence[Split], problems: Problems) -> list[str]:
    """Number the classes of all splits alike, matched by name, in the order of training."""
    ordered = sorted(splits, key=lambda split: SPLITS.index(split.name))
    first = ordered[0]
    classes = list(first.classes)
    for split in ordered[1:]:
        new = [c for c in split.classes if c not in classes]
        lacking = [c for c in first.classes if c not in split.classes]
        if new or lacking:
            only = [f"only in {split.name}: {', '.join(new)}"] if new else []
            only += [f"only in {first.name}: {', '.join(lacking)}"] if lacking else []
            spelled = {"".join(c.split()).casefold(): c for c in lacking}
            pairs = [(c, spelled.get("".join(c.split()).casefold())) for c in new]
            only += [f"{c!r} and {o!r} differ only by case or spaces" for c, o in pairs if o]
            problems.add("classes_differ", split.source, "; ".join(only))
        elif split.classes != first.classes:
            problems.add(
                "classes_numbered_differently",
                split.source,
                f"{split.name} has the order {', '.join(split.classes)}, "
                f"{first.name} {', '.join(first.classes)}",
            )
        classes += new
    for split in ordered:
        index = [classes.index(c) for c in split.classes]
        for record in split.records:
            for entry in (*record.get("annotations", ()), *record.get("segments_info", ())):
                entry["category_id"] = index[entry["category_id"]]
            if "sem_seg_file_name" in record and index != list(range(len(index))):
                record["label_mapping"] = dict(enumerate(index))
    return classes


def _check_things(splits: Sequence[Split], problems: Problems) -> None:
    """Report classes that are things in one split and stuff in another."""
    for split in splits[1:]:
        first = splits[0]
        both = [c for c in split.classes if c in first.classes]
        for name in both:
            if (name in split.stuff) != (name in first.stuff):
                thing, stuff = (first, split) if name in split.stuff else (split, first)
                text = f"{name} is a thing in {thing.name} and stuff in {stuff.name}"
                problems.add("thing_or_stuff", split.source, text)


def _create_validation_split(train: Split, problems: Problems) -> Split:
    """Move 15 percent of the training images, chosen by a hash of their content, into ``val``.

    Images of the same content stay together, whatever their names are.
    """
    digests = [_digest(record["file_name"]) for record in train.records]
    distinct = sorted(set(digests), key=lambda digest: (digest % 100, digest))
    count = sum(digest % 100 < VALIDATION_SHARE for digest in distinct)
    chosen = set(distinct[: min(max(count, 1), len(distinct) - 1)] if distinct else ())
    pairs = list(zip(digests, train.records, strict=True))
    val = [record for digest, record in pairs if digest in chosen]
    train.records = [record for digest, record in pairs if digest not in chosen]
    if not val:
        text = f"{len(pairs)} images of equal content cannot be divided into training and "
        problems.add("empty_split", train.source, text + "validation")
    logger.info(
        "The data has no validation split: %d of %d images, chosen by a hash of the files, "
        "are used for validation.",
        len(val),
        len(pairs),
    )
    return Split("val", train.classes, val, train.source, train.stuff)


def _digest(file: str) -> int:
    """Return the first 8 bytes of the SHA-256 of a file; of its name if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open(file, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError:  # reported by the checks of the dataset
        digest.update(file.encode(errors="surrogateescape"))
    return int.from_bytes(digest.digest()[:8], "big")
