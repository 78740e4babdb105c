"""What a run costs, and where its numbers come from."""

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

import ccsa
from ccsa import add_ccsa_config
from ccsa.analysis.comparison import measure_run
from ccsa.analysis.run_metrics import read_json
from ccsa.report.run_files import RunFiles
from ccsa.utils.run_folders import RESULTS, flat_values

# Validation sets whose published metrics are computed on the same images: (beginning, benchmark).
_BENCHMARKS = (
    ("coco_2017_val", "COCO val2017"),
    ("ade20k", "ADE20K"),
    ("cityscapes", "Cityscapes"),
    ("lip", "LIP"),
    ("camvid", "CamVid"),
    ("pascal_context", "PASCAL Context"),
    ("voc", "PASCAL VOC"),
)
_HIDDEN = ("OUTPUT_DIR", "MODEL.WEIGHTS", "VERSION")


def cost(files: RunFiles) -> dict[str, Any]:
    """Return parameters, FLOPs, seconds and bytes of one image, measured on this machine, and the
    time and memory that the run recorded."""
    record = read_json(files.run.folder / RESULTS)
    measured = measure_run(files.run, warmup=1, repeats=5)
    seconds = record.get("seconds")
    return {
        **measured._asdict(),
        "run_seconds": seconds if isinstance(seconds, int | float) else None,
        "run_memory": files.run.memory,
        "device": files.run.cfg.MODEL.DEVICE,
    }


def provenance(files: RunFiles) -> dict[str, Any]:
    """Return ``command``, ``versions``, ``seed``, ``dataset``, ``images``, ``data`` (a hash of the
    ground truth), ``changed`` (the keys that differ from the defaults) and ``comparable``."""
    record = read_json(files.run.folder / RESULTS)
    recorded = record.get("provenance")
    recorded = recorded if isinstance(recorded, dict) else {}
    return {
        "command": recorded.get("command"),
        "versions": recorded.get("versions") or {"ccsa": ccsa.__version__},
        "seed": files.run.cfg.SEED,
        "dataset": files.dataset,
        "images": len(files.records),
        "data": data_hash(files.records),
        "changed": changed_keys(files),
        "comparable": comparable(files.dataset),
    }


def data_hash(records: list[dict[str, Any]]) -> str:
    """Return the first 16 digits of a SHA-256 of the names, sizes and annotations of a dataset.

    Labels in files count by their names and their sizes in bytes.
    """
    digest = hashlib.sha256()
    for record in records:
        entry = {
            key: Path(str(value)).name if key.endswith("file_name") else value
            for key, value in record.items()
        }
        for key in ("sem_seg_file_name", "pan_seg_file_name"):
            if key in record and Path(record[key]).is_file():
                entry[f"{key} bytes"] = Path(record[key]).stat().st_size
        digest.update(json.dumps(entry, sort_keys=True, default=_plain).encode())
    return digest.hexdigest()[:16]


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return value.tolist() if hasattr(value, "tolist") else str(value)


def changed_keys(files: RunFiles) -> dict[str, str]:
    """Return the values that differ from the defaults of Detectron2 and ccsa."""
    defaults = get_cfg()
    add_ccsa_config(defaults)
    before, after = (flat_values(yaml.safe_load(cfg.dump())) for cfg in (defaults, files.run.cfg))
    return {
        key: str(value)
        for key, value in sorted(after.items())
        if before.get(key) != value and not key.startswith(_HIDDEN)
    }


def comparable(dataset: str) -> str:
    """Return whether the metric can be compared with published ones."""
    # The names of a user's own datasets can start like those of benchmarks.
    own = dataset in DatasetCatalog.list() and MetadataCatalog.get(dataset).get("own")
    for start, name in _BENCHMARKS:
        if dataset.startswith(start) and not own:
            return (
                f"{dataset} are images of {name}: the metric can be compared with published values "
                "for the same split and settings (resolution, scales, flips, pretraining)."
            )
    return (
        f"{dataset} is not a public benchmark: compare the metric only with runs on the same data."
    )
