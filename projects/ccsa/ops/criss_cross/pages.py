"""Memory of large results: pages of 2 MiB instead of 4 KiB, where Linux has them.

From 32 MiB on the C library maps new memory for each result, and the kernel clears it page by page
at the first touch. For a map of 64 MiB that took as long as a quarter of its matrix products; with
large pages a fifth to a tenth of that. NumPy asks for them too.
"""

import ctypes
import mmap

from torch import Tensor

MAPPED_ANEW = 2**25  # bytes; glibc's largest M_MMAP_THRESHOLD


def large_pages(new: Tensor) -> Tensor:
    """The tensor, whose memory has not been touched yet, with a word to the kernel if it is large.
    What the kernel answers does not matter: without large pages all works as well."""
    if new.device.type == "cpu" and new.nbytes >= MAPPED_ANEW and hasattr(mmap, "MADV_HUGEPAGE"):
        start = -(-new.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        length = new.data_ptr() + new.nbytes - start
        advise = ctypes.CDLL(None).madvise
        advise(ctypes.c_void_p(start), ctypes.c_size_t(length), ctypes.c_int(mmap.MADV_HUGEPAGE))
    return new
