"""The reader of images and the reader of label images, against slow references for every mode."""

import os

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from ccsa.data.formats.label_images import read_label_image
from ccsa.data.image_reader import (
    check_range,
    intensity_percentiles,
    is_deep,
    read_image,
    to_uint8,
)
from ccsa.data.records import image_header
from ccsa.errors import UserError

RNG = np.random.default_rng(0)
COLOR = RNG.integers(0, 256, (5, 7, 3)).astype(np.uint8)
GRAY = COLOR[..., 0]
DEEP = (RNG.integers(0, 1000, (5, 7)) + 2000).astype(np.uint16)
DEEP_COLOR = np.stack([DEEP, DEEP // 2, DEEP // 3], -1)
RANGE = 500.0, 2500.0


def by_pixel(values):
    """Map intensities to 8 bits, one by one."""
    low, high = RANGE
    result = np.zeros(values.shape, np.uint8)
    for place in np.ndindex(values.shape):
        value = (float(values[place]) - low) / (high - low) * 255
        result[place] = min(max(round(value), 0), 255) if value == value else 0
    return result


def stacked(gray):
    return np.stack([gray] * 3, -1)


def palette_image():
    image = Image.fromarray(GRAY % 4)
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    return image


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_color_and_gray(suffix, tmp_path):
    file = tmp_path / f"a{suffix}"
    Image.fromarray(COLOR).save(file)
    assert np.array_equal(read_image(file), COLOR)
    assert np.array_equal(read_image(file, "BGR"), COLOR[..., ::-1])
    Image.fromarray(GRAY).save(file)
    assert np.array_equal(read_image(file), stacked(GRAY))
    assert np.array_equal(read_image(file, "L"), GRAY[..., None])


def test_palette_binary_alpha_and_cmyk(tmp_path):
    file = tmp_path / "a.png"
    palette_image().save(file)
    colors = np.array([[10, 20, 30], [40, 50, 60], [70, 80, 90], [100, 110, 120]], np.uint8)
    assert np.array_equal(read_image(file), colors[GRAY % 4])
    Image.fromarray(GRAY > 100).save(file)
    assert np.array_equal(read_image(file), stacked(np.where(GRAY > 100, 255, 0)))
    Image.fromarray(np.dstack([COLOR, GRAY])).save(file)
    assert np.array_equal(read_image(file), COLOR)
    Image.fromarray(np.dstack([GRAY, GRAY])).save(file)
    assert np.array_equal(read_image(file), stacked(GRAY))
    cmyk = Image.fromarray(COLOR).convert("CMYK")
    cmyk.save(tmp_path / "a.tif")
    assert np.array_equal(read_image(tmp_path / "a.tif"), np.asarray(cmyk.convert("RGB")))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("values", [DEEP, DEEP_COLOR], ids=["gray", "color"])
def test_16_bits_are_mapped_and_not_clipped(values, suffix, tmp_path):
    file = tmp_path / f"a{suffix}"
    assert cv2.imwrite(str(file), values[..., ::-1] if values.ndim == 3 else values)
    expected = by_pixel(values)
    found = read_image(file, intensity_range=RANGE)
    assert np.array_equal(found, expected if values.ndim == 3 else stacked(expected))
    assert len(np.unique(found)) > 10
    with pytest.raises(
        UserError, match=r"more than 8 bits .*INPUT\.INTENSITY_RANGE '\[low, high\]"
    ):
        read_image(file)
    assert is_deep(file)
    header = image_header(str(file))
    assert (header.width, header.height) == (7, 5)


def test_16_bits_with_alpha(tmp_path):
    file = tmp_path / "a.png"
    bgra = np.dstack([DEEP_COLOR[..., ::-1], DEEP])
    assert cv2.imwrite(str(file), bgra)
    assert np.array_equal(read_image(file, intensity_range=RANGE), by_pixel(DEEP_COLOR))


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_floating_point_and_32_bits(dtype, tmp_path):
    values = DEEP.astype(dtype)
    if dtype == np.float32:
        values[0, :3] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save(tmp_path / "a.tif")
    expected = stacked(by_pixel(np.nan_to_num(values, nan=np.nan, posinf=1e9, neginf=-1e9)))
    assert np.array_equal(read_image(tmp_path / "a.tif", intensity_range=RANGE), expected)
    with pytest.raises(UserError, match="no range of intensities"):
        read_image(tmp_path / "a.tif")


def test_floating_point_color(tmp_path):
    values = DEEP_COLOR.astype(np.float32)
    assert cv2.imwrite(str(tmp_path / "a.tif"), values[..., ::-1])
    found = read_image(tmp_path / "a.tif", intensity_range=RANGE)
    assert np.array_equal(found, by_pixel(values))
    assert image_header(str(tmp_path / "a.tif")).stored == (7, 5)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True])
