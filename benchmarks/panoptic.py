"""The speed of the evaluation of panoptic result files."""

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
    """Measure the panoptic quality of result files of the size of COCO's, including their reading.

    Args:
        options: how to measure.
        writer: the program that writes the files.
    """
    options.log("panoptic")
    with tempfile.TemporaryDirectory() as folder:
        # As a module, because it imports other helpers of the tests.
        command = [sys.executable, "-m", f"{writer.parent.name}.{writer.stem}", folder]
        subprocess.run([*command, "--images", str(IMAGES)], check=True, cwd=writer.parents[1])
        files = [Path(folder, name) for name in ("gt.json", "gt", "pred.json", "pred")]
        started = time.perf_counter()
        evaluate_files(*files)
        seconds = time.perf_counter() - started
    rate = 60 * IMAGES / seconds
    notes = [
        "ground truth and prediction are PNGs with 16 segments each; this is the time of "
        "`tools/evaluate_panoptic.py` without the start of Python"
    ]
    headers = ["", "seconds", "images per minute"]
    rows = [[f"{IMAGES} images of 640x480", f"{seconds:.1f}", f"{rate:,.0f}"]]
    records = [{"images": IMAGES, "seconds": seconds}]
    return Section("panoptic", "Panoptic quality of result files", headers, rows, notes, records)
