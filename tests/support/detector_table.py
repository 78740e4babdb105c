"""Prints the table of docs/EXPORT.md: how exported detectors differ from their models.

python -m tests.support.detector_table [FORMAT ...]
"""

import sys
import tempfile
import warnings
from pathlib import Path

from ccsa.export import FORMATS, detection_differences, export, exported_part
from ccsa.export.metadata import program_metadata
from support import detectors as kinds

MODELS = {
    kinds.mask_rcnn: "Mask R-CNN | CrissCross in res4",
    kinds.mask_head: "Mask R-CNN | SqueezeExcitation in the mask head",
    kinds.cascade: "Cascade Mask R-CNN | NonLocal in res4",
    kinds.retinanet: "RetinaNet | SqueezeAttention in the FPN",
}


def main(names: list[str]) -> None:
    warnings.simplefilter("ignore")
    print("| model | block | format | detections | boxes (pixels) | scores | mask IoU |")
    print("|---|---|---|---|---|---|---|")
    for kind, title in MODELS.items():
        cfg, model = kinds.build_detector(kind)
        part = exported_part(model, cfg)
        for name in names or FORMATS:
            with tempfile.TemporaryDirectory() as folder:
                file = Path(folder, f"model{FORMATS[name].suffix}")
                export(part, name, file, program_metadata(cfg, part=part))
                found = detection_differences(model, part, file).values()
            count, unmatched = (
                sum(getattr(x, k) for x in found) for k in ("expected", "unmatched")
            )
            box, score = (max(getattr(x, k) for x in found) for k in ("box", "score"))
            iou = f"{min(x.iou for x in found):.4f}" if "masks" in part.outputs else "-"
            extra = f" ({unmatched} unmatched)" if unmatched else ""
            row = f"{count}{extra} | {box:.1e} | {score:.1e} | {iou}"
            print(f"| {title} | {name} | {row} |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