def test_images_are_upright(orientation, deep, tmp_path):
    """The EXIF orientation is applied to images of 8 and of 16 bits, and to sizes in headers."""
    file = tmp_path / "a.tif"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(DEEP if deep else COLOR).save(file, exif=exif)
    marked = Image.fromarray(GRAY)
    marked.getexif()[0x0112] = orientation
    found = read_image(file, intensity_range=RANGE)
    places = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7))
    places.getexif()[0x0112] = orientation
    order = np.asarray(ImageOps.exif_transpose(places))
    source = stacked(by_pixel(DEEP)) if deep else COLOR
    assert np.array_equal(found, source.reshape(35, 3)[order])
    header = image_header(str(file))
    assert (header.height, header.width) == found.shape[:2]
    assert header.stored == (7, 5)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_color_of_16_bits_is_upright(orientation, tmp_path):
    file = tmp_path / "a.png"
    assert cv2.imwrite(str(file), DEEP_COLOR[..., ::-1])
    content = file.read_bytes()
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("L", (1, 1)).save(tmp_path / "b.png", exif=exif)
    other = (tmp_path / "b.png").read_bytes()
    start = other.index(b"eXIf") - 4
    chunk = other[start : start + 12 + int.from_bytes(other[start : start + 4], "big")]
    file.write_bytes(content[:33] + chunk + content[33:])
    places = Image.fromarray(np.arange(35, dtype=np.uint8).reshape(5, 7))
    places.getexif()[0x0112] = orientation
    order = np.asarray(ImageOps.exif_transpose(places))
    found = read_image(file, intensity_range=RANGE)
    assert np.array_equal(found, by_pixel(DEEP_COLOR).reshape(35, 3)[order])
    header = image_header(str(file))
    assert (header.height, header.width) == found.shape[:2]


def test_percentiles(tmp_path):
    ramp = np.arange(10_000, dtype=np.uint16).reshape(100, 100)
    Image.fromarray(ramp).save(tmp_path / "deep.png")
    Image.fromarray(GRAY).save(tmp_path / "gray.png")
    files = [tmp_path / "deep.png", tmp_path / "gray.png"]
    assert intensity_percentiles(files) == pytest.approx(np.percentile(ramp, (0.1, 99.9)))
    assert intensity_percentiles(files[1:]) is None
    Image.fromarray(np.full((4, 4), 700, np.uint16)).save(tmp_path / "flat.png")
    assert intensity_percentiles([tmp_path / "flat.png"]) == (700, 701)


@pytest.mark.parametrize(
    "value", [[1, 1], [2, 1], [0], [0, 1, 2], ["0", 1], [0, float("nan")], [0, 10**400], [True, 2]]
)
def test_a_wrong_range_is_rejected(value):
    with pytest.raises(UserError, match=r"is not \[low, high\]"):
        check_range(value)


def test_to_uint8_of_extremes():
    values = np.array([[np.nan, np.inf, -np.inf, 1e300]])
    assert to_uint8(values, (0, 1)).tolist() == [[0, 255, 0, 255]]


