"""The checkpointer: complete files on disk, and a report of every tensor that did not load."""

import logging
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from torch import Tensor, nn

from ccsa.checkpoint.checkpoint_files import remove_old, shared_newest_valid, write_checkpoint
from ccsa.checkpoint.conversion import source_of
from ccsa.checkpoint.load_report import BATCH_COUNTER, LoadReport
from ccsa.checkpoint.timm_weights import load_timm_weights
from ccsa.checkpoint.values import trained_values, value_problem
from ccsa.checkpoint.weight_files import (
    WeightsSource,
    loading_errors,
    read_weights,
    state_problem,
    state_within,
)
from ccsa.modeling.backbones.timm_backbone import TimmBackbone
from ccsa.modeling.backbones.timm_models import SCHEME
from ccsa.utils.files import write_text
from ccsa.utils.run_folders import LAST, has_checkpoint

logger = logging.getLogger(__name__)

_OPTION = WeightsSource._field_defaults["option"]
_RESUME_OPTION = f"{_OPTION} and another OUTPUT_DIR, without --resume"  # which ignores the weights


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer with atomic files, safe reading and a load report.

    Deviations from Detectron2: a file is complete or absent and has a checksum beside it, a damaged
    checkpoint is not resumed from if an older one is valid, code in a weight file is never run, and
    weights that do not fit are an error instead of a warning.

    Args:
        model, save_dir, others: as in ``DetectionCheckpointer``.
        training: whether the model will be trained from the loaded weights. If not, every tensor of
            the model must be loaded.

    Attributes:
        entries: what :meth:`save` writes beside the weights into every file.
        keep: the number of checkpoints ``model_<iteration>.pth`` that are kept; 0 for all.
        left_out: keys of tensors that are not loaded, although a file may have them.
        report: the :class:`LoadReport` of the last :meth:`load`; ``None`` before.

    Example:
        >>> checkpointer = Checkpointer(model)  # doctest: +SKIP
        >>> checkpointer.load("output/digits/ccnet/1/model_final.pth")  # doctest: +SKIP
        >>> print(*checkpointer.report.lines, sep="\\n")  # doctest: +SKIP
        weights: 113 of the model's 113 tensors loaded
    """

    def __init__(
        self, model: nn.Module, save_dir: str = "", *, training: bool = False, **others: Any
    ):
        super().__init__(model, save_dir, **others)
        self.training = training
        self.entries: Mapping[str, Any] = {}
        self.keep = 0
        self.left_out: Collection[str] = ()
        self.report: LoadReport | None = None
        self._source = WeightsSource("")
        self._option = _OPTION
        self._resuming = False

    def save(self, name: str, *, is_last: bool = True, **kwargs: Any) -> None:
        """Write ``<name>.pth`` and make it the last checkpoint.

        The file is written under a temporary name first, so an interrupted write leaves the
        previous checkpoint valid. Its checksum is written to ``<name>.pth.sha256``.

        Args:
            name: the file name without its suffix.
            is_last: whether ``last_checkpoint`` names the file, so that ``--resume`` uses it. If
                so, checkpoints of which there are more than ``keep`` are removed.
            kwargs: further entries of the checkpoint, such as ``iteration``.

        Raises:
            UserError: the file cannot be written.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        states = {key: obj.state_dict() for key, obj in self.checkpointables.items()}
        path = Path(self.save_dir) / f"{name}.pth"
        content = {"model": self.model.state_dict(), **self.entries, **states, **kwargs}
        write_checkpoint(content, path)
        if is_last:
            self.tag_last_checkpoint(path.name)
            if self.keep and "iteration" in kwargs:
                remove_old(path.parent, kwargs["iteration"], self.keep)
        logger.info("checkpoint: %s", path)

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Write the name of the last checkpoint to ``last_checkpoint``, atomically."""
        write_text(Path(self.save_dir) / LAST, last_filename_basename)

    def has_checkpoint(self) -> bool:
        """Return whether the folder has a checkpoint, also if ``last_checkpoint`` is missing."""
        return bool(self.save_dir) and has_checkpoint(Path(self.save_dir))

    def get_checkpoint_file(self) -> str:
        """Return the newest checkpoint that is not damaged, the same one on every process.

        Raises:
            UserError: the folder has none; see :func:`newest_valid`.
        """
        return str(shared_newest_valid(Path(self.save_dir)))

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict[str, Any]:
        """Resume from the newest valid checkpoint of the folder if there is one and ``resume`` is
        set; otherwise load the weights in ``path``.

        Returns, raises:
            As :meth:`load`.
        """
        self._resuming = resume and self.has_checkpoint()
        self._option = _RESUME_OPTION if self._resuming else _OPTION
        try:
            return super().resume_or_load(path, resume=resume)
        finally:
            self._option, self._resuming = _OPTION, False

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict[str, Any]:
        """Load weights into the model.

        Args:
            path: a ``.pth``, ``.safetensors`` or ``.pkl`` file; ``timm://hub`` or ``timm://FILE``
                for the weights of a timm backbone; an empty string loads nothing.
            checkpointables: as in ``DetectionCheckpointer``.

        Returns:
            The entries of the checkpoint that were not loaded, such as ``iteration``.

        Raises:
            UserError: the file cannot be read, references code, has values that cannot be
                right, see :func:`ccsa.checkpoint.values.value_problem`, or does not contain enough
                tensors, see :meth:`LoadReport.problem`.
        """
        self._source = WeightsSource(path, self._option)
        try:
            if path and path.startswith(SCHEME):
                self._load_timm(path)
                others: dict[str, Any] = {}
            else:
                with loading_errors(self._source):
                    others = super().load(path, checkpointables)
            if path and (problem := value_problem(trained_values(self.model))):
                raise self._source.error(problem)
            return others
        finally:
            self._parsed_url_during_load = None  # Detectron2 does not reset it after an error

    def _load_timm(self, weights: str) -> None:
        """Load the weights of a timm backbone. The file is complete, but has only the backbone."""
        self.report = load_timm_weights(self.model, weights)
        problem = "" if self.training else self.report.problem(training=False)
        if problem:
            raise self._source.error(problem)
        self.report.log(logger)

    def _load_file(self, filename: str) -> dict[str, Any]:
        """Read a file in any format that ``DetectionCheckpointer`` reads."""
        if not filename.endswith((".pkl", ".pyth")):
            return super()._load_file(filename)
        data = read_weights(filename, self._source)
        if filename.endswith(".pyth"):  # pycls
            data, author = data["model_state"], "pycls"
            weights = {key: value for key, value in data.items() if not key.endswith(BATCH_COUNTER)}
        elif "model" in data:
            return dict(data)
        elif all(isinstance(value, Tensor) for value in data.values()):  # Caffe2 has arrays
            return {"model": data}
        else:
            data, author = data.get("blobs", data), "Caffe2"
            weights = {key: value for key, value in data.items() if not key.endswith("_momentum")}
        return {"model": weights, "__author__": author, "matching_heuristics": True}

    def _torch_load(self, f: str) -> Any:
        return read_weights(f, self._source)

    def _load_model(self, checkpoint: dict[str, Any]) -> Any:
        """Load a state dict, then check and log the report.

        Raises:
            UserError: the checkpoint has no state dict, or not enough of it fits the model. To be
                resumed from, it must contain every tensor, and the state of the trainer.
        """
        state = checkpoint["model"] = state_within(checkpoint["model"])
        problem = state_problem(state)
        if problem:
            raise self._source.error(problem)
        state = checkpoint["model"] = {k: v for k, v in state.items() if k not in self.left_out}
        file_keys = list(state)  # Detectron2 renames some of them in place
        incompatible = super()._load_model(checkpoint)
        keys = {key for key in self.model.state_dict() if not key.endswith(BATCH_COUNTER)}
        mismatched = [entry for entry in incompatible.incorrect_shapes if entry[0] in keys]
        mismatched_keys = {key for key, _, _ in mismatched}
        missing = [key for key in incompatible.missing_keys if key in keys - mismatched_keys]
        unexpected = [
            key for key in incompatible.unexpected_keys if not key.endswith(BATCH_COUNTER)
        ]
        loaded = len(keys) - len(missing) - len(mismatched)
        report = LoadReport(loaded, missing, unexpected, mismatched)
        # The run itself has written a checkpoint that is resumed from, so everything must fit.
        problem = report.problem(training=self.training and not self._resuming)
        lacking = [name for name in self.checkpointables if name not in checkpoint]
        if self._resuming and lacking and not problem:
            problem = f"it cannot be resumed from, because it has no state of the {lacking[0]}"
        if problem:
            raise self._source.error(f"{problem}{self._conversion_hint(file_keys)}")
        report.log(logger)
        self.report = report
        return incompatible

    def _conversion_hint(self, file_keys: list[str]) -> str:
        """Return how weights with these keys can be loaded into this model, if that is known."""
        if any(key in self.model.state_dict() for key in file_keys):
            return ""
        if any(isinstance(module, TimmBackbone) for module in self.model.modules()):
            return f"; to load weights with timm's keys, set MODEL.WEIGHTS {SCHEME}FILE"
        source = source_of(file_keys)
        if source is None:
            return ""
        return (
            f"; the keys are those of {source}: run tools/convert_weights.py --source {source} "
            "--input FILE --output NEW.safetensors and name the new file"
        )

    def _log_incompatible_keys(self, incompatible: Any) -> None:
        """Log nothing, because the load report lists all of them."""
