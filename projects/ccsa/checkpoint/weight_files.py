"""Files of weights, read without running code that is in them and written whole.

What a file is, its content says: safetensors hold tensors and nothing else; files of ``torch.save``
are read with ``weights_only``, plain pickles by :mod:`ccsa.checkpoint.safe_pickle`.
"""

import contextlib
import pickle
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ccsa.checkpoint import safe_pickle
from ccsa.errors import UserError
from ccsa.utils.files import atomic_write

SUFFIX = ".safetensors"

# How files of torch.save begin, now and before torch 1.6.
_ZIP, _LEGACY = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

# What reading a damaged file raises says nothing to a user; other errors do.
_DAMAGED = (
    *(pickle.UnpicklingError, SafetensorError, zipfile.BadZipFile, EOFError, MemoryError),
    ArithmeticError,
    *(AttributeError, KeyError, IndexError, TypeError, UnicodeError, struct.error),
)
_SAYS_WHY = (OSError, RuntimeError, ValueError, AssertionError)


def read_weights(path: str | Path) -> Mapping[Any, Any]:
    """What a file of weights holds, tensors on the CPU; tools call it in :func:`loading_errors`.

    Raises:
        Exception: one of many kinds, where the file is damaged, names what could run code, or holds
            something else.
    """
    with open(path, "rb") as file:
        start = file.read(len(_LEGACY))
        file.seek(0)
        if start.startswith(_ZIP):
            _check_archive(file)
        if start.startswith((_ZIP, _LEGACY)):
            content = torch.load(path, map_location="cpu", weights_only=True)
        elif start[8:9] == b"{" or Path(path).suffix == SUFFIX:  # after the length of a header
            content = load_file(path)
        else:
            content = safe_pickle.load(file)
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}, not weights by name")
    return content


def _check_archive(file: BinaryIO) -> None:
    """Refuse what is packed as ``torch.save`` packs, but is no file of weights."""
    archive = zipfile.ZipFile(file)
    names = {Path(name).name: name for name in archive.namelist()}
    if "constants.pkl" in names or "data.pkl" not in names:
        kind = "a TorchScript program" if "constants.pkl" in names else "an archive"
        raise ValueError(f"it is {kind}, not a file of weights; name the one that it was made from")
    with archive.open(names["data.pkl"]) as pickled:
        protocol = pickled.read(2)[1:]
    if protocol > b"\x03":
        raise ValueError(
            f"it was written with pickle protocol {protocol[0]}, and torch reads 2 alone safely; "
            "have the program that made it call torch.save without pickle_protocol"
        )


def state_within(data: Any, names: Sequence[str] = ("state_dict", "model")) -> Any:
    """The state dict in a checkpoint that keeps it under one of these names, or one in another."""
    while isinstance(data, Mapping):
        inner = next((data[name] for name in names if isinstance(data.get(name), Mapping)), None)
        if inner is None:
            break
        data = inner
    return data


def check_state(data: Any) -> Mapping[str, Any]:
    """Refuse what is no state dict.

    Raises:
        ValueError: naming what is no tensor or array.
    """
    if not (isinstance(data, Mapping) and data and all(isinstance(key, str) for key in data)):
        raise ValueError("it holds no weights")
    for key, value in data.items():
        if not isinstance(value, Tensor | np.ndarray):
            raise ValueError(f"it holds no weights alone: {key} is a {type(value).__name__}")
    return data


@contextlib.contextmanager
def loading_errors(path: str | Path, option: str) -> Iterator[None]:
    """Turn what keeps a file of weights from being used into one sentence.

    Args:
        path: the file.
        option: by which another file can be named.

    Raises:
        UserError: in place of any error of reading and loading.
    """
    try:
        yield
    except (*_DAMAGED, *_SAYS_WHY) as error:
        name = _forbidden(error)
        if name:
            text = (
                f"weights {path} are not read: they name {name}, which is not among what is read "
                "safely; if you trust them, have the program that made them write its state dict "
                f"alone, else name another file by {option}"
            )
        elif isinstance(error, FileNotFoundError):
            text = f"weights {path} are not there; name another file by {option}"
        else:
            # torch's advice at this point is to load the file unsafely; it is not passed on.
            damaged = isinstance(error, _DAMAGED) or "PytorchStreamReader" in str(error)
            reason = "" if damaged else str(error).partition("\n")[0]
            reason = reason or "it is cut short, damaged, or no checkpoint"
            text = f"weights {path} cannot be loaded ({reason}); name another file by {option}"
        raise UserError(text) from error


def _forbidden(error: BaseException) -> str | None:
    """The global that an unpickler refused, ours or torch's."""
    if isinstance(error, safe_pickle.ForbiddenGlobal):
        return error.name
    if isinstance(error, pickle.UnpicklingError):
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        return found[1] if found else None
    return None


def save_weights(state_dict: Mapping[str, Tensor], path: str | Path, **notes: str) -> None:
    """Write tensors as safetensors; the file is complete or absent.

    Args:
        state_dict: tensors by key; those that share memory are written each for itself.
        path: ends in ``.safetensors``.
        notes: kept in the file's header.

    Raises:
        UserError: another suffix, or a place that cannot be written.
    """
    path = Path(path)
    check_suffix(path)
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state_dict.items()}
    content = save(tensors, {"format": "pt", **notes})
    with atomic_write(path) as partial:  # by ourselves: save_file makes files nobody else may read
        partial.write_bytes(content)


def check_suffix(path: Path) -> None:
    """Refuse a name that does not say what is in the file."""
    if path.suffix != SUFFIX:
        raise UserError(f"weights are written as {SUFFIX}; name such a file, not {path}")
