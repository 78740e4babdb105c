"""Checks of registered datasets: their COCO JSON before Detectron2 loads it, and their records."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog

from ccsa.data.checks import cache
from ccsa.data.formats.coco import CocoReader
from ccsa.data.formats.image_files import ImageIndex
from ccsa.data.problems import KINDS, Problems
from ccsa.errors import UserError

_JSON_EVALUATORS = (None, "coco", "coco_panoptic_seg")  # others have JSON of another kind
# What the readers of this project accept and Detectron2's do not.
_FATAL_TO_DETECTRON2 = (
    *("quoted_number", "missing_size", "ignored_annotation", "duplicate_annotation_id"),
    *("encoding", "null_field", "degenerate_polygon"),
)


class _Exact(ImageIndex):
    """Finds an image by its name only, as Detectron2's loader does."""

    def find(self, name: str) -> Path | None:
        path = self.folders[0] / name
        return path if "\0" not in name and path.is_file() else None

    def leads_outside(self, name: str) -> bool:
        return False


def load_registered(
    name: str, problems: Problems, allowed: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Return the records of a registered dataset; its COCO JSON is checked before.

    Args:
        name: a registered dataset.
        problems: where the problems of the JSON are reported.
        allowed: kinds of errors that do not keep the records from being loaded.

    Raises:
        UserError: the JSON has errors, its classes are not those of the metadata, or the
            dataset's function fails.
    """
    metadata = MetadataCatalog.get(name)
    json_file = metadata.get("json_file")
    has_coco = json_file and metadata.get("evaluator_type") in _JSON_EVALUATORS
    own = Problems()
    if has_coco and not metadata.get("built_in", False):
        own = check_json(name, metadata.get("thing_classes"))
        problems.extend(own)
        own.check(allowed)
    try:
        records = DatasetCatalog.get(name)
    except UserError:
        raise
    except Exception as error:  # whatever a dataset's function raises
        raise UserError(_failure(name, json_file, own, error)) from error
    if not isinstance(records, list | tuple):
        raise UserError(
            f"dataset '{name}' returns {type(records).__name__}; its function must return a list "
            "of Detectron2's standard dicts"
        )
    return list(records)


def check_json(name: str, classes: Sequence[str] | None = None) -> Problems:
    """Check the COCO JSON of a registered dataset; the result is cached by the file's stamp.

    Args:
        name: a registered dataset with ``json_file`` in its metadata.
        classes: the class names that the metadata already has.

    Raises:
        UserError: the file cannot be read, or its categories are not ``classes``.
    """
    metadata = MetadataCatalog.get(name)
    file = Path(metadata.json_file)
    folder = Path(metadata.get("image_root") or "")
    key = cache.files_key([file, folder], "json")
    stored = cache.load(key)
    if stored is None:
        problems = Problems()
        reader = CocoReader(file, _Exact([folder]), name, problems)
        names = [reader.categories[number] for number in sorted(reader.categories)]
        _check_classes(name, file, names, classes)  # before anything is said about single records
        reader.read_split()
        cache.store(key, problems, names=names)
    else:
        problems, values = stored
        _check_classes(name, file, values["names"], classes)
    return problems


def _check_classes(
    name: str, file: Path, found: Sequence[str], registered: Sequence[str] | None
) -> None:
    if registered is None or list(found) == list(registered):
        return
    listed = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
    known = ", ".join(registered[:3]) + (", ..." if len(registered) > 3 else "")
    raise UserError(
        f"{file} has {len(found)} classes ({listed}), but dataset '{name}' is registered with "
        f"{len(registered)} ({known}); train on the classes of the file with --data {file} "
        "--images FOLDER instead of DATASETS.TRAIN, or register it under a name of its own"
    )


def _failure(name: str, json_file: Any, problems: Problems, error: Exception) -> str:
    """Return the message for a dataset whose function failed."""
    known = [p for p in problems if p.kind in _FATAL_TO_DETECTRON2]
    if known:
        reason = f"{known[0].file}: {known[0].message}; {KINDS[known[0].kind].fix}"
    else:
        text = " ".join(str(error).split())[:200]
        reason = f"its function failed ({type(error).__name__}: {text}); correct the data"
    other = f", or read the file with --data {json_file} --images FOLDER" if json_file else ""
    return f"dataset '{name}' cannot be loaded: {reason}{other}"


def check_categories(
    train: Mapping[str, Sequence[str]], test: Mapping[str, Sequence[str]], what: str
) -> None:
    """Check that datasets which are used together number their classes alike.

    Args:
        train: class names of each training dataset.
        test: class names of each test dataset.
        what: what the classes are, for the message.

    Raises:
        UserError: two datasets differ; with the names of both and of the classes.
    """
    if not train:
        return
    first, classes = next(iter(train.items()))
    for name, others in (*train.items(), *test.items()):
        if list(others) == list(classes):
            continue
        if set(others) == set(classes):
            order = f"{', '.join(others[:5])} instead of {', '.join(classes[:5])}"
            reason = f"number the same {what} differently ('{name}' has the order {order})"
        elif name not in train:
            continue  # another dataset may name the same classes in its own words
        else:
            only = [c for c in others if c not in classes]
            lacking = [c for c in classes if c not in others]
            parts = [f"only in '{name}': {', '.join(only[:5])}"] if only else []
            parts += [f"only in '{first}': {', '.join(lacking[:5])}"] if lacking else []
            reason = f"have different {what} ({'; '.join(parts)})"
        raise UserError(
            f"the datasets '{first}' and '{name}' {reason}; give both the same list of categories, "
            "or merge their files and use --data"
        )
