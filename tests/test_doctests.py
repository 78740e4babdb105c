"""The examples in docstrings of modules whose examples run quickly."""

import doctest
import importlib
import pkgutil

import pytest

import ccsa


def modules(*names):
    """Return the names of modules, and of the modules inside those that are packages."""
    found = []
    for name in names:
        found.append(name)
        folder = getattr(importlib.import_module(name), "__path__", ())
        found += [module.name for module in pkgutil.walk_packages(folder, f"{name}.")]
    return [name for name in found if not name.endswith("triton_kernels")]  # imports triton


NAMES = ["ccsa", *modules("ccsa.errors", "ccsa.insertion", "ccsa.ops", "ccsa.blocks", "ccsa.utils")]


@pytest.mark.parametrize("name", NAMES)
def test_examples_of_docstrings_give_what_they_show(name):
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    failed, _ = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert not failed


def test_examples_are_found():
    finder = doctest.DocTestFinder()
    found = [test for name in NAMES for test in finder.find(importlib.import_module(name))]
    assert sum(len(test.examples) for test in found) >= 8
    assert ccsa.__doc__ and ">>> from ccsa import CrissCross" in ccsa.__doc__
