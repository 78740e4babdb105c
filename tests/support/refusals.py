"""What a check says when it refuses."""

import pytest

from ccsa.errors import UserError


def message(check, *args):
    with pytest.raises(UserError) as error:
        check(*args)
    text = str(error.value)
    assert "\n" not in text
    return text
