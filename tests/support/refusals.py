"""The message of the error that a check raises."""

import pytest

from ccsa.errors import UserError


def message(check, *args):
    """Return the message, a single line, of the UserError that ``check(*args)`` raises."""
    with pytest.raises(UserError) as error:
        check(*args)
    text = str(error.value)
    assert "\n" not in text
    return text
