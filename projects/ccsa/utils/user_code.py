"""``--import``: running a user's Python file or module, which registers blocks, heads or datasets.

Only the command line causes an import; nothing in a YAML file or a run folder does.
"""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterable
from pathlib import Path

from ccsa.errors import UserError
from ccsa.utils.files import real_path

_imported: dict[str, str] = {}  # module name by what was given


def import_user_code(names: Iterable[str]) -> tuple[str, ...]:
    """Import files and modules, each once per process.

    The folder of a file is added to ``sys.path`` and the file is imported under its own name, so
    that processes that are started anew can unpickle what it defines.

    Args:
        names: paths of ``.py`` files, or names of modules that can be imported.

    Returns:
        The absolute paths and module names, to be imported again in another process.

    Raises:
        UserError: a file does not exist, its name is that of another module, or its code fails.
    """
    return tuple(_import(name) for name in names)


def imported_user_code() -> tuple[str, ...]:
    """Return what was imported in this process, for :func:`import_user_code` in another one."""
    return tuple(_imported)


def _import(name: str) -> str:
    path = Path(name).expanduser()
    is_file = name.endswith(".py") or path.is_file()
    if is_file:
        if not path.is_file():
            raise UserError(f"--import {name} does not exist; name a Python file or a module")
        path = real_path(path)
        name, module = str(path), path.stem
        if not module.isidentifier():
            raise UserError(f"--import {name}: '{module}' is not a module name; rename the file")
        _check_not_taken(path, module)
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
    else:
        module = name
    if name not in _imported:
        try:
            importlib.import_module(module)
        except UserError:
            raise
        except (Exception, SystemExit) as error:  # whatever the user's code raises
            raise UserError(f"--import {name} failed: {_where(error, path)}") from error
        _imported[name] = module
    return name


def _check_not_taken(path: Path, module: str) -> None:
    """Reject a file whose name already belongs to another module."""
    known = sys.modules.get(module)
    origin = getattr(known, "__file__", None)
    if known is not None and (origin is None or real_path(origin) != path):
        raise UserError(
            f"--import {path}: a module named '{module}' is loaded already ({origin or 'built in'}"
            "); rename the file"
        )
    spec = None if known is not None else importlib.util.find_spec(module)
    if spec is not None and spec.origin and real_path(spec.origin) != path:
        raise UserError(
            f"--import {path}: there is another module named '{module}' ({spec.origin}); rename "
            "the file"
        )


def _where(error: BaseException, path: Path) -> str:
    """Return the kind, text and line of an error in the user's code."""
    text = " ".join(str(error).split()) or "no message"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    line = frames[-1].lineno if frames else getattr(error, "lineno", None)
    return f"{type(error).__name__}: {text}" + (f" (line {line})" if line else "")
