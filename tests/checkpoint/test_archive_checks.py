"""Weight files that ask for more memory or time than they have values for are rejected."""

import os

import pytest
import torch

from ccsa.checkpoint.weight_files import read_weights
from ccsa.errors import UserError


@pytest.mark.parametrize("old_format", [False, True])
def test_a_tensor_that_states_more_values_than_are_stored_is_rejected(tmp_path, old_format):
    file, before = tmp_path / "w.pth", torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({"a": torch.ones(1000)}, file, _use_new_zipfile_serialization=not old_format)
    finally:
        torch.serialization.set_crc32_options(before)
    data = bytearray(file.read_bytes())
    at = data.index(b"M\xe8\x03", data.index(b"cpu"))  # the number 1000 in the pickle
    data[at + 2] = 0xFD
    file.write_bytes(data)
    with pytest.raises(UserError, match=r"it states 2\d+ bytes"):
        read_weights(file)


class Large:
    """A pickle that calls something that allocates 64 GiB."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("call", [(torch.Tensor, (2**34,)), (bytearray, (2**36,))])
def test_a_pickle_cannot_allocate(tmp_path, call):
    torch.save({"a": Large(*call)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="were rejected: they reference"):
        read_weights(tmp_path / "w.pth")


def test_keys_that_take_forever_to_hash_are_rejected(tmp_path):
    # Tuples of 60 levels: instruction 2 repeats the top of the stack, \\x86 pairs it.
    file = tmp_path / "w.pkl"
    file.write_bytes(b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.")
    with pytest.raises(UserError, match="cannot be loaded"):
        read_weights(file)


def test_pipes_and_devices_are_rejected(tmp_path):
    os.mkfifo(tmp_path / "pipe.pth")
    with pytest.raises(UserError, match="a device or a pipe, not a file"):
        read_weights(tmp_path / "pipe.pth")
