"""Checkpoints: complete or absent on disk, and plain about what did not load."""

import logging
import os
import pickle
from pathlib import Path

import torch
from detectron2.checkpoint import DetectionCheckpointer

from ccsa.conversion import convert_state_dict
from ccsa.errors import UserError
from ccsa.insertion import CHILD
from ccsa.modeling.timm_backbone import load_timm_weights
from ccsa.modeling.timm_models import SCHEME

__all__ = ["Checkpointer", "convert_state_dict"]

logger = logging.getLogger(__name__)

_UNREADABLE = (
    *(OSError, EOFError, RuntimeError, ValueError, AssertionError),
    *(pickle.UnpicklingError, AttributeError, KeyError, IndexError, TypeError),
)


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, with files that are never half written."""

    def save(self, name: str, **kwargs) -> None:
        """Write ``<name>.pth`` under another name first: an interrupted write leaves the previous
        checkpoint in force."""
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        path = Path(self.save_dir) / f"{name}.pth"
        partial = path.with_suffix(".partial")
        try:
            torch.save({"model": self.model.state_dict(), **states, **kwargs}, partial)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        self.tag_last_checkpoint(path.name)
        logger.info("checkpoint: %s", path)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        tag = Path(self.save_dir) / "last_checkpoint"
        partial = tag.with_suffix(".partial")
        partial.write_text(last_filename_basename)
        os.replace(partial, tag)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict:
        """As Detectron2's, and weights of timm for a backbone from there (``timm://``); a file that
        cannot be read raises UserError."""
        if path and path.startswith(SCHEME):
            load_timm_weights(self.model, path)
            return {}
        try:
            return super().load(path, checkpointables)
        except _UNREADABLE as error:
            # torch's advice at this point is to load the file unsafely; it is not passed on.
            unsafe = isinstance(error, pickle.UnpicklingError) or not str(error)
            reason = "it is damaged, or no checkpoint" if unsafe else str(error).splitlines()[0]
            raise UserError(
                f"weights {path} cannot be loaded ({reason}); name another file by MODEL.WEIGHTS"
            ) from error

    def _log_incompatible_keys(self, incompatible) -> None:
        """One line a kind, where Detectron2 prints a table a kind."""
        shapes = [f"{k} {tuple(a)} for {tuple(b)}" for k, a, b in incompatible.incorrect_shapes]
        misfits = {key for key, _, _ in incompatible.incorrect_shapes}
        missing = [key for key in incompatible.missing_keys if key not in misfits]
        for label, keys in (
            ("missing in the file, left as initialised", missing),
            ("in the file, not in the model", incompatible.unexpected_keys),
            ("of another shape, not loaded", shapes),
        ):
            if keys:
                logger.warning("weights %s: %d: %s", label, len(keys), ", ".join(_grouped(keys)))


def _grouped(keys: list[str], most: int = 8) -> list[str]:
    """Keys by their module, ``module.{weight,bias}``, those of a context block as one; a long list
    is cut."""
    modules: dict[str, list[str]] = {}
    for key in keys:
        place, inside, _ = key.partition(f".{CHILD}.")
        module, _, leaf = (f"{place}.{CHILD}", "", "*") if inside else key.rpartition(".")
        leaves = modules.setdefault(module, [])
        if leaf not in leaves:
            leaves.append(leaf)
    names = [
        f"{module}.{{{','.join(leaves)}}}"
        if len(leaves) > 1
        else f"{module}.{leaves[0]}".lstrip(".")
        for module, leaves in modules.items()
    ]
    return names[:most] + (["..."] if len(names) > most else [])
