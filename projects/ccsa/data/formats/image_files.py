"""Finding the image files of a dataset by the names in its annotations."""

import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ccsa.data.records import IMAGE_SUFFIXES

_PREFIX = re.compile(r"[0-9a-f]{8}-")  # that Label Studio puts before the name of an uploaded file


class ImageIndex:
    """The images in some folders, found by the names that annotation programs write.

    A name is tried as it is in each folder and in the root, then by its last part anywhere below
    the folders, then without the prefix of Label Studio. A last part that several files share finds
    none of them.

    Args:
        folders: searched in this order.
        root: the folder of the dataset. Files outside of it are not found; by default the folders
            are the limit.
    """

    def __init__(self, folders: Sequence[Path], root: Path | None = None):
        self.folders = list(folders)
        self.exact = [*self.folders, root] if root else self.folders
        self.roots = [f.resolve() for f in ([root] if root else self.folders)]
        self._by_name: dict[str, list[Path]] | None = None

    @property
    def description(self) -> str:
        """The folders, for messages."""
        return " or ".join(str(folder) for folder in self.folders)

    def find(self, name: str) -> Path | None:
        """Return the file of that name, or None."""
        name = name.replace("\\", "/")
        if "\0" in name or len(name) > 1024:
            return None
        for folder in self.exact:
            path = folder / name
            if _is_file(path) and self.is_inside(path):
                return path
        last = name.rpartition("/")[2]
        for candidate in (last, _PREFIX.sub("", last, count=1)):
            found = self._files().get(candidate, [])
            if len(found) == 1:
                return found[0]
        without = self._files_without_prefix().get(last, [])
        return without[0] if len(without) == 1 else None

    def is_inside(self, path: Path) -> bool:
        """Whether the file, links followed, is inside the root."""
        resolved = path.resolve()
        return any(resolved.is_relative_to(root) for root in self.roots)

    def leads_outside(self, name: str) -> bool:
        """Whether the name leads to a file outside the root."""
        name = name.replace("\\", "/")
        paths = [folder / name for folder in self.exact]
        return any(_is_file(path) and not self.is_inside(path) for path in paths)

    def files(self) -> list[Path]:
        """Return all image files below the folders, sorted."""
        return sorted(path for paths in self._files().values() for path in paths)

    def _files(self) -> dict[str, list[Path]]:
        if self._by_name is None:
            self._by_name = defaultdict(list)
            seen: set[Path] = set()
            for folder in self.folders:
                for path in sorted(folder.rglob("*")):
                    hidden = path.name.startswith(".")
                    if path in seen or hidden or path.suffix.lower() not in IMAGE_SUFFIXES:
                        continue
                    if path.is_file() and self.is_inside(path):
                        seen.add(path)
                        self._by_name[path.name].append(path)
        return self._by_name

    def _files_without_prefix(self) -> dict[str, list[Path]]:
        """Files whose own name has the prefix that the annotations lack."""
        found: dict[str, list[Path]] = defaultdict(list)
        for name, paths in self._files().items():
            if _PREFIX.match(name):
                found[_PREFIX.sub("", name, count=1)] += paths
        return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that the file system does not allow
        return False
