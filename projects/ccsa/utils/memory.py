"""Memory use of this process."""

import sys

import torch


def peak_memory() -> int | None:
    """Return the peak memory in bytes: allocated on the GPU if one is in use, otherwise the peak
    resident size of this process; None where the platform does not report it (Windows)."""
    if torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows has no such module
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux reports KiB
