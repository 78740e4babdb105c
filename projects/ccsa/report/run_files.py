"""The files of a run that several sections of a report need."""

import functools
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ccsa.analysis.detections import ImageMatches
from ccsa.analysis.detections.curves import threshold_curves
from ccsa.analysis.results import read_results
from ccsa.analysis.run_metrics import Detections, inference_folder, read_detections, read_matches
from ccsa.analysis.runs import Run
from ccsa.evaluation.image_counts import (
    PanopticCounts,
    SemanticCounts,
    read_panoptic_counts,
    read_semantic_counts,
)
from ccsa.utils.run_folders import RESULTS

DEFAULT_THRESHOLD = 0.5  # of a class without a correct detection


class RunFiles:
    """What a run left.

    Args:
        run: a finished run with at least one test dataset.

    Attributes:
        run: the run.
        dataset: the name of the first test dataset.
        folder: of the files of its evaluation.
        task: what detections are compared by: ``segm``, or ``bbox`` without masks; None for a run
            without detections.
    """

    def __init__(self, run: Run):
        self.run, self.folder = run, inference_folder(run)
        self.dataset: str = run.cfg.DATASETS.TEST[0]
        self.task = next((task for task in ("segm", "bbox") if task in run.results), None)

    @property
    def detections(self) -> Detections:
        """The detections and objects."""
        return read_detections(self.run)

    @property
    def matches(self) -> list[ImageMatches]:
        """Which detections match which objects."""
        assert self.task is not None
        return read_matches(self.run, self.task)

    @functools.cached_property
    def categories(self) -> dict[int, str]:
        """The names of the classes of objects by category id, in the order of the ids."""
        entries = sorted(self.detections.truth["categories"], key=lambda entry: entry["id"])
        names = MetadataCatalog.get(self.dataset).get("thing_classes")
        names = names or [entry.get("name", str(entry["id"])) for entry in entries]
        return {entry["id"]: name for entry, name in zip(entries, names, strict=True)}

    @functools.cached_property
    def curves(self) -> dict[str, Any]:
        """Precision, recall and F1, see :func:`threshold_curves`."""
        return threshold_curves(self.matches, self.categories)

    @functools.cached_property
    def thresholds(self) -> dict[int, float]:
        """The score threshold of each category id at which its F1 is highest."""
        best = {name: curve["best"] for name, curve in self.curves["classes"].items()}
        return {
            number: best[name]["threshold"] if best[name] else DEFAULT_THRESHOLD
            for number, name in self.categories.items()
        }

    @functools.cached_property
    def semantic(self) -> SemanticCounts:
        """The counts of a semantic evaluation."""
        return read_semantic_counts(self.folder)

    @functools.cached_property
    def panoptic(self) -> PanopticCounts:
        """The counts of a panoptic evaluation."""
        return read_panoptic_counts(self.folder)

    @functools.cached_property
    def records(self) -> list[dict[str, Any]]:
        """The records of the dataset."""
        return DatasetCatalog.get(self.dataset)


def run_of(cfg: CfgNode) -> Run:
    """Return the run that has just ended in this process, whose data is registered."""
    folder = Path(cfg.OUTPUT_DIR)
    results = read_results(folder / RESULTS, cfg.DATASETS.TEST)
    return Run(folder, cfg, results.tasks, results.memory)
