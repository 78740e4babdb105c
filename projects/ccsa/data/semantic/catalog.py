"""What a segmentation dataset is here, and its registration with Detectron2.

A family is what one downloads under one name (``lip``); it has splits, each registered under its
own name (``lip_sem_seg_train``). No file is read before a dataset is asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ccsa.data.formats.label_images import IGNORE, find, misreading, read_ids
from ccsa.data.preparation.plans import Plan, SourceMissing
from ccsa.errors import UserError


@dataclass(frozen=True)
class Split:
    """Images and their labels: ``<image_root>/<id><image_suffix>`` and
    ``<label_root>/<id><label_suffix>``, the ids those of ``list_file`` or, without one, whatever
    lies in either folder or below it."""

    name: str  # as registered
    image_root: Path
    label_root: Path
    classes: tuple[str, ...]  # label i is classes[i]
    colors: list[list[int]]  # RGB, one a class
    group: str  # the splits that are made together; a family may be there in one group alone
    published: int  # how many images the publication counts
    list_file: Path | None = None
    image_suffix: str = ".jpg"
    label_suffix: str = ".png"
    flip_pairs: tuple[tuple[int, int], ...] = ()  # labels that a mirror exchanges
    frames_root: Path | None = None  # of video: all frames, named as the images are

    def absent(self) -> Path | None:
        """The first of its folders and lists that is not there."""
        places = (self.image_root, self.label_root, self.list_file)
        return next((place for place in places if place and not place.exists()), None)

    def ids(self) -> list[str]:
        """Ids in the order of the list, or sorted; files need not be there.

        Raises:
            UserError: the list cannot be read.
        """
        if self.list_file:
            return read_ids(self.list_file)
        found = _ids_below(self.image_root, self.image_suffix)
        return sorted(found | _ids_below(self.label_root, self.label_suffix))

    def pair(self, name: str) -> tuple[Path, Path]:
        """Image and label of one id."""
        return (
            self.image_root / f"{name}{self.image_suffix}",
            self.label_root / f"{name}{self.label_suffix}",
        )


@dataclass(frozen=True)
class Family:
    """A dataset as published: where it comes from, how it lies on disk, and what is made of it."""

    name: str  # what the tools call it
    title: str
    home: str  # where one gets it
    layout: str  # a tree, under the root, of what is downloaded
    splits: Callable[[Path], list]  # Split, or PanopticSplit of panoptic datasets
    plan: Callable[[Path], Plan]  # raises SourceMissing
    write: Callable[[Path], object] | None = None  # of one that is not downloaded: writes it

    @property
    def prepare_command(self) -> str:
        return f"python tools/prepare_dataset.py {self.name}"

    def absence(self, root: Path, place: Path) -> UserError:
        """The error for a file or folder that is not there: get the dataset, or prepare it."""
        try:
            self.plan(root)
        except SourceMissing as error:
            return self.missing(root, error.place)
        return UserError(
            f"{self.title} is not prepared: no {place.absolute()}; run {self.prepare_command}, "
            f"and if that does not help, python tools/check_dataset.py {self.name}"
        )

    def missing(self, root: Path, place: Path) -> UserError:
        """The error that says what was looked for, what is expected and where to get it."""
        return UserError(
            f"{self.title} is not there: no {place.absolute()}. "
            f"Get it from {self.home} and lay it out like this under {root.absolute()}, "
            f"or name the folder that has it (export DETECTRON2_DATASETS=FOLDER):\n{self.layout}"
        )


def load(family: Family, name: str, root: Path) -> list[dict]:
    """The split called ``name`` in Detectron2's format: a dict of ``file_name`` and
    ``sem_seg_file_name`` for each image, and of video ``frames_root``, which may not be there.

    Sizes are left to the mapper, which reads them off the image: that costs nothing, and a wrong
    one cannot get in.

    Raises:
        UserError: the dataset is not there or not prepared, or its labels would be misread.
    """
    # Looked for now: it may have been put there since it was registered.
    split = next(split for split in family.splits(root) if split.name == name)
    absent = split.absent()
    ids = [] if absent else split.ids()
    if not ids:
        raise family.absence(root, absent or split.image_root / f"*{split.image_suffix}")
    for path in split.pair(ids[0]):
        if not path.exists():
            raise family.absence(root, path)
    _refuse_misreading(split.pair(ids[0])[1])
    pairs = map(split.pair, ids)
    video = {"frames_root": str(split.frames_root)} if split.frames_root else {}
    return [
        {"file_name": str(image), "sem_seg_file_name": str(label), **video}
        for image, label in pairs
    ]


def register(family: Family, split: Split, root: Path) -> None:
    """Register a split; of one that Detectron2 has already, only what it lacks is added."""
    metadata = MetadataCatalog.get(split.name)
    extra = {"stuff_colors": split.colors, "prepare_command": family.prepare_command}
    if split.name in DatasetCatalog:
        metadata.set(**{key: value for key, value in extra.items() if not metadata.get(key)})
        return
    DatasetCatalog.register(split.name, lambda: load(family, split.name, root))
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
    found = (path.relative_to(folder).as_posix() for path in find(folder, f"**/*{suffix}"))
    return {name[: -len(suffix)] for name in found}


def _refuse_misreading(label: Path) -> None:
    try:
        with Image.open(label) as image:
            problem = misreading(image)
    except (OSError, SyntaxError) as error:
        raise UserError(f"cannot read {label} ({error}); put a good copy in its place") from error
    if problem:
        raise UserError(
            f"{label} has {problem}; move the folder {label.parent.absolute()} away and let "
            "tools/prepare_dataset.py make it anew"
        )
