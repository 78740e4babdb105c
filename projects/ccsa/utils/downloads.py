"""Downloads: a cache in which every address has its own file.

Detectron2's cache ignores the host of an address and follows ``..`` in its path, so that the file
of one host would be used for another, and written outside the cache. Importing this module replaces
the handler of web addresses in Detectron2's ``PathManager``.
"""

import hashlib
import logging
import re
import shutil
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from detectron2.utils.file_io import Detectron2Handler, PathManager
from iopath.common.file_io import HTTPURLHandler, file_lock, get_cache_dir

from ccsa.utils.files import atomic_write

logger = logging.getLogger(__name__)

TIMEOUT = 60.0  # seconds without data after which a download fails
_LONGEST_NAME = 100


def cached_file(url: str, cache_dir: str | None = None) -> Path:
    """Return the file in the cache that belongs to a web address, whether it exists or not.

    Args:
        url: the whole address; every part of it counts.
        cache_dir: the folder of the cache, by default that of iopath: ``$FVCORE_CACHE``, otherwise
            ``~/.torch/iopath_cache``.

    Example:
        >>> cached_file("https://a.org/x/../y.pth?v=2", "cache").name
        'y.pth'
        >>> cached_file("https://a.org/y.pth", "c") == cached_file("https://b.org/y.pth", "c")
        False
    """
    last = urllib.parse.urlparse(url).path.rpartition("/")[2]
    name = re.sub(r"[^\w.-]", "_", last)[-_LONGEST_NAME:].lstrip(".") or "file"
    key = hashlib.sha256(url.encode()).hexdigest()[:32]
    return Path(get_cache_dir(cache_dir), "by_address", key, name)


def web_address(path: str) -> str:
    """Return the web address of a ``detectron2://`` path; others are returned unchanged."""
    prefix = Detectron2Handler.PREFIX
    if path.startswith(prefix):
        return Detectron2Handler.S3_DETECTRON2_PREFIX + path.removeprefix(prefix)
    return path


class CachedDownloads(HTTPURLHandler):
    """The handler of web addresses: the file is downloaded once, and is complete or absent."""

    def _get_local_path(
        self, path: str, force: bool = False, cache_dir: str | None = None, **kwargs: Any
    ) -> str:
        self._check_kwargs(kwargs)
        file = cached_file(path, cache_dir)
        with file_lock(str(file)):
            if force or not file.is_file():
                logger.info("downloading %s to %s", path, file)
                with (
                    urllib.request.urlopen(path, timeout=TIMEOUT) as response,
                    atomic_write(file) as partial,
                    partial.open("wb") as target,
                ):
                    shutil.copyfileobj(response, target)
                    expected = response.headers.get("Content-Length")
                    if expected and expected.isdigit() and target.tell() != int(expected):
                        raise OSError(f"only {target.tell()} of {expected} bytes arrived")
        return str(file)


PathManager.register_handler(CachedDownloads(), allow_override=True)
