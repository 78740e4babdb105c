"""Memory use of this process and of its accelerator."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import torch


def accelerator_statistics(device: torch.device | None) -> Any:
    """Return the module of torch with the memory statistics of an accelerator, such as
    ``torch.cuda`` or ``torch.xpu``; None for the CPU and for mps, which records no peak.

    Example:
        >>> accelerator_statistics(torch.device("cuda")) is torch.cuda
        True
        >>> accelerator_statistics(torch.device("cpu"))
    """
    if device is None or device.type == "cpu":
        return None
    module = torch.get_device_module(device)
    return module if hasattr(module, "max_memory_allocated") else None


def peak_memory() -> int | None:
    """Return the peak memory in bytes: allocated on the accelerator if one is in use, otherwise the
    peak resident size of this process; None where the platform does not report it (Windows)."""
    statistics = accelerator_statistics(torch.accelerator.current_accelerator())
    if statistics is not None and statistics.is_initialized():
        return statistics.max_memory_allocated()
    try:
        import resource
    except ImportError:  # Windows has no such module
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux reports KiB


def total_memory(device: torch.device) -> int | None:
    """Return the memory of a device in bytes: that of the accelerator, or else that of the machine,
    or of the container if that is less; None where the platform does not report it.

    Example:
        >>> total_memory(torch.device("cpu")) > 2**20
        True
    """
    if accelerator_statistics(device) is not None:
        return torch.get_device_module(device).get_device_properties(device).total_memory
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return None
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):  # no such file, or the word "max"
            total = min(total, int(Path(file).read_text()))
    return total
