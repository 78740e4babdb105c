"""Errors that a user can cure, and how every tool reports them: one message, exit status 2, no
traceback."""

import functools
import sys
from collections.abc import Callable


class UserError(Exception):
    """A mistake or a lack on the user's side; its text names the thing and the cure."""


def reports_user_errors(main: Callable) -> Callable:
    """Decorator for a tool's ``main``: a :class:`UserError` ends the program with status 2 and one
    message."""

    @functools.wraps(main)
    def wrapped(*args, **kwargs):
        try:
            return main(*args, **kwargs)
        except UserError as error:
            # From a data loader's process it comes with that process's traceback before it.
            print(f"error: {str(error).rsplit('UserError: ', 1)[-1].strip()}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(130)

    return wrapped
