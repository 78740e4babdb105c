"""Written images: their pixels, the order of their channels, and what an error leaves behind."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccsa.data.synthetic import digits
from ccsa.errors import UserError
from ccsa.utils.images import encode_image, write_image

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (24, 32, 3), np.uint8)
GRAY = RNG.integers(0, 256, (24, 32), np.uint8)
SMOOTH = np.full((24, 32, 3), (200, 120, 30), np.uint8)  # survives lossy formats


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".tiff", ".PNG"])
@pytest.mark.parametrize("image", [RGB, GRAY, RGB[::2, ::-1]], ids=["rgb", "gray", "view"])
def test_lossless_formats_keep_every_pixel(tmp_path, image, suffix):
    path = tmp_path / "new" / f"a{suffix}"
    write_image(path, image)
    with Image.open(path) as file:
        assert np.array_equal(np.array(file), image)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_formats_keep_the_order_of_channels(tmp_path, suffix):
    write_image(tmp_path / f"a{suffix}", SMOOTH)
    with Image.open(tmp_path / f"a{suffix}") as file:
        assert np.abs(np.array(file.convert("RGB"), int) - SMOOTH).max() <= 4


def test_webp_is_lossy():
    assert len(encode_image(RGB, ".webp")) < 0.8 * len(encode_image(RGB, ".png"))


@pytest.mark.parametrize(
    "image",
    [RGB.astype(np.float32), GRAY.astype(np.int64), RGB[..., :2], RGB[None], RGB[..., :1]],
    ids=["float", "int64", "two channels", "batch", "one channel"],
)
def test_other_arrays_are_rejected(tmp_path, image):
    with pytest.raises(ValueError, match=r"uint8 of shape \(H, W, 3\) or \(H, W\), not .*shape"):
        write_image(tmp_path / "a.png", image)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.xyz", "a"])
def test_an_unknown_format_is_named(tmp_path, name):
    with pytest.raises(UserError, match=r"OpenCV cannot encode .* as '(\.xyz)?'; use another"):
        write_image(tmp_path / name, RGB)


@pytest.fixture
def full_disk(monkeypatch):
    def write_bytes(path, content):
        path.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)


def test_a_full_disk_is_an_error_and_keeps_the_old_file(tmp_path, full_disk):
    path = tmp_path / "a.png"
    path.write_text("before")
    with pytest.raises(UserError, match=r"cannot write .*a\.png \(No space left on device\)"):
        write_image(path, RGB)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_full_disk_names_the_folder_of_a_built_in_dataset(tmp_path, full_disk):
    with pytest.raises(UserError, match=r"digits dataset to .*/digits \(.*No space left.*export"):
        digits.ensure_digits(tmp_path)
    assert not (tmp_path / "digits").exists()
