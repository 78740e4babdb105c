"""Small copies of the six semantic datasets in their published layouts."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

SIZE = (24, 32)  # height, width
SEGNET = "/SegNet/CamVid"  # the paths in its lists are those of its author's machine


def spread(values, size=SIZE) -> np.ndarray:
    """Return labels (H, W), uint16, that contain all ``values`` in order."""
    return np.resize(np.asarray(list(values), np.uint16), size)


def write_photo(path: Path, size=SIZE) -> None:
    """Write an image of noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(len(path.name)).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(noise).save(path)


def write_gray(path: Path, values: np.ndarray) -> None:
    """Write labels as a grayscale PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)


def write_palette(path: Path, values: np.ndarray) -> None:
    """Write a palette PNG like those of VOC: the indices are labels, the colors are for display."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(np.uint8)).convert("P")
    image.putdata(values.ravel().tolist())
    colors = np.random.default_rng(0).integers(0, 255, (256, 3))
    colors[0] = 0
    image.putpalette(colors.ravel().tolist())
    image.save(path)


def write_lines(path: Path, entries) -> None:
    """Write a list file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{entry}\n" for entry in entries))


def cityscapes(root: Path) -> None:
    frames = {"train": ["aachen_000000", "aachen_000001", "bochum_000000"], "val": ["ulm_000000"]}
    for split, names in frames.items():
        for name in names:
            city = name.partition("_")[0]
            stem = f"{name}_000019"
            labels = root / "cityscapes" / "gtFine" / split / city
            write_photo(root / f"cityscapes/leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png")
            ids = spread([*range(34), 255])
            write_gray(labels / f"{stem}_gtFine_labelIds.png", ids)
            write_gray(labels / f"{stem}_gtFine_instanceIds.png", ids)
            sizes = {"imgHeight": SIZE[0], "imgWidth": SIZE[1], "objects": []}
            (labels / f"{stem}_gtFine_polygons.json").write_text(json.dumps(sizes))


def ade20k(root: Path) -> None:
    base = root / "ADEChallengeData2016"
    for folder, names in {
        "training": ["ADE_train_00000001", "ADE_train_00000002"],
        "validation": ["ADE_val_00000001"],
    }.items():
        for name in names:
            write_photo(base / "images" / folder / f"{name}.jpg")
            write_gray(base / "annotations" / folder / f"{name}.png", spread(range(151)))


def lip(root: Path, nested: bool = False) -> None:
    """Write the layout of the two archives; ``nested`` as some programs unpack them, in a second
    folder of the same name."""
    images = root / "LIP" / ("TrainVal_images/TrainVal_images" if nested else "TrainVal_images")
    labels = root / "LIP" / "TrainVal_parsing_annotations"
    for split, names in {"train": ["77_471474", "100034_483681"], "val": ["7_5"]}.items():
        for name in names:
            write_photo(images / f"{split}_images" / f"{name}.jpg")
            write_gray(labels / f"{split}_segmentations" / f"{name}.png", spread(range(20)))
        if not nested:
            write_lines(images / f"{split}_id.txt", names)


VOC_IDS = {"train": ["2007_000032", "2007_000039"], "val": ["2007_000033", "2007_000042"]}
SBD_IDS = [
    "2007_000039",
    "2007_000042",
    "2008_000002",
    "2008_000003",
]  # train, val, two others


def pascal_voc(root: Path, sbd: bool = True) -> None:
    voc = root / "VOCdevkit" / "VOC2012"
    for split, names in VOC_IDS.items():
        write_lines(voc / "ImageSets" / "Segmentation" / f"{split}.txt", names)
        for name in names:
            write_palette(voc / "SegmentationClass" / f"{name}.png", spread([*range(21), 255]))
    for name in {*VOC_IDS["train"], *VOC_IDS["val"], *SBD_IDS}:
        write_photo(voc / "JPEGImages" / f"{name}.jpg")
    for name in SBD_IDS if sbd else ():
        mat = root / "VOCdevkit" / "VOCaug" / "dataset" / "cls" / f"{name}.mat"
        mat.parent.mkdir(parents=True, exist_ok=True)
        labels = spread(range(20, -1, -1)).astype(np.uint8)  # different from those of VOC
        savemat(mat, {"GTcls": {"Segmentation": labels, "Boundaries": np.zeros(2)}})


CONTEXT_IDS = {"train": ["2008_000002", "2008_000003"], "val": ["2008_000007"]}


def pascal_context(root: Path) -> None:
    voc = root / "VOC2010"
    for split, names in CONTEXT_IDS.items():
        write_lines(voc / "ImageSets" / "Main" / f"{split}.txt", names)
        for name in names:
            write_photo(voc / "JPEGImages" / f"{name}.jpg")
            mat = voc / "trainval" / f"{name}.mat"
            mat.parent.mkdir(parents=True, exist_ok=True)
            savemat(mat, {"LabelMap": spread(range(460))}, do_compression=True)


FRAMES = {
    "train": ["0001TP_006690", "0006R0_f03930", "0016E5_08190"],
    "val": ["0016E5_07959"],
    "test": ["0001TP_008550", "Seq05VD_f02610"],
}


def camvid_frames(root: Path, size: str = "480x360") -> None:
    """Write all frames of the videos: each labeled frame and the four before it."""
    for name in [name for names in FRAMES.values() for name in names]:
        digits = len(name) - len(name.rstrip("0123456789"))
        for number in range(int(name[-digits:]) - 4, int(name[-digits:]) + 1):
            write_photo(
                root / "CamVid" / f"frames_{size}" / f"{name[:-digits]}{number:0{digits}d}.png"
            )


def camvid(root: Path) -> None:
    """Write the form of the SegNet tutorial."""
    base = root / "CamVid"
    for split, names in FRAMES.items():
        for name in names:
            write_photo(base / split / f"{name}.png")
            write_gray(base / f"{split}annot" / f"{name}.png", spread(range(12)))
        paths = [f"{SEGNET}/{split}/{name}.png {SEGNET}/{split}annot/{name}.png" for name in names]
        write_lines(base / f"{split}.txt", paths)


RAW_COLORS = [(128, 128, 128), (0, 128, 64), (192, 64, 128), (0, 0, 0), (26, 26, 26)]
RAW_LABELS = [0, 1, 8, 255, 255]  # sky, bridge, train, void, an undefined color


def camvid_full(root: Path, gray_labels: bool = False) -> None:
    """Write the form of full resolution, with labels in the raw colors or in grayscale."""
    base = root / "CamVid"
    for name in [name for names in FRAMES.values() for name in names]:
        write_photo(base / "CamVid_RGB" / f"{name}.png")
        if gray_labels:
            write_gray(base / "CamVidGray" / f"{name}_L.png", spread(RAW_LABELS))
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
