"""Run a script in a process that can import only torch, torch's requirements and ccsa.

    python torch_only.py MODE SCRIPT [NAME ...]

MODE says how every other package is hidden: with ``none`` the import system does not find it, with
``ImportError`` or ``RuntimeError`` looking for it raises that exception. The packages of the
distributions NAME stay visible.
"""

import importlib.metadata
import re
import sys

MODES = {"none": None, "ImportError": ImportError, "RuntimeError": RuntimeError}


def requirements(*distributions):
    """Return the names of installed distributions and of everything they require."""
    found, todo = set(), list(distributions)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        try:
            required = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        if name not in found:
            found.add(name)
            todo += [re.match(r"[\w.-]+", r)[0] for r in required if "extra ==" not in r]
    return found


def visible_packages(*distributions):
    """Return the top-level packages of the distributions and of everything they require."""
    kept = requirements(*distributions)
    return {
        package
        for package, owners in importlib.metadata.packages_distributions().items()
        if kept & {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners}
    }


class HidingFinder:
    """Ask the usual finders only for visible packages."""

    def __init__(self, visible, error, finders):
        self.visible, self.error, self.finders = visible, error, finders

    def find_spec(self, name, path=None, target=None):
        generated = name.startswith("_sysconfigdata")  # of the standard library, but not listed
        if generated or name.partition(".")[0] in self.visible:
            specs = (finder.find_spec(name, path, target) for finder in self.finders)
            return next((spec for spec in specs if spec is not None), None)
        if self.error is not None:
            raise self.error(f"{name} is hidden")
        return None


def hide(mode, *distributions):
    """Hide every package that is not in the standard library and not required by torch."""
    visible = visible_packages("torch", *distributions) | {"ccsa"} | set(sys.stdlib_module_names)
    if MODES[mode]:  # torch itself handles a package that is not found, but not these errors
        import torch
        import torch._dynamo  # noqa: F401
    sys.meta_path[:] = [HidingFinder(visible, MODES[mode], list(sys.meta_path))]


if __name__ == "__main__":
    hide(sys.argv[1], *sys.argv[3:])
    exec(compile(sys.argv[2], "script", "exec"), {"__name__": "__main__"})
