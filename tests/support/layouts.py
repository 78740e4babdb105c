"""Small copies of the six datasets, laid out as they are published."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (24, 32)  # height, width
SEGNET = "/SegNet/CamVid"  # the paths in its lists are of its author's machine


def spread(values, size=SIZE) -> np.ndarray:
    """(H, W) uint16 labels that hold all ``values``, in order."""
    return np.resize(np.asarray(list(values), np.uint16), size)


def photo(path: Path, size=SIZE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(noise).save(path)


def grey(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def palette(path: Path, values: np.ndarray) -> None:
    """A palette PNG as VOC's: the indices are the labels, the colours are for the eye."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8)).convert("P")
    image.putdata(values.ravel().tolist())
    colors = np.random.default_rng(0).integers(0, 255, (256, 3))
    colors[0] = 0
    image.putpalette(colors.ravel().tolist())
    image.save(path)


def lines(path: Path, entries) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{entry}\n" for entry in entries))


def cityscapes(root: Path) -> None:
    frames = {"train": ["aachen_000000", "aachen_000001", "bochum_000000"], "val": ["ulm_000000"]}
    for split, names in frames.items():
        for name in names:
            city = name.partition("_")[0]
            stem = f"{name}_000019"
            labels = root / "cityscapes" / "gtFine" / split / city
            photo(root / f"cityscapes/leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png")
            ids = spread([*range(34), 255])
            grey(labels / f"{stem}_gtFine_labelIds.png", ids)
            grey(labels / f"{stem}_gtFine_instanceIds.png", ids)
            sizes = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": []}
            (labels / f"{stem}_gtFine_polygons.json").write_text(json.dumps(sizes))


def ade20k(root: Path) -> None:
    base = root / "ADEChallengeData2016"
    for folder, names in {
        "training": ["ADE_train_00000001", "ADE_train_00000002"],
        "validation": ["ADE_val_00000001"],
    }.items():
        for name in names:
            photo(base / "images" / folder / f"{name}.jpg")
            grey(base / "annotations" / folder / f"{name}.png", spread(range(151)))


def lip(root: Path, nested: bool = False) -> None:
    """As the two archives unpack; some unpackers nest each in a folder of its name."""
    images = root / "LIP" / ("TrainVal_images/TrainVal_images" if nested else "TrainVal_images")
    labels = root / "LIP" / "TrainVal_parsing_annotations"
    for split, names in {"train": ["77_471474", "100034_483681"], "val": ["7_5"]}.items():
        for name in names:
            photo(images / f"{split}_images" / f"{name}.jpg")
            grey(labels / f"{split}_segmentations" / f"{name}.png", spread(range(20)))
        if not nested:
            lines(images / f"{split}_id.txt", names)


VOC_IDS = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033", "2007_000042"]}
SBD_IDS = ["2007_000039", "2007_000042", "2008_000002", "2008_000003"]  # a train, a val, two more


def pascal_voc(root: Path, sbd: bool = True) -> None:
    voc = root / "VOCdevkit" / "VOC2012"
    for split, names in VOC_IDS.items():
        lines(voc / "ImageSets" / "Segmentation" / f"{split}.txt", names)
        for name in names:
            palette(voc / "SegmentationClass" / f"{name}.png", spread([*range(21), 255]))
    for name in {*VOC_IDS["train"], *VOC_IDS["val"], *SBD_IDS}:
        photo(voc / "JPEGImages" / f"{name}.jpg")
    for name in SBD_IDS if sbd else ():
        mat = root / "VOCdevkit" / "VOCaug" / "dataset" / "cls" / f"{name}.mat"
        mat.parent.mkdir(parents=True, exist_ok=True)
        labels = spread(range(20, -1, -1)).astype(np.uint8)  # other than VOC's own
        savemat(mat, {"GTcls": {"Segmentation": labels, "Boundaries": np.zeros(2)}})


CONTEXT_IDS = {"train": ["2008_000002", "2008_000003"], "val": ["2008_000007"]}


def pascal_context(root: Path) -> None:
    voc = root / "VOC2010"
    for split, names in CONTEXT_IDS.items():
        lines(voc / "ImageSets" / "Main" / f"{split}.txt", names)
        for name in names:
            photo(voc / "JPEGImages" / f"{name}.jpg")
            mat = voc / "trainval" / f"{name}.mat"
            mat.parent.mkdir(parents=True, exist_ok=True)
            savemat(mat, {"LabelMap": spread(range(460))}, do_compression=True)


FRAMES = {
    "train": ["0001TP_006690", "0006R0_f03930", "0016E5_08190"],
    "val": ["0016E5_07959"],
    "test": ["0001TP_008550", "Seq05VD_f02610"],
}


def camvid_frames(root: Path, size: str = "480x360") -> None:
    """All frames of the videos: each labelled one and the four before it."""
    for name in [name for names in FRAMES.values() for name in names]:
        digits = len(name) - len(name.rstrip("0123456789"))
        for number in range(int(name[-digits:]) - 4, int(name[-digits:]) + 1):
            photo(root / "CamVid" / f"frames_{size}" / f"{name[:-digits]}{number:0{digits}d}.png")


def camvid(root: Path) -> None:
    """The packaging of the SegNet tutorial."""
    base = root / "CamVid"
    for split, names in FRAMES.items():
        for name in names:
            photo(base / split / f"{name}.png")
            grey(base / f"{split}annot" / f"{name}.png", spread(range(12)))
        paths = [f"{SEGNET}/{split}/{name}.png {SEGNET}/{split}annot/{name}.png" for name in names]
        lines(base / f"{split}.txt", paths)


RAW_COLORS = [(128, 128, 128), (0, 128, 64), (192, 64, 128), (0, 0, 0), (26, 26, 26)]
RAW_LABELS = [0, 1, 8, 255, 255]  # sky, a bridge, a train, void, a stray colour


def camvid_full(root: Path, grey_labels: bool = False) -> None:
    """The packaging in full resolution, in the raw colours or in grey."""
    base = root / "CamVid"
    for name in [name for names in FRAMES.values() for name in names]:
        photo(base / "CamVid_RGB" / f"{name}.png")
        if grey_labels:
            grey(base / "CamVidGray" / f"{name}_L.png", spread(RAW_LABELS))
        else:
            path = base / "CamVid_Label" / f"{name}_L.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            rgb = np.array(RAW_COLORS, np.uint8)[spread(range(len(RAW_COLORS)))]
            Image.fromarray(rgb).save(path)


LAYOUTS = {
    "cityscapes": cityscapes,
    "ade20k": ade20k,
    "lip": lip,
    "pascal_context": pascal_context,
    "pascal_voc": pascal_voc,
    "camvid": camvid,
}
