"""Context attention (CCNet, SANet) for dense prediction in Detectron2 and in any PyTorch module.

Blocks, the criss-cross operator and insertion need only torch. If Detectron2 is installed,
importing this package registers its blocks, meta-architectures, heads, backbones and built-in
datasets with Detectron2. Every other name is imported on first use (PEP 562).

Example:
    >>> import torch
    >>> from ccsa import CrissCross
    >>> CrissCross(64)(torch.randn(1, 64, 9, 12)).shape
    torch.Size([1, 64, 9, 12])
"""

import importlib
import importlib.util
import sys
import warnings
from typing import TYPE_CHECKING, Any

from ccsa.errors import MissingAttributeError, MissingPackageError, UserError

if TYPE_CHECKING:
    from ccsa.blocks import (
        CONTEXT_BLOCK_REGISTRY,
        CrissCross,
        NonLocal,
        SqueezeAttention,
        SqueezeExcitation,
        build_block,
    )
    from ccsa.config import add_ccsa_config as add_ccsa_config
    from ccsa.insertion import insert_blocks
    from ccsa.ops import criss_cross_attention, criss_cross_weights, use_backend
    from ccsa.prediction import Predictor as Predictor

__version__ = "0.1.0"

# The module of each public name, and the names of submodules, which may be used as ccsa.<name>.
_TORCH_ONLY = {
    **dict.fromkeys(
        (
            *("CONTEXT_BLOCK_REGISTRY", "CrissCross", "NonLocal", "SqueezeAttention"),
            *("SqueezeExcitation", "build_block"),
        ),
        "ccsa.blocks",
    ),
    "insert_blocks": "ccsa.insertion",
    **dict.fromkeys(("criss_cross_attention", "criss_cross_weights", "use_backend"), "ccsa.ops"),
}
_DETECTRON2_SIDE = {"Predictor": "ccsa.prediction", "add_ccsa_config": "ccsa.config"}
_TORCH_ONLY_MODULES = ("blocks", "errors", "insertion", "ops")
_DETECTRON2_SIDE_MODULES = (
    *("analysis", "checkpoint", "config", "data", "engine", "evaluation", "export", "inference"),
    *("modeling", "prediction", "report", "utils", "visualization"),
)
_DETECTRON2_SIDE_NAMES = {*_DETECTRON2_SIDE, *_DETECTRON2_SIDE_MODULES}

__all__ = [
    "CONTEXT_BLOCK_REGISTRY",
    "CrissCross",
    "MissingPackageError",
    "NonLocal",
    "SqueezeAttention",
    "SqueezeExcitation",
    "UserError",
    "build_block",
    "criss_cross_attention",
    "criss_cross_weights",
    "insert_blocks",
    "use_backend",
]

# What the modules of the Detectron2 side import when they are imported, by the name to install.
_REQUIRED = {
    "detectron2": "detectron2",
    "cv2": "opencv-python",
    "fvcore": "fvcore",
    "iopath": "iopath",
    "matplotlib": "matplotlib",
    "numpy": "numpy",
    "PIL": "pillow",
    "pycocotools": "pycocotools",
    "safetensors": "safetensors",
    "tabulate": "tabulate",
    "torchvision": "torchvision",
    "tqdm": "tqdm",
    "yaml": "pyyaml",
}


def _is_installed(package: str) -> bool:
    """Return whether a top-level package can be found; it cannot if a finder raises."""
    if sys.modules.get(package) is not None:
        return True
    try:
        return importlib.util.find_spec(package) is not None
    except Exception:  # finders may raise anything
        return False


def _missing_packages(feature: str) -> MissingPackageError | None:
    """Return the error for the Detectron2 side's packages that are missing, or None."""
    missing = [name for package, name in _REQUIRED.items() if not _is_installed(package)]
    if not missing:
        return None
    steps = ["pip install '.[train]' in a clone of ccsa"] if missing != ["detectron2"] else []
    if "detectron2" in missing:
        steps.append("python tools/install_detectron2.py (or install an official build)")
    subject = "the package" if len(missing) == 1 else "the packages"
    verb = "is" if len(missing) == 1 else "are"
    return MissingPackageError(
        f"{feature} needs {subject} {', '.join(missing)}, which {verb} not installed: "
        f"run {' and '.join(steps)}"
    )


