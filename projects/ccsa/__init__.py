"""ccsa: context attention for dense prediction in Detectron2.

Importing this package registers its blocks, meta-architectures and built-in datasets with
Detectron2.
"""

import importlib.util

if importlib.util.find_spec("detectron2") is None:
    raise ImportError(
        "ccsa needs Detectron2: run 'python tools/install_detectron2.py', "
        "or install an official build"
    )

from ccsa import data, modeling
from ccsa.blocks import CONTEXT_BLOCK_REGISTRY, build_block
from ccsa.config import add_ccsa_config
from ccsa.errors import UserError
from ccsa.insertion import insert_blocks

__version__ = "0.1.0"
__all__ = [
    "CONTEXT_BLOCK_REGISTRY",
    "UserError",
    "add_ccsa_config",
    "build_block",
    "data",
    "insert_blocks",
    "modeling",
]
