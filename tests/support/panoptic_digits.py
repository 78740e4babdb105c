"""Outputs for the panoptic digits: equal to their annotations, or with random errors."""

import contextlib
import json

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image
from pycocotools.mask import decode

from ccsa import add_ccsa_config
from ccsa.analysis.runs import Run
from ccsa.data.panoptic import read_segment_ids
from ccsa.data.synthetic import digits
from ccsa.evaluation import build_evaluator
from ccsa.evaluation.instances import InstanceEvaluator
from ccsa.report.evaluation import finite

NAME = "digits_val_panoptic_separated"


def perfect(place, evaluator):
    """Return outputs that are equal to the annotations."""
    coco = next(e for e in evaluator._evaluators if isinstance(e, InstanceEvaluator))._coco_api
    panoptic = json.loads((place / "annotations/panoptic_val.json").read_text())
    for entry in panoptic["annotations"]:
        image_id = entry["image_id"]
        found = coco.imgToAnns[image_id]
        instances = Instances((160, 160))
        boxes = torch.tensor([a["bbox"] for a in found])
        boxes[:, 2:] += boxes[:, :2]
        instances.pred_boxes, instances.scores = Boxes(boxes), torch.ones(len(found))
        instances.pred_classes = torch.tensor([a["category_id"] - 1 for a in found])
        masks = np.stack([decode(coco.annToRLE(a)) for a in found])
        instances.pred_masks = torch.from_numpy(masks).bool()
        ids = read_segment_ids(place / "panoptic_val" / entry["file_name"]).astype(np.int32)
        infos = []
        for segment in entry["segments_info"]:
            thing = segment["category_id"] <= 10
            number = segment["category_id"] - (1 if thing else 10)
            infos.append({"id": segment["id"], "isthing": thing, "category_id": number})
        labels = np.array(Image.open(place / "panoptic_stuff_val" / entry["file_name"]))
        scores = torch.nn.functional.one_hot(torch.from_numpy(labels).long(), 4).movedim(-1, 0)
        name = str(place / "val" / entry["file_name"].replace(".png", ".jpg"))
        output = {
            "instances": instances,
            "sem_seg": scores.float(),
            "panoptic_seg": (torch.from_numpy(ids), infos),
        }
        yield {"image_id": image_id, "file_name": name, "height": 160, "width": 160}, output


def worse(item, output, rng):
    """Change a prediction: objects are lost, found as another class, or moved."""
    found, (ids, infos) = output["instances"], output["panoptic_seg"]
    kept = torch.from_numpy(rng.random(len(found)) > 0.2)
    found.scores = torch.from_numpy(rng.random(len(found)))
    found.pred_boxes.tensor += torch.from_numpy(rng.normal(0, 1.5, (len(found), 4)))
    found.pred_masks = found.pred_masks.roll(int(rng.integers(0, 4)), 2)
    wrong = torch.from_numpy(rng.random(len(found)) < 0.1)
    found.pred_classes[wrong] = 7
    scores = output["sem_seg"].roll(int(rng.integers(0, 5)), 1)
    ids = ids.roll(int(rng.integers(0, 25)), 0)
    infos = [i | {"category_id": 7} if i["isthing"] and rng.random() < 0.2 else i for i in infos]
    return item, {"instances": found[kept], "sem_seg": scores, "panoptic_seg": (ids, infos)}


@contextlib.contextmanager
def noisy_run(root, images=6):
    """Yield a run whose predictions have random errors, evaluated on panoptic digits, without a
    checkpoint and a log. The catalogs contain nothing but the digits."""
    digits.write_digits(root / "digits", {"train": 1, "val": images})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DatasetCatalog, "data", {})
        patch.setattr(MetadataCatalog, "data", {})
        digits.register_digits(root)
        folder = root / "run"
        evaluator = build_evaluator(NAME, folder / "inference" / NAME)
        evaluator.reset()
        rng = np.random.default_rng(0)
        for item, output in perfect(root / "digits", evaluator):
            item, output = worse(item, output, rng)
            evaluator.process([item], [output])
        cfg = get_cfg()
        add_ccsa_config(cfg)
        cfg.DATASETS.TEST = (NAME,)
        results = evaluator.evaluate()
        (folder / "results.json").write_text(json.dumps({"results": finite(results)}))
        yield Run(folder, cfg, results, None)
