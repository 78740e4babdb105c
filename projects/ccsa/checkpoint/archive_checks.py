"""Checks of files of ``torch.save`` before torch reads them.

torch trusts the size that a pickle states for a storage, and lets a pickle
allocate tensors. Here the pickle is read once without building anything.
"""

import io
import pickle
import zipfile
from collections.abc import Callable, Mapping
from typing import IO, Any, BinaryIO

import torch

from ccsa.checkpoint.bounded_pickle import BoundedUnpickler, Placeholder, check_keys
from ccsa.checkpoint.safe_pickle import REPLACEMENTS, ForbiddenGlobal

_LARGEST_RATIO = 4  # of unpacked to packed bytes; weights can hardly be compressed
_BLOCK = 2**20  # bytes that are read at a time
_ALLOCATING = ("torch.Tensor", "builtins.bytearray", "torch.nn.parameter.Parameter")


def open_entry(archive: zipfile.ZipFile, entry: str | zipfile.ZipInfo) -> IO[bytes]:
    """Open an entry of an archive. Its checksum, which may be missing, is not verified."""
    file = archive.open(entry)
    file._expected_crc = None  # type: ignore[attr-defined]
    return file


def pickle_problem(names: Mapping[str, str], archive: zipfile.ZipFile) -> str:
    """Return why torch must not read the pickle of an archive; an empty string if it may.

    Args:
        names: the full name of each entry by its last part.
        archive: of ``torch.save``.

    Raises:
        Exception: a damaged pickle can raise errors of any type.
    """
    entries = archive.infolist()
    packed = sum(entry.compress_size for entry in entries)
    if sum(entry.file_size for entry in entries) > _LARGEST_RATIO * packed + _BLOCK:
        return "it unpacks to many times its size"
    prefix = names["data.pkl"].removesuffix("data.pkl")
    sizes = {entry.filename: entry.file_size for entry in entries}
    with open_entry(archive, names["data.pkl"]) as file:
        storages = _read(io.BytesIO(file.read()))
    for key, size in storages.items():
        stored = sizes.get(f"{prefix}data/{key}")
        if stored is None or stored < size:
            return f"it states {size} bytes for a tensor of which it has {stored or 0}"
    return ""


def legacy_problem(file: BinaryIO, size: int) -> str:
    """Return why torch must not read a file in the format before torch 1.6; empty if it may.

    Raises:
        Exception: a damaged pickle can raise errors of any type.
    """
    needed = 0
    for _ in range(4):  # a magic number, the version, properties of the system, the content
        needed += sum(_read(file).values())
    file.seek(0)
    return f"it states {needed} bytes of tensors in a file of {size}" if needed > size else ""


def _read(file: BinaryIO) -> dict[str, int]:
    """Read a pickle and return the bytes of each storage that it refers to."""
    reader = _StorageSizes(file)
    reader.load()
    return reader.sizes


class _StorageSizes(BoundedUnpickler):
    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self.sizes: dict[str, int] = {}

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}".replace("__builtin__.", "builtins.")
        if full in _ALLOCATING:
            return _forbidden(full)
        if full in ("collections.OrderedDict", "builtins.set", "builtins.frozenset"):
            return REPLACEMENTS[full]
        item = getattr(getattr(torch, name, None), "_dtype", None) if module == "torch" else None
        size = item.itemsize if isinstance(item, torch.dtype) and "Storage" in name else 1
        return type(name[:40], (Placeholder,), {"itemsize": size})

    def persistent_load(self, pid: Any) -> Any:
        """Note the size of a storage: ``("storage", type, key, device, number of elements)``."""
        _, kind, key, _, count = pid[:5]
        check_keys([key])
        if not isinstance(count, int) or count < 0:
            raise pickle.UnpicklingError(
                f"it states {type(count).__name__} as the size of a tensor"
            )
        size = count * int(getattr(kind, "itemsize", 1))
        self.sizes[str(key)] = max(size, self.sizes.get(str(key), 0))
        return Placeholder()


def _forbidden(name: str) -> Callable:
    """Return a class that may be named, but not be called with sizes."""

    def init(self: Any, *args: Any) -> None:
        if any(isinstance(arg, int) for arg in args):
            raise ForbiddenGlobal(name)

    return type("Forbidden", (Placeholder,), {"__init__": init})