def damaged_files(folder):
    """Yield files that no reader may accept."""
    Image.fromarray(np.tile(COLOR, (20, 20, 1))).save(folder / "whole.png")
    content = (folder / "whole.png").read_bytes()
    (folder / "empty.png").touch()
    (folder / "half.png").write_bytes(content[: len(content) // 2])
    (folder / "text.jpg").write_text("no image")
    (folder / "cut.tif").write_bytes(b"II*\0\x08\0\0\0")
    (folder / "loop.tif").write_bytes(b"II*\0\xff\xff\xff\xff" + bytes(20))
    bomb = bytearray(content)
    bomb[16:24] = (60_000).to_bytes(4, "big") * 2
    (folder / "bomb.png").write_bytes(bomb)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "pipe.png")
    (folder / "link.png").symlink_to(folder / "nowhere")
    names = ("empty.png", "half.png", "text.jpg", "cut.tif", "loop.tif", "bomb.png")
    return [folder / n for n in (*names, "folder.png", "pipe.png", "link.png", "missing.png")]


def test_damaged_files_are_named(tmp_path):
    for file in damaged_files(tmp_path):
        with pytest.raises(UserError, match=rf"cannot read image .*{file.name}"):
            read_image(file)
        with pytest.raises(UserError, match=rf"cannot read .*{file.name}"):
            read_label_image(file)
        if file.name != "half.png":  # whose header is complete
            with pytest.raises(OSError):
                image_header(str(file))


def test_headers_follow_the_file(tmp_path):
    file = tmp_path / "a.png"
    Image.new("L", (3, 4)).save(file)
    assert image_header(str(file)).stored == (3, 4)
    Image.new("L", (30, 40), 7).save(file)
    assert image_header(str(file)).stored == (30, 40)


LABELS = GRAY % 3


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_label_modes(suffix, tmp_path):
    file = tmp_path / f"a{suffix}"
    images = {
        "gray": Image.fromarray(LABELS),
        "16 bits": Image.fromarray(LABELS.astype(np.uint16)),
        "RGB": Image.fromarray(stacked(LABELS)),
        "RGBA": Image.fromarray(np.dstack([stacked(LABELS), GRAY])),
        "gray with alpha": Image.fromarray(np.dstack([LABELS, GRAY])),
    }
    palette = Image.fromarray(LABELS)
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    images["palette"] = palette
    if suffix == ".tif":
        images["float"] = Image.fromarray(LABELS.astype(np.float32))
        images["32 bits"] = Image.fromarray(LABELS.astype(np.int32))
    for mode, image in images.items():
        image.save(file)
        found = read_label_image(file)
        assert np.array_equal(found, LABELS), mode
        assert found.dtype.kind in "ui"
        assert np.array_equal(
            read_label_image(file, {2: 300}), np.where(LABELS == 2, 300, LABELS.astype(int))
        )
    Image.fromarray(LABELS > 0).save(file)
    assert np.array_equal(read_label_image(file), LABELS > 0)


def test_deep_labels_keep_their_values(tmp_path):
    numbers = (DEEP * 20).astype(np.uint16)
    for suffix in (".png", ".tif"):
        Image.fromarray(numbers).save(tmp_path / f"a{suffix}")
        assert np.array_equal(read_label_image(tmp_path / f"a{suffix}"), numbers)
    assert cv2.imwrite(str(tmp_path / "b.png"), stacked(numbers))
    assert np.array_equal(read_label_image(tmp_path / "b.png"), numbers)


def test_labels_of_several_channels_or_pages_are_rejected(tmp_path):
    Image.fromarray(COLOR).save(tmp_path / "color.png")
    assert cv2.imwrite(str(tmp_path / "deep.png"), DEEP_COLOR)
    for name in ("color.png", "deep.png"):
        with pytest.raises(UserError, match=rf"{name} .*different channels \(RGB\)"):
            read_label_image(tmp_path / name)
    Image.fromarray(LABELS.astype(np.float32) + 0.5).save(tmp_path / "half.tif")
    with pytest.raises(UserError, match="one channel of integers"):
        read_label_image(tmp_path / "half.tif")
    page = Image.fromarray(LABELS)
    page.save(tmp_path / "pages.tif", save_all=True, append_images=[page, page])
    with pytest.raises(UserError, match="has 3 pages; save one page"):
        read_label_image(tmp_path / "pages.tif")


def test_a_negative_mapping_does_not_wrap(tmp_path):
    Image.fromarray(LABELS).save(tmp_path / "a.png")
    assert set(np.unique(read_label_image(tmp_path / "a.png", {2: -1}))) == {-1, 0, 1}
