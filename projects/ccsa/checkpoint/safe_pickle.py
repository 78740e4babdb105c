"""Safe reading of pickles that contain numpy arrays of numbers and plain containers.

A pickle references functions by name and calls them. Here every name resolves to one of a few
replacements defined below. numpy's own functions are not among them, because they are not safe:
``numpy.ndarray`` accepts a buffer of object pointers, and the state of a dtype can present raw
bytes as such. Only arrays of numbers are accepted.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, Literal

import numpy as np

from ccsa.checkpoint.bounded_pickle import BoundedUnpickler, check_keys

_NUMBERS = re.compile(r"b1|[iufc]\d+|[?bBhHiIlLqQefdFD]")


class ForbiddenGlobal(pickle.UnpicklingError):
    """Raised for a pickle that references something that is not an array or a plain container.

    Attributes:
        name: the full name of the global.
    """

    def __init__(self, name: str):
        super().__init__(f"the pickle references {name}")
        self.name = name


def load(file: BinaryIO) -> Any:
    """Read one pickle. Strings of Python 2 are decoded as Latin-1, as in Detectron2.

    Args:
        file: a binary file at the start of a pickle.

    Returns:
        The unpickled object.

    Raises:
        ForbiddenGlobal: the pickle references anything except numpy's arrays, scalars and dtypes of
            numbers, ``OrderedDict``, ``set`` and ``frozenset``.
        Exception: a damaged pickle can raise errors of any type.
    """
    try:
        return _Unpickler(file).load()
    except IndexError as error:  # an instruction without its arguments
        raise pickle.UnpicklingError("the pickle is damaged") from error


class _Unpickler(BoundedUnpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement of a global; ``numpy.core`` was renamed ``numpy._core``."""
        full = f"{module}.{name}".replace("__builtin__.", "builtins.")
        try:
            return REPLACEMENTS[full.replace("numpy.core.", "numpy._core.")]
        except KeyError:
            raise ForbiddenGlobal(full) from None


class _Dtype:
    """A dtype of numbers; its pickled state can only change the byte order."""

    def __init__(self, code: str, *_: Any):
        if not _NUMBERS.fullmatch(code):
            raise ForbiddenGlobal(f"numpy.dtype('{code}')")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array whose pickled state can only be raw bytes."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran_order, data = state
        super().__setstate__((1, shape, dtype.dtype, fortran_order, data))


class _Function:
    """A callable for pickles; unlike a function, it rejects attributes from the pickle."""

    def __init__(self, call: Callable):
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the pickle modifies a function")


@_Function
def _empty(*_: Any) -> _Array:
    return _Array((0,), np.int8)


@_Function
def _scalar(dtype: _Dtype, data: bytes | str) -> np.generic:
    return np.frombuffer(_bytes(data), dtype.dtype)[0]


@_Function
def _from_buffer(
    data: bytes, dtype: _Dtype, shape: Sequence[int], order: Literal["C", "F"], *_: Any
) -> np.ndarray:
    array = np.frombuffer(data, dtype.dtype).reshape(shape, order=order)
    return array.astype(
        dtype.dtype.newbyteorder("=")
    )  # a copy in native byte order, as torch requires


@_Function
def _bytes(text: bytes | str = b"", *_: Any) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin1")


def _checked(kind: Callable) -> _Function:
    """Return a container's class for pickles; its keys must be text or numbers."""

    def build(items: Iterable[Any] = (), *_: Any) -> Any:
        items = list(items)
        check_keys([item[0] for item in items] if kind is OrderedDict else items)
        return kind(items)

    return _Function(build)


REPLACEMENTS = {
    "numpy.ndarray": None,  # only passed to _reconstruct, never called
    "numpy.dtype": _Dtype,
    "numpy._core.multiarray._reconstruct": _empty,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _bytes,  # Python 3 writes bytes this way for Python 2
    "builtins.bytes": _bytes,  # empty bytes
    "collections.OrderedDict": _checked(OrderedDict),
    "builtins.set": _checked(set),
    "builtins.frozenset": _checked(frozenset),
}
