"""An unpickler whose memory and time are bounded by the size of the file.

The unpickler of C allocates what a file asks for: nine bytes ask for a memo of 8.9 GiB. The one in
Python keeps its memo in a dict. It runs few instructions per tensor, so its speed does not matter.
"""

# typeshed does not declare the methods of the unpickler in Python.
# mypy: disable-error-code="attr-defined,misc,assignment"

import os
import pickle
import struct
from collections.abc import Iterable
from typing import Any, BinaryIO

_LARGEST_READS = 2**22  # instructions and their arguments; a checkpoint has about 30 per tensor
_KEYS = (str, bytes, int, float, type(None))


class Placeholder:
    """Stands for an object that is not built. It accepts whatever a pickle does with it."""

    def __init__(self, *_: Any):
        pass

    def __call__(self, *_: Any) -> "Placeholder":
        return self

    append = extend = add = update = __setitem__ = __setstate__ = __call__


class _Reader:
    """A file that never allocates more than is left of it, and allows a number of reads."""

    def __init__(self, file: BinaryIO):
        self._file, self._reads = file, 0
        start = file.tell()
        self._end = file.seek(0, os.SEEK_END)
        file.seek(start)
        self.size = self._end - start

    def _count(self) -> int:
        self._reads += 1
        if self._reads > _LARGEST_READS:
            raise pickle.UnpicklingError("the pickle has too many instructions")
        return self._end - self._file.tell()

    def read(self, size: int) -> bytes:
        left = self._count()
        if size > left:
            raise EOFError
        return self._file.read(size)

    def readline(self) -> bytes:
        self._count()
        return self._file.readline()


def check_keys(keys: Iterable[Any]) -> None:
    """Check keys before they are hashed: the hash of tuples inside each other can take forever.

    Raises:
        pickle.UnpicklingError: a key is neither text nor a number.
    """
    for key in keys:
        if not isinstance(key, (*_KEYS, Placeholder)):
            raise pickle.UnpicklingError(f"a key is a {type(key).__name__}")


class BoundedUnpickler(pickle._Unpickler):
    """Unpickle an object. Subclasses define ``find_class``.

    Args:
        file: a binary file at the start of a pickle; it can be positioned.
    """

    dispatch = dict(pickle._Unpickler.dispatch)

    def __init__(self, file: BinaryIO):
        reader = _Reader(file)
        super().__init__(reader, encoding="latin1")  # strings of Python 2, as in Detectron2
        self._size = reader.size

    def load_setitem(self) -> None:
        check_keys(self.stack[-2:-1])
        super().load_setitem()

    def load_setitems(self) -> None:
        check_keys(self.stack[::2])
        super().load_setitems()

    def load_dict(self) -> None:
        check_keys(self.stack[::2])
        super().load_dict()

    def load_additems(self) -> None:
        check_keys(self.stack)
        super().load_additems()

    def load_frozenset(self) -> None:
        check_keys(self.stack)
        super().load_frozenset()

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(size)))

    def load_long_binput(self) -> None:
        super().load_long_binput()
        if len(self.memo) and next(reversed(self.memo)) > self._size:
            raise pickle.UnpicklingError("the memo of the pickle is larger than the file")

    def load_frame(self) -> None:
        self.read(8)  # the size of a frame, which is only a hint to read it at once

    for _code, _function in (
        (pickle.SETITEM, load_setitem),
        (pickle.SETITEMS, load_setitems),
        (pickle.DICT, load_dict),
        (pickle.ADDITEMS, load_additems),
        (pickle.FROZENSET, load_frozenset),
        (pickle.BYTEARRAY8, load_bytearray8),
        (pickle.LONG_BINPUT, load_long_binput),
        (pickle.FRAME, load_frame),
    ):
        dispatch[_code[0]] = _function
