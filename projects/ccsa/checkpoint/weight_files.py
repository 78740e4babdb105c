"""Weight files: reading them without running code that they contain, and writing them atomically.

The content of a file decides how it is read, not its suffix. safetensors files contain nothing but
tensors; files written by ``torch.save`` are read with ``weights_only=True``; plain pickles are read
by :mod:`ccsa.checkpoint.safe_pickle`.
"""

import contextlib
import pickle
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ccsa.checkpoint import safe_pickle
from ccsa.checkpoint.archive_checks import legacy_problem, open_entry, pickle_problem
from ccsa.errors import UserError
from ccsa.utils.files import atomic_write

SUFFIX = ".safetensors"

# First bytes of files written by torch.save, since torch 1.6 and before.
_ZIP_MAGIC, _LEGACY_MAGIC = b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

_BLOCK = 2**20  # bytes that are read at a time
_CONTAINERS = (Mapping, list, tuple, set, frozenset)
_LARGEST_EXPANDED = 2**28  # bytes of all tensors beyond those that are stored

# Raised for damaged files; their messages do not help a user.
_DAMAGED_FILE_ERRORS = (
    *(pickle.UnpicklingError, SafetensorError, zipfile.BadZipFile, EOFError, MemoryError),
    ArithmeticError,
    *(AttributeError, KeyError, IndexError, TypeError, UnicodeError, struct.error),
)
# Their messages state the reason.
_EXPLAINED_ERRORS = (OSError, RuntimeError, ValueError, AssertionError)


class WeightsSource(NamedTuple):
    """The file that weights come from, and the option with which the user named it.

    Every error about the weights is made by :meth:`error`, so that its message is complete where it
    is raised.
    """

    path: str | Path
    option: str = "MODEL.WEIGHTS"

    def error(self, reason: str) -> UserError:
        """Return the error that states why the weights cannot be loaded.

        Example:
            >>> print(WeightsSource("a.pth").error("it contains no weights"))
            weights a.pth cannot be loaded (it contains no weights); name another file with MODEL.WEIGHTS
        """  # noqa: E501
        return UserError(
            f"weights {self.path} cannot be loaded ({reason}); name another file with {self.option}"
        )


def read_weights(path: str | Path, source: WeightsSource | None = None) -> Mapping[Any, Any]:
    """Read a weight file; tensors are placed on the CPU.

    Args:
        path: a file in any of the formats listed above.
        source: how error messages name the file; by default ``path``, given as ``MODEL.WEIGHTS``.

    Returns:
        The content of the file: a state dict, or a checkpoint that contains one.

    Raises:
        UserError: the file does not exist, is damaged, references code, or is not a mapping.
    """
    source = WeightsSource(path) if source is None else source
    if Path(path).exists() and not Path(path).is_file():
        kind = "folder" if Path(path).is_dir() else "device or a pipe"
        raise source.error(f"it is a {kind}, not a file")
    with loading_errors(source), open(path, "rb") as file:
        start = file.read(len(_LEGACY_MAGIC))
        file.seek(0)
        if start.startswith(_ZIP_MAGIC):
            _check_archive(file, source)
            _check_checksums(file, source)
        elif start.startswith(_LEGACY_MAGIC):
            _reject(legacy_problem(file, Path(path).stat().st_size), source)
        if start.startswith((_ZIP_MAGIC, _LEGACY_MAGIC)):
            content = torch.load(path, map_location="cpu", weights_only=True)
            _check_sizes(content, source)
        elif start[8:9] == b"{" or Path(path).suffix == SUFFIX:  # JSON after the header's size
            content = load_file(path)
        else:
            content = safe_pickle.load(file)
    if not isinstance(content, Mapping):
        raise source.error(f"it contains a {type(content).__name__}, not weights by name")
    if contains_itself(content):
        raise source.error("it contains itself, which no state dict does")
    return content


def _reject(problem: str, source: WeightsSource) -> None:
    """Raise an error if there is a problem."""
    if problem:
        raise source.error(problem)


