"""Check before a run starts that the file or address in ``MODEL.WEIGHTS`` can be loaded."""

import urllib.parse
import urllib.request
from pathlib import Path

from detectron2.utils.file_io import Detectron2Handler, PathManager
from iopath.common.file_io import get_cache_dir

from ccsa.errors import UserError
from ccsa.modeling.backbones.timm_models import HUB, SCHEME

TIMEOUT = 3.0  # seconds that a web server may take to answer


def check_weights(weights: str) -> None:
    """Check that the weights exist, and download the ones named by a URL into the cache.

    Args:
        weights: the value of ``MODEL.WEIGHTS``: a file, a URL, ``timm://`` followed by either, or
            an empty string for random weights.

    Raises:
        UserError: the file does not exist or is a folder, or the URL cannot be fetched.
    """
    if not weights:
        return
    fix = (
        "set MODEL.WEIGHTS to a .pth, .safetensors or .pkl file, "
        'or start from random weights with MODEL.WEIGHTS ""'
    )
    if weights == SCHEME + HUB:
        return  # timm knows the URL, and downloads the weights when it builds the model
    file = weights.removeprefix(SCHEME)
    if "://" not in file:
        if Path(file).is_dir():
            raise UserError(f"weights {file} is a folder; {fix}")
        if not Path(file).is_file():
            raise UserError(f"weights {file} do not exist; {fix}")
        return
    address = _uncached_address(weights)
    try:
        if address:
            # The download has no timeout, so that an unreachable server must be detected here.
            request = urllib.request.Request(address, method="HEAD")
            urllib.request.urlopen(request, timeout=TIMEOUT).close()
        if not Path(PathManager.get_local_path(weights)).is_file():
            raise FileNotFoundError("no such address")
    except Exception as error:  # each scheme has a handler with errors of its own
        reason = getattr(error, "reason", None) or error or type(error).__name__
        raise UserError(f"weights {weights} cannot be fetched ({reason}); {fix}") from error


def _uncached_address(weights: str) -> str | None:
    """Return the web address of weights that are not in the cache yet, or None."""
    prefix = Detectron2Handler.PREFIX
    if weights.startswith(prefix):
        weights = Detectron2Handler.S3_DETECTRON2_PREFIX + weights.removeprefix(prefix)
    url = urllib.parse.urlparse(weights)
    cached = Path(get_cache_dir(), url.path.lstrip("/")).exists()
    return weights if url.scheme in ("http", "https") and not cached else None
