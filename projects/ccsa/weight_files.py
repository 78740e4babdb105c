"""Files of weights, read without running code that is in them and written whole.

``.safetensors`` holds tensors and nothing else; ``.pkl`` is read by :mod:`ccsa.safe_pickle`; all
other files by ``torch.load`` with ``weights_only``.
"""

import contextlib
import pickle
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ccsa import safe_pickle
from ccsa.errors import UserError
from ccsa.files import whole_file

SUFFIX = ".safetensors"

# What reading a damaged file raises says nothing to a user; other errors do.
_DAMAGED = (
    *(pickle.UnpicklingError, SafetensorError, EOFError, MemoryError, ArithmeticError),
    *(AttributeError, KeyError, IndexError, TypeError, UnicodeError, struct.error),
)
_SAYS_WHY = (OSError, RuntimeError, ValueError, AssertionError)


def read_weights(path: str | Path) -> Any:
    """What a file of weights holds, tensors on the CPU; tools call it in :func:`told`.

    Raises:
        Exception: one of many kinds, where the file is damaged or names what could run code.
    """
    suffix = Path(path).suffix
    if suffix == SUFFIX:
        with open(path, "rb"):  # what the operating system says is clearer than what follows
            return load_file(path)
    if suffix == ".pkl":
        with open(path, "rb") as file:
            return safe_pickle.load(file)
    return torch.load(path, map_location="cpu", weights_only=True)


@contextlib.contextmanager
def told(path: str | Path, option: str) -> Iterator[None]:
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
    with whole_file(path) as partial:  # by ourselves: save_file makes files nobody else may read
        partial.write_bytes(content)


def check_suffix(path: Path) -> None:
    """Refuse a name that does not say what is in the file."""
    if path.suffix != SUFFIX:
        raise UserError(f"weights are written as {SUFFIX}; name such a file, not {path}")
