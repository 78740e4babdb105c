"""Look Into Person (LIP), single person, 20 classes that distinguish left from right.

A flipped image shows left limbs as right ones: ``flip_pairs`` in the metadata are the labels to
exchange, in training (:mod:`ccsa.data.transforms.flips`) and when flipped predictions are averaged.
"""

from pathlib import Path

from ccsa.data.family import Family
from ccsa.data.formats.id_lists import read_id_list
from ccsa.data.paths import list_files
from ccsa.data.preparation.plans import Plan, SourceMissing
from ccsa.data.semantic.splits import Split

_ROWS = [
    ("Background", [0, 0, 0]),
    ("Hat", [128, 0, 0]),
    ("Hair", [255, 0, 0]),
    ("Glove", [0, 85, 0]),
    ("Sunglasses", [170, 0, 51]),
    ("UpperClothes", [255, 85, 0]),
    ("Dress", [0, 0, 85]),
    ("Coat", [0, 119, 221]),
    ("Socks", [85, 85, 0]),
    ("Pants", [0, 85, 85]),
    ("Jumpsuits", [85, 51, 0]),
    ("Scarf", [52, 86, 128]),
    ("Skirt", [0, 128, 0]),
    ("Face", [0, 0, 255]),
    ("Left-arm", [51, 170, 221]),
    ("Right-arm", [0, 255, 255]),
    ("Left-leg", [85, 255, 170]),
    ("Right-leg", [170, 255, 85]),
    ("Left-shoe", [255, 255, 0]),
    ("Right-shoe", [255, 170, 0]),
]
CLASSES = tuple(name for name, _ in _ROWS)
COLORS = [color for _, color in _ROWS]
FLIP_PAIRS = ((14, 15), (16, 17), (18, 19))
PUBLISHED = {"train": 30462, "val": 10000}


def splits(root: Path) -> list[Split]:
    """Return the splits under ``root``."""
    folder = root / "LIP"
    return [
        Split(
            name=f"lip_sem_seg_{split}",
            image_root=folder / f"{split}_images",
            label_root=folder / f"{split}_segmentations",
            classes=CLASSES,
            colors=COLORS,
            group="lip",
            published=published,
            list_file=_list_file(folder, split),
            flip_pairs=FLIP_PAIRS,
        )
        for split, published in PUBLISHED.items()
    ]


def plan(root: Path) -> Plan:
    """Return the plan of the layout that is read: links to the downloaded folders, and lists of
    ids.

    Raises:
        SourceMissing: a folder of images or labels does not exist or is empty.
    """
    base, result = root / "LIP", Plan()
    for name, split in zip(PUBLISHED, splits(root), strict=True):
        images = _find_folder(base, split.image_root.name, "TrainVal_images")
        labels = _find_folder(base, split.label_root.name, "TrainVal_parsing_annotations")
        for expected, actual in ((split.image_root, images), (split.label_root, labels)):
            if actual != expected:
                result.links[expected] = actual
        list_file = _list_file(base, name)
        published = images.parent / list_file.name
        labeled = [path.stem for path in list_files(labels, "*.png")]
        ids = read_id_list(published) if published.is_file() else labeled
        result.lists[list_file] = ids
        if not labeled:
            raise SourceMissing(labels / "*.png")
    return result


def _list_file(base: Path, split: str) -> Path:
    return base / f"{split}_id.txt"


def _find_folder(base: Path, name: str, archive: str) -> Path:
    """Return the folder ``name``: in the folder of an unpacked archive, which some programs nest in
    a second folder of the same name, or directly where it is read."""
    for folder in (base / archive / name, base / archive / archive / name, base / name):
        if folder.is_dir():
            return folder
    raise SourceMissing(base / archive / name)


FAMILY = Family(
    name="lip",
    title="LIP (Look Into Person)",
    home="sysu-hcp.net/lip (TrainVal_images.zip, TrainVal_parsing_annotations.zip)",
    layout="""\
LIP/
  TrainVal_images/{train,val}_images/*.jpg
  TrainVal_parsing_annotations/{train,val}_segmentations/*.png
  (or both pairs of folders directly in LIP, with {train,val}_id.txt)""",
    splits=splits,
    plan=plan,
)
