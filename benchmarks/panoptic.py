"""How fast panoptic result files are evaluated."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.attention import Options
from benchmarks.report import Section
from ccsa.evaluation.panoptic_files import evaluate_files

IMAGES = 100


def panoptic_rate(options: Options, writer: Path) -> Section:
    """Panoptic quality of result files of COCO's size, reading included.

    Args:
        writer: the program that writes the files.
    """
    options.say("panoptic")
    with tempfile.TemporaryDirectory() as place:
        # As a module, because it imports other helpers of the tests.
        command = [sys.executable, "-m", f"{writer.parent.name}.{writer.stem}", place]
        subprocess.run([*command, "--images", str(IMAGES)], check=True, cwd=writer.parents[1])
        files = [Path(place, name) for name in ("gt.json", "gt", "pred.json", "pred")]
        started = time.perf_counter()
        evaluate_files(*files)
        seconds = time.perf_counter() - started
    rate = 60 * IMAGES / seconds
    notes = [
        "ground truth and prediction as PNGs, 16 segments each; the time of "
        "`tools/evaluate_panoptic.py` without the start of Python"
    ]
    headers = ["", "seconds", "images a minute"]
    rows = [[f"{IMAGES} images of 640x480", f"{seconds:.1f}", f"{rate:,.0f}"]]
    records = [{"images": IMAGES, "seconds": seconds}]
    return Section("panoptic", "Panoptic quality of result files", headers, rows, notes, records)
