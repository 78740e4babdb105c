"""Registering a user's data with Detectron2, from the keys ``DATASETS.OWN`` of a configuration.

Every process registers the data from its configuration, so that processes that are started anew and
tools that only get a run folder see the same datasets. Class names are known at once; the files are
read when the data is first used.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from ccsa.data.colors import class_colors
from ccsa.data.folder import FolderDataset, read_coco_files, read_folder
from ccsa.data.tasks import (
    BACKGROUND,
    DETECTION,
    IGNORE,
    PANOPTIC,
    SEMANTIC,
    THINGS,
    TaskData,
    derive,
)
from ccsa.errors import UserError
from ccsa.utils.files import real_path

EVALUATORS = {DETECTION: "coco", SEMANTIC: "sem_seg", PANOPTIC: "coco_panoptic_seg"}


class Source(NamedTuple):
    """Where a user's data is, as given on the command line.

    Attributes:
        data: the folder or JSON file.
        format: the name of its format; empty to detect it.
        images, val, val_images: of JSON files; empty if not given.
        mapping: label values that are replaced, as sorted pairs.
    """

    data: str
    format: str = ""
    images: str = ""
    val: str = ""
    val_images: str = ""
    mapping: tuple[tuple[int, int], ...] = ()


@lru_cache(maxsize=4)
def read_source(source: Source) -> FolderDataset:
    """Read the data, once per process.

    Raises:
        UserError: it cannot be read; see :func:`ccsa.data.read_folder`.
    """
    path = Path(source.data)
    if source.images or source.val or path.is_file():
        if source.format not in ("", "coco"):
            raise UserError(
                f"--data {path} with --images or --val is COCO JSON; remove --data-format "
                f"{source.format}"
            )
        if path.is_dir():
            raise UserError(f"--images and --val need a JSON file: --data {path} is a folder")
        data = read_coco_files(
            path, source.images or None, source.val or None, source.val_images or None
        )
    else:
        data = read_folder(path, format=source.format or None)
    if source.mapping:
        _map_labels(data, dict(source.mapping))
    return data


def _map_labels(data: FolderDataset, mapping: Mapping[int, int]) -> None:
    for records in data.splits.values():
        for record in records:
            if "sem_seg_file_name" in record:
                record["label_mapping"] = {**mapping, **record.get("label_mapping", {})}


def source_of(cfg: CfgNode) -> Source:
    """Return the source that ``DATASETS.OWN`` names; ``data`` is empty if it names none."""
    own = cfg.DATASETS.OWN
    pairs = tuple(sorted(label_mapping(cfg).items()))
    return Source(own.ROOT, own.FORMAT, own.IMAGES, own.VAL, own.VAL_IMAGES, pairs)


def label_mapping(cfg: CfgNode) -> dict[int, int]:
    """Return ``DATASETS.LABEL_MAPPING``: the class by label value.

    Raises:
        UserError: it is not a mapping of whole numbers.
    """
    given = cfg.DATASETS.LABEL_MAPPING
    entries = [given] if isinstance(given, Mapping) else given
    pairs = [pair for entry in entries if isinstance(entry, Mapping) for pair in entry.items()]
    whole = all(isinstance(n, int) and not isinstance(n, bool) for pair in pairs for n in pair)
    if not whole or not all(isinstance(entry, Mapping) for entry in entries):
        raise UserError(
            f"DATASETS.LABEL_MAPPING {given} is not a mapping of label values to classes; write "
            "e.g. {255: 1}"
        )
    return dict(pairs)


def dataset_name(data: FolderDataset) -> str:
    """Return the name of a dataset: that of its folder, and a hash of its files and classes."""
    digest = hashlib.sha256("\n".join(data.classes).encode())
    for split, records in data.splits.items():
        for record in records:
            file = Path(record["file_name"])
            size = file.stat().st_size if file.is_file() else -1  # the checks report a missing one
            digest.update(f"{split}/{file.name}/{size}".encode())
    stem = real_path(data.root).name
    return f"{re.sub(r'[^A-Za-z0-9]+', '_', stem).strip('_') or 'data'}_{digest.hexdigest()[:6]}"


def task_data(cfg: CfgNode) -> TaskData:
    """Return the user's data as the model of a configuration is trained on it, classes in the
    order that the configuration records.

    Raises:
        UserError: the data has moved, cannot be read, or has other classes than recorded.
    """
    own = cfg.DATASETS.OWN
    if not Path(own.ROOT).exists():
        raise UserError(
            f"the data of this run, {own.ROOT}, does not exist any more; name its new location by "
            "--data"
        )
    return _task_data(source_of(cfg), own.KIND, tuple(own.CLASSES), tuple(own.STUFF_CLASSES))


@lru_cache(maxsize=4)
def _task_data(
    source: Source, kind: str, things: tuple[str, ...], stuff: tuple[str, ...]
) -> TaskData:
    """Derive and number the data, once per process."""
    task = derive(read_source(source), kind)
    reorder(task, list(things), list(stuff), source.data)
    return task


def reorder(task: TaskData, things: list[str], stuff: list[str], where: str) -> None:
    """Number the classes of data as a run has recorded them.

    Raises:
        UserError: the data has a class that the run does not know.
    """
    for recorded, found in ((things, task.thing_classes), (stuff, task.stuff_classes)):
        new = [name for name in found if name not in recorded]
        if new:
            raise UserError(
                f"{where} has the classes {', '.join(new)}, which the model was not trained on "
                f"(it knows {', '.join(recorded)}); use data with these classes, or train anew"
            )
    if things != task.thing_classes:
        index = {i: things.index(name) for i, name in enumerate(task.thing_classes)}
        for records in task.splits.values():
            for record in records:
                for annotation in record.get("annotations", ()):
                    annotation["category_id"] = index[annotation["category_id"]]
                if "labels" in record and "things" in record["labels"]:
                    labels = record["labels"]
                    things_of = {c: index[i] for c, i in labels["things"].items()}
                    record["labels"] = {**labels, "things": things_of}
        task.thing_classes = things
    if stuff != task.stuff_classes:
        index = {i: stuff.index(name) for i, name in enumerate(task.stuff_classes)}
        for records in task.splits.values():
            for record in records:
                if "labels" in record:
                    record["labels"] = _renumbered_labels(record["labels"], index)
        task.stuff_classes = stuff


def _renumbered_labels(labels: Mapping[str, Any], index: Mapping[int, int]) -> dict[str, Any]:
    if labels["source"] == "file":
        own = labels["classes"]
        classes = {value: index.get(label, label) for value, label in own.items()}
        classes = {**{v: i for v, i in index.items() if v not in own}, **classes}
    else:
        classes = {category: index[label] for category, label in labels["classes"].items()}
    result = {**labels, "classes": classes}
    if "background" in labels:
        result["background"] = index[labels["background"]]
    return result


class _WithMappedLabels:
    """Loads a registered dataset, with a mapping of label values in each record.

    Args:
        load: the function that is registered.
        mapping: the class by label value.
    """

    def __init__(self, load: Callable[[], list[dict[str, Any]]], mapping: Mapping[int, int]):
        self.load, self.mapping = load, mapping

    def __call__(self) -> list[dict[str, Any]]:
        """Return the records."""
        return [
            {**r, "label_mapping": dict(self.mapping)} if "sem_seg_file_name" in r else r
            for r in self.load()
        ]


def map_registered_labels(names: Iterable[str], mapping: Mapping[int, int]) -> None:
    """Let registered datasets map their label values.

    Args:
        names: of datasets; a user's own data and unknown names are left out.
        mapping: the class by label value; an empty one ends the mapping of an earlier call.
    """
    for name in dict.fromkeys(names):
        if name not in DatasetCatalog.list() or MetadataCatalog.get(name).get("own"):
            continue
        load = DatasetCatalog[name]
        if isinstance(load, _WithMappedLabels):  # of another configuration of this process
            load = load.load
        DatasetCatalog[name] = _WithMappedLabels(load, mapping) if mapping else load


def register_own_data(cfg: CfgNode) -> None:
    """Register the splits of the user's data that a configuration names, under
    ``DATASETS.OWN.NAME`` and the split. Apply ``DATASETS.LABEL_MAPPING`` to the other datasets of
    the configuration.
    """
    map_registered_labels((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST), label_mapping(cfg))
    own = cfg.DATASETS.OWN
    if not own.ROOT:
        return
    frozen = cfg.clone()
    for split in own.SPLITS:
        name = f"{own.NAME}_{split}"
        if name in DatasetCatalog.list():
            DatasetCatalog.remove(name)
            MetadataCatalog.remove(name)
        DatasetCatalog.register(name, lambda s=split, c=frozen: list(task_data(c).splits[s]))
        metadata = MetadataCatalog.get(name)
        metadata.set(evaluator_type=EVALUATORS[own.KIND], own=True, source=own.ROOT)
        things, stuff = list(own.CLASSES), list(own.STUFF_CLASSES)
        if things:
            metadata.set(thing_classes=things, thing_colors=class_colors(len(things)))
        if stuff:
            metadata.set(stuff_classes=stuff, stuff_colors=_stuff_colors(stuff, things))
            metadata.set(ignore_label=IGNORE)
        if own.KIND == PANOPTIC:
            metadata.set(
                thing_dataset_id_to_contiguous_id={i + 1: i for i in range(len(things))},
                stuff_dataset_id_to_contiguous_id={
                    0: 0,
                    **{len(things) + i: i for i in range(1, len(stuff))},
                },
            )


def _stuff_colors(stuff: Sequence[str], things: Sequence[str]) -> list[list[int]]:
    """Return colors of pixel classes: gray for what is not a class of its own."""
    colors = class_colors(len(things) + len(stuff))[len(things) :]
    gray = [128, 128, 128]
    return [
        gray if n.partition(" (")[0] in (BACKGROUND, THINGS) else c
        for n, c in zip(stuff, colors, strict=True)
    ]
