"""Optional writers for experiment trackers: Weights & Biases, MLflow and Trackio.

``TRACKER`` chooses one. Its package is imported only then, and its own environment variables
(``WANDB_MODE=offline``, ``MLFLOW_TRACKING_URI``, ...) configure it. A resumed run continues the run
of the tracker, whose identifier is stored in the run folder.
"""

import abc
import importlib
import importlib.util
import logging
import re
import uuid
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.utils.events import EventWriter, get_event_storage

from ccsa.engine.model_parts import all_values
from ccsa.errors import UserError, missing_package
from ccsa.utils.files import write_text

logger = logging.getLogger(__name__)

PROJECT = "ccsa"
IDENTIFIER = "tracker_run_id.txt"


class TrackerWriter(EventWriter, abc.ABC):
    """Sends the scalars that were recorded since the last call to a tracker.

    Args:
        package: the imported package of the tracker.
        cfg: the configuration of the run, which the tracker shows.
    """

    def __init__(self, package: Any, cfg: CfgNode):
        self.package = package
        self._written = -1
        self._failed = False
        folder = Path(cfg.OUTPUT_DIR)
        self.name = "/".join(folder.parts[-2:])
        self._file = folder / IDENTIFIER
        known = self._file.read_text(encoding="utf-8").strip() if self._file.is_file() else ""
        identifier = self.start(known, {key: str(value) for key, value in all_values(cfg).items()})
        if identifier != known:
            write_text(self._file, identifier)

    @abc.abstractmethod
    def start(self, identifier: str, settings: dict[str, str]) -> str:
        """Start a run, or continue the one with this identifier if it is not empty; return its
        identifier."""

    @abc.abstractmethod
    def log(self, scalars: dict[str, float], iteration: int) -> None:
        """Send the scalars of one iteration."""

    @abc.abstractmethod
    def close(self) -> None:
        """End the run of the tracker."""

    def write(self) -> None:
        rows: dict[int, dict[str, float]] = {}
        latest = get_event_storage().latest_with_smoothing_hint(20)
        for name, (value, iteration) in latest.items():
            if iteration > self._written:
                rows.setdefault(iteration, {})[name] = float(value)
        for iteration in sorted(rows):
            try:
                self.log(rows[iteration], iteration)
            except UserError:
                raise
            except Exception as error:  # the network, or a full disk of the tracker
                self._report(error)
        self._written = max(rows, default=self._written)

    def _report(self, error: Exception) -> None:
        """Log the first failure; training goes on, and metrics.json has all values."""
        if not self._failed:
            reason = " ".join(str(error).split())[:300]
            logger.warning(
                "%s did not take the metrics (%s: %s); metrics.json has all of them",
                self.package.__name__,
                type(error).__name__,
                reason,
            )
        self._failed = True


class WandbWriter(TrackerWriter):
    """Writes to Weights & Biases (``pip install wandb``)."""

    def start(self, identifier: str, settings: dict[str, str]) -> str:
        identifier = identifier or uuid.uuid4().hex
        self.run = self.package.init(
            project=PROJECT,
            name=self.name,
            id=identifier,
            resume="allow",
            config=settings,
            dir=str(self._file.parent),
        )
        return identifier

    def log(self, scalars: dict[str, float], iteration: int) -> None:
        self.run.log(scalars, step=iteration)

    def close(self) -> None:
        self.run.finish()


class MlflowWriter(TrackerWriter):
    """Writes to MLflow (``pip install mlflow``)."""

    def start(self, identifier: str, settings: dict[str, str]) -> str:
        self.package.set_experiment(PROJECT)
        if identifier:
            return self.package.start_run(run_id=identifier).info.run_id
        run = self.package.start_run(run_name=self.name)
        limit = 500  # characters of a parameter's value
        self.package.log_params({key: value[:limit] for key, value in settings.items()})
        return run.info.run_id

    def log(self, scalars: dict[str, float], iteration: int) -> None:
        names = {name: re.sub(r"[^\w\-. :/]", "_", name) for name in scalars}  # those it accepts
        self.package.log_metrics({names[k]: v for k, v in scalars.items()}, step=iteration)

    def close(self) -> None:
        self.package.end_run()


class TrackioWriter(TrackerWriter):
    """Writes to Trackio (``pip install trackio``)."""

    def start(self, identifier: str, settings: dict[str, str]) -> str:
        name = identifier or f"{self.name}-{uuid.uuid4().hex[:8]}"  # names identify its runs
        self.run = self.package.init(project=PROJECT, name=name, resume="allow", config=settings)
        return name

    def log(self, scalars: dict[str, float], iteration: int) -> None:
        self.run.log(scalars, step=iteration)

    def close(self) -> None:
        self.run.finish()


_WRITERS = {"wandb": WandbWriter, "mlflow": MlflowWriter, "trackio": TrackioWriter}


def check_tracker(name: str) -> None:
    """Check that the package of a tracker is installed; the empty name means no tracker.

    Raises:
        MissingPackageError: it is not installed.
    """
    if name and importlib.util.find_spec(name) is None:
        raise missing_package(f"TRACKER {name}", name, f"pip install {name}")


def build_tracker(cfg: CfgNode) -> list[EventWriter]:
    """Return the writer that ``TRACKER`` names, in a list that is empty without a tracker.

    Raises:
        MissingPackageError: its package is not installed.
    """
    if not cfg.TRACKER:
        return []
    check_tracker(cfg.TRACKER)
    return [_WRITERS[cfg.TRACKER](importlib.import_module(cfg.TRACKER), cfg)]
