"""Images that are named pipes end in one sentence instead of waiting forever."""

import os

import pytest

from ccsa.data.formats.id_lists import read_id_list
from ccsa.data.formats.panoptic_png import read_segment_ids
from ccsa.data.semantic.camvid import read_colors
from ccsa.errors import UserError


@pytest.mark.parametrize("read", [read_segment_ids, read_colors, read_id_list])
def test_a_pipe_is_not_opened(tmp_path, read):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="it is not a regular file"):
        read(tmp_path / "pipe")
