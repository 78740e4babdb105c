"""Checkpoints: complete or absent on disk, and plain about what did not load."""

import logging
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer
from torch import Tensor, nn

from ccsa.checkpoint.conversion import source_of
from ccsa.checkpoint.load_report import COUNTER, LoadReport
from ccsa.checkpoint.timm_weights import load_timm_weights
from ccsa.checkpoint.weight_files import check_state, loading_errors, read_weights, state_within
from ccsa.modeling.backbones.timm_backbone import TimmBackbone
from ccsa.modeling.backbones.timm_models import SCHEME
from ccsa.utils.files import atomic_write, write_text

logger = logging.getLogger(__name__)


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, with files that are never half written.

    Args:
        model, save_dir, others: as Detectron2's.
        training: whether the model is trained from what is loaded; if not, every tensor of it must
            be loaded.
    """

    def __init__(self, model: nn.Module, save_dir: str = "", *, training: bool = False, **others):
        super().__init__(model, save_dir, **others)
        self.training = training
        self.report: LoadReport | None = None  # of the last load

    def save(self, name: str, **kwargs) -> None:
        """Write ``<name>.pth`` under another name first: an interrupted write leaves the previous
        checkpoint in force."""
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        path = Path(self.save_dir) / f"{name}.pth"
        with atomic_write(path) as partial:
            torch.save({"model": self.model.state_dict(), **states, **kwargs}, partial)
        self.tag_last_checkpoint(path.name)
        logger.info("checkpoint: %s", path)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        write_text(Path(self.save_dir) / "last_checkpoint", last_filename_basename)

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict:
        """As Detectron2's, from ``.pth``, ``.safetensors`` and ``.pkl`` files, with no code in them
        run, and weights of timm for a backbone from there (``timm://``).

        Raises:
            UserError: a file that cannot be read, names what could run code, or does not hold
                enough: see :meth:`LoadReport.check_complete` and, in training,
                :meth:`LoadReport.check_sufficient`.
        """
        try:
            with loading_errors(path, "MODEL.WEIGHTS"):
                if path and path.startswith(SCHEME):
                    self._take_timm(path)
                    return {}
                return super().load(path, checkpointables)
        finally:
            self._parsed_url_during_load = None  # Detectron2 forgets it after an error

    def _take_timm(self, weights: str) -> None:
        """A backbone's weights, which are whole, but of the backbone alone."""
        self.report = load_timm_weights(self.model, weights)
        if not self.training:
            self.report.check_complete()
        self.report.log(logger)

    def _load_file(self, filename: str) -> dict[str, Any]:
        """As Detectron2's, whose formats these are."""
        if not filename.endswith((".pkl", ".pyth")):
            return super()._load_file(filename)
        data = read_weights(filename)
        if filename.endswith(".pyth"):  # pycls
            data, author = data["model_state"], "pycls"
            weights = {key: value for key, value in data.items() if not key.endswith(COUNTER)}
        elif "model" in data:
            return dict(data)
        elif all(isinstance(value, Tensor) for value in data.values()):  # Caffe2 has arrays
            return {"model": data}
        else:
            data, author = data.get("blobs", data), "Caffe2"
            weights = {key: value for key, value in data.items() if not key.endswith("_momentum")}
        return {"model": weights, "__author__": author, "matching_heuristics": True}

    def _torch_load(self, f: str) -> Any:
        return read_weights(f)

    def _load_model(self, checkpoint: dict[str, Any]):
        """As Detectron2's, and judge the outcome."""
        state = checkpoint["model"] = check_state(state_within(checkpoint["model"]))
        given = list(state)
        incompatible = super()._load_model(checkpoint)
        keys = {key for key in self.model.state_dict() if not key.endswith(COUNTER)}
        misfits = [misfit for misfit in incompatible.incorrect_shapes if misfit[0] in keys]
        other = {key for key, _, _ in misfits}
        missing = [key for key in incompatible.missing_keys if key in keys - other]
        unexpected = [key for key in incompatible.unexpected_keys if not key.endswith(COUNTER)]
        loaded = len(keys) - len(missing) - len(misfits)
        self._judge(LoadReport(loaded, missing, unexpected, misfits), given)
        return incompatible

    def _judge(self, report: LoadReport, given: list[str]) -> None:
        """Refuse what is not enough, with the way to get what is; else log what was loaded."""
        try:
            (report.check_sufficient if self.training else report.check_complete)()
        except ValueError as error:
            raise ValueError(f"{error}{self._way(given)}") from None
        report.log(logger)
        self.report = report

    def _way(self, given: list[str]) -> str:
        """How weights with these keys come into this model, where that is known."""
        if any(key in self.model.state_dict() for key in given):
            return ""
        if any(isinstance(module, TimmBackbone) for module in self.model.modules()):
            return f"; weights with timm's keys are named by MODEL.WEIGHTS {SCHEME}FILE"
        source = source_of(given)
        if source is None:
            return ""
        return (
            f"; the keys are those of {source}: run tools/convert_weights.py --source {source} "
            "--input FILE --output NEW.safetensors and name the new file"
        )

    def _log_incompatible_keys(self, incompatible) -> None:
        """The report has said it."""