def read_entry(path: str | Path, name: str) -> Any:
    """Return an entry beside the weights of a checkpoint, without reading the weights.

    Args:
        path: a file; only the format of ``torch.save`` since torch 1.6 has such entries.
        name: the key of the entry.

    Returns:
        None if the file has no such entry, or cannot be read, which loading its weights reports.
    """
    try:
        with open(path, "rb") as file:
            if file.read(len(_ZIP_MAGIC)) != _ZIP_MAGIC:
                return None
            _check_archive(file, WeightsSource(path))
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (UserError, *_DAMAGED_FILE_ERRORS, *_EXPLAINED_ERRORS):
        return None
    return content.get(name) if isinstance(content, Mapping) else None


def _check_archive(file: BinaryIO, source: WeightsSource) -> None:
    """Check that an archive in the format of ``torch.save`` is a weight file.

    Raises:
        UserError: another kind of archive, or one that torch cannot read safely.
    """
    archive = zipfile.ZipFile(file)
    names = {Path(name).name: name for name in archive.namelist()}
    if "constants.pkl" in names or "data.pkl" not in names:
        kind = "a TorchScript program" if "constants.pkl" in names else "an archive"
        raise source.error(f"it is {kind}, not a weight file; name the file it was made from")
    with open_entry(archive, names["data.pkl"]) as pickled:
        protocol = pickled.read(2)[1:]
    if protocol > b"\x03":
        raise source.error(
            f"it was written with pickle protocol {protocol[0]}, but torch reads only protocol 2 "
            "safely; have the program that wrote it call torch.save without pickle_protocol"
        )
    _reject(pickle_problem(names, archive), source)


def _check_checksums(file: BinaryIO, source: WeightsSource) -> None:
    """Verify the checksums in an archive, which torch does not.

    A checksum of 0 is a missing one: ``torch.save`` can omit them.

    Raises:
        UserError: the content of an entry has changed.
    """
    archive = zipfile.ZipFile(file)
    for entry in archive.infolist():
        if not entry.CRC:
            continue
        try:
            with archive.open(entry) as content:
                while content.read(_BLOCK):
                    pass
        except zipfile.BadZipFile as error:
            raise source.error(
                f"it is damaged: the content of {entry.filename} does not match its checksum"
            ) from error


def contains_itself(content: Any) -> bool:
    """Return whether nested containers contain themselves, as a pickle can.

    Example:
        >>> entries = {"model": {}}
        >>> contains_itself(entries)
        False
        >>> entries["model"]["parent"] = [entries]
        >>> contains_itself(entries)
        True
    """
    path: list[Iterator] = [iter((content,))]
    entered: list[int] = []  # the containers on the way to the current one
    done: set[int] = set()
    while path:
        for value in path[-1]:
            if not isinstance(value, _CONTAINERS) or id(value) in done:
                continue
            if id(value) in entered:
                return True
            entered.append(id(value))
            path.append(iter(value.values() if isinstance(value, Mapping) else value))
            break
        else:
            path.pop()
            if entered:
                done.add(entered.pop())
    return False


def _check_sizes(content: Any, source: WeightsSource) -> None:
    """Check that tensors do not have many more elements than are stored, which would fill the
    memory when they are copied.

    Raises:
        UserError: naming the tensor.
    """
    remaining, followed = [content], set()
    excess = 0  # bytes
    while remaining:
        entries = remaining.pop()
        if not isinstance(entries, Mapping) or id(entries) in followed:
            continue
        followed.add(id(entries))
        for key, value in entries.items():
            if isinstance(value, Mapping):
                remaining.append(value)
            elif isinstance(value, Tensor) and value.layout == torch.strided:
                size = value.numel() * value.element_size()
                excess += max(size - value.untyped_storage().nbytes(), 0)
                if excess > _LARGEST_EXPANDED:
                    raise source.error(f"{key} has shape {tuple(value.shape)}, but fewer values")


