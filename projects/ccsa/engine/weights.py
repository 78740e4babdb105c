"""Check before a run starts that the file or address in ``MODEL.WEIGHTS`` can be loaded."""

import argparse
import urllib.parse
import urllib.request
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.utils.file_io import PathManager

from ccsa.errors import UserError
from ccsa.modeling.backbones.timm_models import HUB, SCHEME
from ccsa.utils.downloads import cached_file, web_address
from ccsa.utils.run_folders import is_run_config

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


def check_download_is_requested(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Check that the user asked for the weights that would be downloaded.

    The user asks by naming them in a configuration file or in a KEY VALUE pair. The configuration
    of a run is not the user's own: it may come from anyone, and its weights are those of the run.

    Args:
        cfg: the configuration.
        args: the command line, with ``config_file`` and ``opts``.

    Raises:
        UserError: only the configuration of a run names the address.
    """
    weights = cfg.MODEL.WEIGHTS
    file = getattr(args, "config_file", "") or ""
    named = "MODEL.WEIGHTS" in list(args.opts or [])[::2]
    if is_run_config(file) and "://" in weights and not named:
        raise UserError(
            f"{file} is the configuration of a run and names the weights {weights}, which a run "
            f"never downloads; to start from them, add MODEL.WEIGHTS {weights} to the command line"
        )


def _uncached_address(weights: str) -> str | None:
    """Return the web address of weights that are not in the cache yet, or None."""
    address = web_address(weights)
    is_web = urllib.parse.urlparse(address).scheme in ("http", "https")
    return address if is_web and not cached_file(address).is_file() else None
