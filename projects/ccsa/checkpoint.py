"""Checkpoints: complete or absent on disk, and plain about what did not load."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from ccsa.conversion import convert_state_dict
from ccsa.files import whole_file, write_text
from ccsa.insertion import CHILD
from ccsa.modeling.timm_backbone import load_timm_weights
from ccsa.modeling.timm_models import SCHEME
from ccsa.weight_files import read_weights, save_weights, told

__all__ = ["Checkpointer", "convert_state_dict", "save_weights"]

logger = logging.getLogger(__name__)
_COUNTER = "num_batches_tracked"  # of a norm; torch fills it in where a file has none


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, with files that are never half written."""

    def save(self, name: str, **kwargs) -> None:
        """Write ``<name>.pth`` under another name first: an interrupted write leaves the previous
        checkpoint in force."""
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        path = Path(self.save_dir) / f"{name}.pth"
        with whole_file(path) as partial:
            torch.save({"model": self.model.state_dict(), **states, **kwargs}, partial)
        self.tag_last_checkpoint(path.name)
        logger.info("checkpoint: %s", path)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        write_text(Path(self.save_dir) / "last_checkpoint", last_filename_basename)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict:
        """As Detectron2's, from ``.pth``, ``.safetensors`` and ``.pkl`` files, with no code in them
        run, and weights of timm for a backbone from there (``timm://``).

        Raises:
            UserError: a file that cannot be read, names what could run code, or is of another
                model.
        """
        if path and path.startswith(SCHEME):
            load_timm_weights(self.model, path)
            return {}
        try:
            with told(path, "MODEL.WEIGHTS"):
                return super().load(path, checkpointables)
        finally:
            self._parsed_url_during_load = None  # Detectron2 forgets it after an error

    def _load_file(self, filename: str) -> dict[str, Any]:
        """As Detectron2's, whose formats these are."""
        if not filename.endswith((".pkl", ".pyth")):
            return super()._load_file(filename)
        data = read_weights(filename)
        if filename.endswith(".pyth"):  # pycls
            data, author = data["model_state"], "pycls"
            weights = {key: value for key, value in data.items() if not key.endswith(_COUNTER)}
        elif "model" in data and "__author__" in data:
            return data
        else:
            data, author = data.get("blobs", data), "Caffe2"
            weights = {key: value for key, value in data.items() if not key.endswith("_momentum")}
        return {"model": weights, "__author__": author, "matching_heuristics": True}

    def _torch_load(self, f: str) -> Any:
        return read_weights(f)

    def _load_model(self, checkpoint: dict[str, Any]):
        """As Detectron2's; a file that has nothing for the model is one of another model."""
        held = checkpoint["model"]
        if not (isinstance(held, Mapping) and held and all(isinstance(key, str) for key in held)):
            raise ValueError("it holds no weights")
        examples = ", ".join(_grouped(list(held), most=3))
        incompatible = super()._load_model(checkpoint)
        keys = {key for key in self.model.state_dict() if not key.endswith(_COUNTER)}
        lacking = keys.intersection(incompatible.missing_keys)
        if keys and lacking == keys:
            raise ValueError(f"it is of another model: none of it fits this one: {examples}")
        logger.info(
            "weights: %d of the model's %d tensors loaded", *map(len, (keys - lacking, keys))
        )
        return incompatible

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
