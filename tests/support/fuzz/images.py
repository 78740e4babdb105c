"""Damages of images and labels: what is stored, how it is stored, and what lies at their place."""

import os
import random
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from support.fuzz.settings import ANY, REJECT

ORIENTATION = 0x0112
Damage = Callable[[Path, random.Random], object]


def _bytes(change: Callable[[bytes, random.Random], bytes]) -> Damage:
    return lambda file, rng: file.write_bytes(change(file.read_bytes(), rng))


def _flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 4, 64))):
        changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _picture(size: tuple[int, int], mode: str = "RGB", form: str = "PNG", **options: object):
    """Return a damage that stores another image under the name."""

    def store(file: Path, rng: random.Random) -> None:
        values = np.random.default_rng(rng.randrange(99)).integers(0, 3, size[::-1], np.uint8)
        image = Image.fromarray(values * np.uint8(90))
        deep = {"I;16": np.uint16, "I": np.int32, "F": np.float32}.get(mode)
        image = Image.fromarray(values.astype(deep)) if deep else image.convert(mode)
        image.save(file, form, **options)

    return store


def _oriented(file: Path, rng: random.Random) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = rng.choice((0, 2, 3, 5, 6, 8, 9, 65535))
    with Image.open(file) as opened:
        opened.load()
    opened.save(file, "PNG", exif=exif)


def _header(width: int, height: int) -> Damage:
    """Return a damage that states another size in the header of a PNG file."""

    def change(data: bytes, rng: random.Random) -> bytes:
        chunk = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
        return data[:12] + chunk + struct.pack(">I", zlib.crc32(chunk)) + data[33:]

    return _bytes(change)


def _replace(make: Callable[[Path], object]) -> Damage:
    def change(file: Path, rng: random.Random) -> None:
        file.unlink()
        make(file)

    return change


def _bomb(file: Path, rng: random.Random) -> None:
    """Write an image of 400 megapixels in few bytes."""
    Image.new("1", (20_000, 20_000)).save(file, "PNG")


def _infinite(file: Path, rng: random.Random) -> None:
    values = np.full((48, 64), np.inf, np.float32)
    values[::2] = np.nan
    Image.fromarray(values).save(file, "TIFF")


# Name: (damage, what must happen to a tool that needs the file).
DAMAGES: dict[str, tuple[Damage, str]] = {
    "empty": (_bytes(lambda b, r: b""), REJECT),
    "cut off": (_bytes(lambda b, r: b[: r.randrange(1, len(b) * 9 // 10)]), REJECT),
    "a few bytes changed": (_bytes(_flip), ANY),
    "text": (_bytes(lambda b, r: b"<html>404</html>"), REJECT),
    "a git-lfs pointer": (
        _bytes(lambda b, r: b"version https://git-lfs.github.com/spec/v1\n"),
        REJECT,
    ),
    "noise": (_bytes(lambda b, r: r.randbytes(5000)), REJECT),
    "a signature and noise": (_bytes(lambda b, r: b[:8] + r.randbytes(500)), REJECT),
    "twice": (_bytes(lambda b, r: b + b), ANY),
    "a JPEG of nothing": (_bytes(lambda b, r: b"\xff\xd8\xff\xe0\0\x10JFIF\0"), REJECT),
    "1 x 1": (_picture((1, 1)), ANY),
    "1 x 5000": (_picture((1, 5000)), ANY),
    "5000 x 1": (_picture((5000, 1)), ANY),
    "3 x 3": (_picture((3, 3)), ANY),
    "1-bit": (_picture((128, 96), "1"), ANY),
    "gray": (_picture((128, 96), "L"), ANY),
    "gray and alpha": (_picture((128, 96), "LA"), ANY),
    "palette": (_picture((128, 96), "P"), ANY),
    "alpha": (_picture((128, 96), "RGBA"), ANY),
    "16 bits": (_picture((128, 96), "I;16"), ANY),
    "32 bits": (_picture((128, 96), "I", "TIFF"), ANY),
    "floating point": (_picture((128, 96), "F", "TIFF"), ANY),
    "NaN and infinity": (_infinite, ANY),
    "CMYK": (_picture((128, 96), "CMYK", "TIFF"), ANY),
    "LAB": (_picture((128, 96), "LAB", "TIFF"), ANY),
    "YCbCr": (_picture((128, 96), "YCbCr", "JPEG"), ANY),
    "a GIF": (_picture((128, 96), "P", "GIF"), ANY),
    "a BMP": (_picture((128, 96), "RGB", "BMP"), ANY),
    "another size": (_picture((64, 96)), ANY),
    "an EXIF orientation": (_oriented, ANY),
    "a header of 0 x 0": (_header(0, 0), REJECT),
    "a header of 65,000 x 65,000": (_header(65_000, 65_000), REJECT),
    "a header of 2**31 - 1 columns": (_header(2**31 - 1, 1), REJECT),
    "a bomb": (_bomb, REJECT),
    "a named pipe": (_replace(os.mkfifo), REJECT),
    "a folder": (_replace(Path.mkdir), REJECT),
    "a link to itself": (_replace(lambda f: f.symlink_to(f.name)), REJECT),
    "a link to nothing": (_replace(lambda f: f.symlink_to("nowhere")), REJECT),
    "a link to a device": (_replace(lambda f: f.symlink_to("/dev/zero")), REJECT),
    "a link that leads outside": (_replace(lambda f: f.symlink_to("/etc/passwd")), REJECT),
    "removed": (lambda f, r: f.unlink(), ANY),
    "renamed": (
        lambda f, r: f.rename(f.with_name(r.choice(("a b", "é", "x" * 200)) + f.suffix)),
        ANY,
    ),
    "another suffix": (
        lambda f, r: f.rename(f.with_suffix(r.choice((".PNG", ".jpg", ".txt")))),
        ANY,
    ),
}


def damage_one(folder: Path, rng: random.Random) -> tuple[str, str]:
    """Damage one image of a folder; return what was done, and what must happen."""
    suffixes = (".png", ".jpg")
    file = rng.choice(sorted(f for f in folder.rglob("*") if f.suffix in suffixes))
    name = rng.choice(sorted(DAMAGES))
    damage, verdict = DAMAGES[name]
    damage(file, rng)
    return f"{file.relative_to(folder)}: {name}", verdict
