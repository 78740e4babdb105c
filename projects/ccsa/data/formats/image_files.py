"""Finding the image files of a dataset by the names in its annotations."""

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ccsa.data.image_reader import is_file
from ccsa.data.problems import Problems
from ccsa.data.records import IMAGE_SUFFIXES
from ccsa.utils.files import real_path

_PREFIX = re.compile(r"[0-9a-f]{8}-")  # that Label Studio puts before the name of an uploaded file
_LONGEST_NAME = 1024


class ImageIndex:
    """The images in some folders, found by the names that annotation programs write.

    A name is tried as it is in each folder and in the root, then by its last part anywhere below
    the folders, then without the prefix of Label Studio. Composed and decomposed accents, and upper
    and lower case, count as the same where only one file fits. A last part that several files share
    finds none of them.

    Names that leave the folders and the root are not found. A folder itself may be a link. A file
    in the folder that is a link to a file elsewhere is found, as in data of DVC, git-annex and the
    Hugging Face hub; :meth:`report_outside` reports it.

    Args:
        folders: searched in this order.
        root: the folder of the dataset.
    """

    def __init__(self, folders: Sequence[Path], root: Path | None = None):
        self.folders = list(folders)
        self.exact = [*self.folders, root] if root else self.folders
        self.roots = [real_path(folder) for folder in self.exact]
        self._listed: list[Path] | None = None
        self._by_key: dict[str, dict[str, list[Path]]] = {}

    @property
    def description(self) -> str:
        """The folders, for messages."""
        return " or ".join(str(folder) for folder in self.folders)

    def find(self, name: str) -> Path | None:
        """Return the file of that name, or None."""
        name = name.strip().replace("\\", "/")
        if "\0" in name or len(name) > _LONGEST_NAME:
            return None
        for folder in self.exact:
            path = folder / name
            if is_file(path) and self.is_usable(path):
                return path
        last = re.split(r"[/=]", name)[-1] if "?d=" in name else name.rpartition("/")[2]
        for fold in (_composed, _folded):
            for candidate in dict.fromkeys((last, _PREFIX.sub("", last, count=1))):
                found = self._named("name", fold).get(fold(candidate), [])
                if found:
                    return found[0] if len(found) == 1 else None
        without = self._named("without prefix", _folded).get(_folded(last), [])
        return without[0] if len(without) == 1 else None

    def same_stem(self, stem: str) -> Path | None:
        """Return the image whose name without suffix is ``stem``, or None."""
        found = self._named("stem", _folded).get(_folded(stem), [])
        return found[0] if len(found) == 1 else None

    def failure(self, name: str) -> tuple[str, str]:
        """Return why a name was not found: the kind of the problem, and a text."""
        name = name.strip().replace("\\", "/")
        if "\0" in name or len(name) > _LONGEST_NAME:
            return "missing_image", "this cannot be the name of a file"
        for folder in self.exact:
            if is_file(folder / name):
                return "outside", f"{folder / name} is outside the folder of the dataset"
            if _exists(folder / name):
                return "not_a_file", f"{folder / name} is not a regular file"
        last = name.rpartition("/")[2]
        several = self._named("name", _folded).get(_folded(last), [])
        if len(several) > 1:
            return "missing_image", f"{len(several)} files have the name {last}: give the folder"
        return "missing_image", f"no such file in {self.description}"

    def is_inside(self, path: Path) -> bool:
        """Whether the file, links followed, is inside the root."""
        resolved = real_path(path)
        return any(resolved.is_relative_to(root) for root in self.roots)

    def report_outside(self, path: Path, file: Path, problems: Problems) -> None:
        """Report an image that is found but is a link to a file outside the folders."""
        if not self.is_inside(path):
            problems.add("outside", file, f"the image {path} is a link to {real_path(path)}")

    def is_usable(self, path: Path) -> bool:
        """Whether the file is inside the root, links followed or not."""
        named = Path(os.path.abspath(path))
        named_inside = any(named.is_relative_to(os.path.abspath(root)) for root in self.exact)
        return named_inside or self.is_inside(path)

    def files(self) -> list[Path]:
        """Return all image files below the folders, sorted."""
        if self._listed is None:
            found = (path for folder in self.folders for path in images_below(folder))
            unique = dict.fromkeys(path for path in found if is_file(path))
            self._listed = sorted(unique)
        return self._listed

    def _named(self, part: str, fold: Callable[[str], str]) -> dict[str, list[Path]]:
        """Return the files by the folded name, stem, or name without the prefix of Label Studio."""
        key = f"{part} {fold.__name__}"
        if key not in self._by_key:
            found: dict[str, list[Path]] = defaultdict(list)
            for path in self.files():
                if part == "stem":
                    found[fold(path.stem)].append(path)
                elif part == "name":
                    found[fold(path.name)].append(path)
                elif _PREFIX.match(path.name):
                    found[fold(_PREFIX.sub("", path.name, count=1))].append(path)
            self._by_key[key] = found
        return self._by_key[key]


def images_below(folder: Path) -> list[Path]:
    """Return what is named like an image in a folder and the folders below it, sorted, without
    hidden files and folders. Links to folders are not followed."""
    return sorted(_walk(folder))


def usable_images(folder: Path, root: Path, problems: Problems) -> list[Path]:
    """Return the images in a folder and below; report those that are not regular files, and links
    to files outside the dataset, which are returned nevertheless.

    Args:
        folder: searched.
        root: the folder of the dataset.
        problems: where problems are reported.
    """
    inside = real_path(root)
    usable = []
    for path in images_below(folder):
        if not is_file(path):
            problems.add("not_a_file", path, "the image is not a regular file")
            continue
        if path.is_symlink() and not real_path(path).is_relative_to(inside):
            problems.add("outside", path, f"the image is a link to {real_path(path)}")
        usable.append(path)
    return usable


def _walk(folder: Path) -> Iterator[Path]:
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in (*files, *(n for n in folders if n.lower().endswith(IMAGE_SUFFIXES))):
            if name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith("."):
                yield Path(place, name)


def _composed(name: str) -> str:
    """Return a name with composed accents; macOS writes decomposed ones."""
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(name).casefold()


def _exists(path: Path) -> bool:
    try:
        return os.path.lexists(path)
    except (OSError, ValueError):
        return False
