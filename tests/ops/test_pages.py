"""Tests of large pages for large results."""

import re
from pathlib import Path

import pytest
import torch

from ccsa.ops.criss_cross import pages
from ccsa.ops.criss_cross.pages import use_large_pages


def advised(address):
    """Return whether the kernel was asked for large pages at this address."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
        if head:
            inside = int(head[1], 16) <= address < int(head[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return "hg" in line.split()
    return None


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="the system lists no mappings")
def test_the_kernel_is_asked_where_large_results_lie():
    large = torch.empty(pages.MAPPED_BYTES, dtype=torch.uint8)
    if advised(large.data_ptr()) is None:
        pytest.skip("the system says nothing of pages")
    if advised(large.data_ptr() + 2**24):
        pytest.skip("somebody asked already (THP_MEM_ALLOC_ENABLE, or NumPy in memory used again)")
    assert use_large_pages(large) is large
    assert advised(large.data_ptr() + 2**24)
    large.fill_(1)
    assert int(large.sum()) == large.numel()


@pytest.mark.parametrize("system", ["without advice", "advice refused"])
def test_without_large_pages_all_works_as_well(system, monkeypatch):
    monkeypatch.setattr(pages, "MAPPED_BYTES", 1)
    if system == "without advice":
        monkeypatch.delattr("mmap.MADV_HUGEPAGE", raising=False)
    else:
        monkeypatch.setattr("mmap.MADV_HUGEPAGE", -1, raising=False)
    x = torch.empty(5000, dtype=torch.uint8)
    assert use_large_pages(x) is x
    assert int(x.fill_(2).sum()) == 10000


def test_nobody_is_asked_for_small_results_and_other_devices(monkeypatch):
    monkeypatch.delattr("ctypes.CDLL")
    for x in (torch.empty(2**20), torch.empty(pages.MAPPED_BYTES, device="meta")):
        assert use_large_pages(x) is x
