"""Pickles of numpy arrays and plain containers, read without running anything else.

A pickle names functions and calls them. Here a name stands for one of few stand-ins, and not even
numpy's own functions are among them: ``numpy.ndarray`` takes a buffer of object pointers, and the
state of a dtype can pass raw bytes off as such. Numbers alone are admitted.
"""

import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np

_NUMBERS = re.compile(r"b1|[iufc]\d+|[?bBhHiIlLqQefdFD]")


class ForbiddenGlobal(pickle.UnpicklingError):
    """A pickle that names what is neither an array nor a plain container."""

    def __init__(self, name: str):
        super().__init__(f"the pickle names {name}")
        self.name = name


def load(file: BinaryIO) -> Any:
    """Read one pickle; strings of Python 2 are taken as Latin-1, as Detectron2 takes them.

    Raises:
        ForbiddenGlobal: the pickle names anything but numpy's arrays, scalars and dtypes of
            numbers, ``OrderedDict``, ``set`` and ``frozenset``.
        Exception: of any kind that a damaged pickle leads to.
    """
    return _Unpickler(file, encoding="latin1").load()


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a global, whatever ``numpy.core`` is called in that version."""
        full = f"{module}.{name}".replace("__builtin__.", "builtins.")
        try:
            return _STAND_INS[full.replace("numpy.core.", "numpy._core.")]
        except KeyError:
            raise ForbiddenGlobal(full) from None


class _Dtype:
    """A dtype of numbers; its state can change the byte order alone."""

    def __init__(self, code: str, *_: Any):
        if not _NUMBERS.fullmatch(code):
            raise ForbiddenGlobal(f"numpy.dtype('{code}')")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array that takes its content from raw bytes alone."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran_order, data = state
        super().__setstate__((1, shape, dtype.dtype, fortran_order, data))


class _Function:
    """A function for pickles to call; unlike a function it takes no attributes from them."""

    def __init__(self, call: Callable):
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("the pickle changes a function")


@_Function
def _empty(*_: Any) -> _Array:
    return _Array((0,), np.int8)


@_Function
def _scalar(dtype: _Dtype, data: bytes | str) -> np.generic:
    return np.frombuffer(_bytes(data), dtype.dtype)[0]


@_Function
def _from_buffer(
    data: bytes, dtype: _Dtype, shape: Sequence[int], order: str, *_: Any
) -> np.ndarray:
    array = np.frombuffer(data, dtype.dtype).reshape(shape, order=order)
    return array.astype(dtype.dtype.newbyteorder("="))  # a copy, in the order torch takes


@_Function
def _bytes(text: bytes | str = b"", *_: Any) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin1")


_STAND_INS = {
    "numpy.ndarray": None,  # an argument of _reconstruct, nothing to call
    "numpy.dtype": _Dtype,
    "numpy._core.multiarray._reconstruct": _empty,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy._core.numeric._frombuffer": _from_buffer,
    "_codecs.encode": _bytes,  # bytes, as Python 3 writes them for Python 2
    "builtins.bytes": _bytes,  # empty ones
    "collections.OrderedDict": OrderedDict,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
}
