"""Griffe extension: adapt docstrings to what mkdocstrings renders.

* Griffe knows the section "Examples:" and renders its doctests as code; "Example:" becomes the
  same section.
* A Sphinx role (``:class:`Name```) becomes plain code.
"""

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^( *)Example:[ ]*$", re.MULTILINE)
SPHINX_ROLE = re.compile(r":(?:class|func|mod|meth|attr|data|exc|obj):(?=`)")


class Docstrings(griffe.Extension):
    """Rewrites the docstring of every object that Griffe reads."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Rewrite the docstring of ``obj`` in place."""
        if obj.docstring:
            text = EXAMPLE.sub(r"\1Examples:", obj.docstring.value)
            obj.docstring.value = SPHINX_ROLE.sub("", text)