# Why importing Detectron2 failed when ccsa was imported, or an empty string. A second attempt could
# fail differently, or end the process.
_import_failure = ""


def _unusable(feature: str) -> MissingPackageError | None:
    """Return the error for a feature of the Detectron2 side that cannot work here, or None."""
    if _import_failure:
        return MissingPackageError(
            f"{feature} needs Detectron2, which is installed, but importing it failed "
            f"({_import_failure}): reinstall Detectron2 (python tools/install_detectron2.py or an "
            "official build), then start Python again"
        )
    return _missing_packages(feature)


class _UnusableFinder:
    """Raise one sentence when something of the Detectron2 side is imported that cannot work here.

    It finds nothing itself. It comes before the other finders, and only if a package was missing or
    Detectron2 was broken when ccsa was imported. ``from ccsa import Predictor`` also arrives here,
    because Python looks for a submodule if a package has no such attribute.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> None:
        package, _, rest = name.partition(".")
        if package == __name__ and rest.partition(".")[0] in _DETECTRON2_SIDE_NAMES:
            error = _unusable(name)
            if error is not None:
                raise error


def _import_detectron2() -> str:
    """Import what ccsa registers with. Return an empty string, or why that failed.

    fvcore and Detectron2 call ``torch.jit.script`` on import, and torch 2.14 warns that it is
    deprecated. No user can act on that, so the warning is silenced here, and only here: a script
    that calls ``torch.jit.script`` itself still sees it.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)
            for module in ("config", "data", "modeling"):
                importlib.import_module(f"detectron2.{module}")
    except (Exception, SystemExit) as error:  # a broken build may raise anything
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return ""


def _register() -> None:
    """Register everything with Detectron2, if it is installed."""
    global _import_failure
    missing = _missing_packages("ccsa's registration with Detectron2")
    if missing is not None:
        sys.meta_path.insert(0, _UnusableFinder)  # type: ignore[arg-type]
        if _is_installed("detectron2"):
            warnings.warn(f"{missing}. Only blocks, operators and insertion work.", stacklevel=3)
        return
    _import_failure = _import_detectron2()
    if _import_failure:
        sys.meta_path.insert(0, _UnusableFinder)  # type: ignore[arg-type]
        warnings.warn(
            f"Detectron2 is installed, but importing it failed ({_import_failure}). "
            "ccsa has registered nothing with it; blocks, operators and insertion work. To fix it, "
            "reinstall Detectron2 (python tools/install_detectron2.py or an official build).",
            RuntimeWarning,
            stacklevel=3,
        )
        return
    for module in ("blocks", "data", "modeling"):
        importlib.import_module(f"{__name__}.{module}")
    __all__.extend(["add_ccsa_config", "data", "modeling"])


def __getattr__(name: str) -> Any:
    """Import a public name on first use.

    Raises:
        MissingAttributeError: the name belongs to the Detectron2 side, which cannot work here. An
            import of the same name raises :class:`MissingPackageError`.
    """
    if name in _DETECTRON2_SIDE_NAMES:
        error = _unusable(f"{__name__}.{name}")
        if error is not None:
            raise MissingAttributeError(str(error))
    if name in _TORCH_ONLY_MODULES or name in _DETECTRON2_SIDE_MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    module = _TORCH_ONLY.get(name) or _DETECTRON2_SIDE.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names that work here, including those that have not been imported yet."""
    names = {*globals(), *_TORCH_ONLY, *_TORCH_ONLY_MODULES}
    return sorted(names if _unusable(__name__) else names | _DETECTRON2_SIDE_NAMES)


_register()