def state_within(data: Any, names: Sequence[str] = ("state_dict", "model")) -> Any:
    """Return the state dict inside a checkpoint.

    Args:
        data: the content of a weight file.
        names: the keys under which checkpoints keep a state dict, the preferred one first. Nested
            checkpoints are followed to the innermost one.

    Returns:
        The state dict; ``data`` itself if it has none of these keys, or contains itself.

    Example:
        >>> state_within({"epoch": 3, "model": {"weight": 1}})
        {'weight': 1}
    """
    followed: set[int] = set()
    while isinstance(data, Mapping) and id(data) not in followed:
        followed.add(id(data))  # a pickle can contain itself
        inner = next((data[name] for name in names if isinstance(data.get(name), Mapping)), None)
        if inner is None:
            break
        data = inner
    return data


def state_problem(data: Any) -> str:
    """Return why ``data`` is not a state dict, or an empty string if it is one.

    Example:
        >>> state_problem({"epoch": 3})
        'it does not contain only weights: epoch is a int'
    """
    if not (isinstance(data, Mapping) and data and all(isinstance(key, str) for key in data)):
        return "it contains no weights"
    for key, value in data.items():
        if not isinstance(value, Tensor | np.ndarray):
            return f"it does not contain only weights: {key} is a {type(value).__name__}"
        if isinstance(value, Tensor) and (value.is_quantized or value.layout != torch.strided):
            kind = "quantized" if value.is_quantized else "sparse"
            return f"{key} is {kind}; save it as an ordinary tensor"
        if isinstance(value, Tensor) and value.is_meta:
            return f"{key} has no values, because it was saved on the device meta"
        if value.dtype.is_complex if isinstance(value, Tensor) else np.iscomplexobj(value):
            return f"{key} has complex numbers, whose imaginary parts would be lost"
    return ""


@contextlib.contextmanager
def loading_errors(source: WeightsSource) -> Iterator[None]:
    """Convert the errors of the libraries that read and load weights to one :class:`UserError`.

    A :class:`UserError` raised inside the block passes through unchanged.

    Raises:
        UserError: reading or loading failed.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise UserError(
            f"weights {source.path} do not exist; name another file with {source.option}"
        ) from error
    except (*_DAMAGED_FILE_ERRORS, *_EXPLAINED_ERRORS) as error:
        name = _forbidden_global(error)
        if name:
            raise UserError(
                f"weights {source.path} were rejected: they reference {name}, which is not among "
                "the types that are read safely; if you trust the file, have the program that "
                "wrote it save only its state dict, or else name another file with "
                f"{source.option}"
            ) from error
        # torch's message for a damaged archive suggests to load the file unsafely: drop it.
        damaged = isinstance(error, _DAMAGED_FILE_ERRORS) or "PytorchStreamReader" in str(error)
        reason = "" if damaged else str(error).partition("\n")[0]
        raise source.error(reason or "it is truncated, damaged, or not a checkpoint") from error


def _forbidden_global(error: BaseException) -> str | None:
    """Return the global that an unpickler (ours or torch's) rejected, if that is the error."""
    if isinstance(error, safe_pickle.ForbiddenGlobal):
        return error.name
    if isinstance(error, pickle.UnpicklingError):
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        return found[1] if found else None
    return None


def save_weights(state_dict: Mapping[str, Tensor], path: str | Path, **metadata: str) -> None:
    """Write a state dict as safetensors. The file is complete or absent.

    Args:
        state_dict: tensors by key; tensors that share memory are written separately.
        path: a file name ending in ``.safetensors``; missing folders are created.
        metadata: entries for the header of the file.

    Raises:
        UserError: the name has another suffix, or the file cannot be written.

    Example:
        >>> save_weights(model.state_dict(), "model.safetensors", note="run 3")  # doctest: +SKIP
    """
    path = Path(path)
    check_suffix(path)
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state_dict.items()}
    content = save(tensors, {"format": "pt", **metadata})
    with atomic_write(path) as partial:  # safetensors' save_file makes files only the owner reads
        partial.write_bytes(content)


def check_suffix(path: Path) -> None:
    """Check that a weight file to be written has the suffix of its format.

    Raises:
        UserError: it has another one.
    """
    if path.suffix != SUFFIX:
        raise UserError(f"weights are written as {SUFFIX}: {path} needs that suffix")
