"""Checks of label images against the classes: every value of every file, and all files together."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ccsa.data.checks.pixels import check_size
from ccsa.data.formats.label_images import read_label_image
from ccsa.data.problems import Problems
from ccsa.data.records import Header, image_header
from ccsa.errors import UserError


class LabelCheck:
    """Checks label images against the classes.

    Args:
        classes: number of classes.
        ignore: the ignore value.
    """

    def __init__(self, classes: int, ignore: int = 255):
        self.classes, self.ignore = classes, ignore
        # Of each split: the values of each label file.
        self.values: dict[str, dict[str, frozenset[int]]] = defaultdict(dict)
        self.only_labels = True  # no record has objects or segments as well

    def __call__(
        self, split: str, record: Mapping[str, Any], header: Header | None, problems: Problems
    ) -> None:
        """Check the label of a record: channels, size and every value."""
        file = str(record["sem_seg_file_name"])
        mapping = (record.get("labels") or {}).get("classes") or record.get("label_mapping")
        try:
            values = read_label_image(file, mapping)
        except UserError as error:
            text = str(error)
            kind = "label_channels" if "channels" in text else "unreadable_label"
            kind = kind if Path(file).exists() else "missing_label"
            problems.add(kind, file, text)
            return
        try:
            if image_header(file).mode in ("RGB", "RGBA"):
                problems.add("label_rgb", file, "the label has three equal channels")
        except OSError:
            pass  # reported above if it matters
        check_size(file, values, header, problems)
        found = set(np.unique(values).tolist())
        self.values[split][file] = frozenset(found)
        if "annotations" in record or "pan_seg_file_name" in record:
            self.only_labels = False
        wrong = sorted(v for v in found if v != self.ignore and not 0 <= v < self.classes)
        if wrong:
            listed = ", ".join(map(str, wrong[:5])) + (", ..." if len(wrong) > 5 else "")
            classes = f"the classes are 0 to {self.classes - 1}"
            problems.add("label_out_of_range", file, f"the label contains {listed}; {classes}")
        elif found == {self.ignore}:
            problems.add("only_ignored_pixels", file, f"every pixel is {self.ignore}")

    def finish(
        self, source: str | Path, names: Sequence[str], complete: bool, problems: Problems
    ) -> None:
        """Check the values of all labels together.

        Args:
            source: what messages name.
            names: the names of the classes.
            complete: whether all labels were read, so that a class may be said to be missing.
            problems: where problems are reported.
        """
        if self.values and self.classes == 1 and self.only_labels:
            problems.add("single_class", source, f"{names[0]} is the only class")
        ignored = [split for split in self.values if self._ignores_class(split, source, problems)]
        if ignored or not complete:
            return
        used = {split: set().union(*found.values()) for split, found in self.values.items()}
        for split, values in used.items():
            for index, name in enumerate(names if self.ignore in values else ()):
                if index not in values:
                    text = f"{split} contains {self.ignore}, but no pixel of class {name} ({index})"
                    problems.add("class_or_ignored", source, text)
        if "train" not in used:
            return
        for index, name in enumerate(names):
            splits = [split for split, values in used.items() if index in values]
            if "train" not in splits:
                where = f", only in {' and '.join(splits)}" if splits else ""
                text = f"class {name} has no pixel{where}"
                problems.add("class_without_objects", source, text)
            elif len(used) > 1 and splits == ["train"]:
                text = f"class {name} has pixels in train only"
                problems.add("class_in_one_split", source, text)

    def _ignores_class(self, split: str, source: str | Path, problems: Problems) -> bool:
        """Report a split of which most labels with anything but 0 contain just 0 and ignore; of two
        classes, also single labels of that kind."""
        marked = {file: values for file, values in self.values[split].items() if values != {0}}
        binary = sorted(file for file, values in marked.items() if values == {0, self.ignore})
        if 2 * len(binary) > len(marked):
            text = (
                f"{split}: {len(binary)} of {len(marked)} labels with objects contain only 0 and "
            )
            problems.add("ignored_class", source, f"{text}{self.ignore}")
            return True
        if self.classes == 2:
            for file in binary:
                text = f"the label contains only 0 and {self.ignore}, others contain 1"
                problems.add("ignored_objects", file, text)
        return False
