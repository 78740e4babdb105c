"""Does criss-cross attention find the cue of far_cue, and does the network use what it attends to?

    python -m experiments.far_cue.attention output/far_cue/1/any_ccnet_R2

For each validation image, the attention over both applications is composed and averaged over the
panel, the pixels whose answer depends on the cue. Printed are the share of images in which the 5 %
most attended positions contain the cue, and the drop of the probability of the true class on the
panel if these positions are replaced by the mean of the training images, next to the drop for
random 5 % (mean of 20 draws). The exit status is 1 if the cue is missed in more than 5 % of the
images, or if the first drop is less than ten times the second one.
"""

import argparse
import sys
from collections import defaultdict

import torch
from detectron2.data import DatasetCatalog
from tabulate import tabulate
from torch import Tensor, nn
from tqdm import tqdm

from ccsa.analysis import attended_by, attention_maps
from ccsa.analysis.faithfulness import FLOOR, most_attended, random_positions, replaced
from ccsa.checkpoint import Checkpointer
from ccsa.data.image_reader import read_image
from ccsa.data.synthetic.far_cue import CELL, CLASSES, COLORS
from ccsa.data.tasks import semantic_label
from ccsa.engine import Trainer, trained_cfg
from ccsa.errors import UserError, reports_user_errors
from ccsa.inference.predictor import ModelPredictor, evaluation_mode

SHARE, DRAWS = 0.05, 20
NAMES = ("hits", "complete", "attention", "probability", "attended drop", "random drop")
Table = dict[str, dict[str, float]]  # by class and name
LEAST_HITS, LEAST_RATIO = 0.95, 10.0


def cells(pixels: Tensor) -> Tensor:
    """Return the mean of (H, W) over each cell of the grid of panel and cue, (H / 4, W / 4)."""
    return nn.functional.avg_pool2d(pixels[None].float(), CELL)[0]


def find_cue(image: Tensor, label: int) -> Tensor:
    """Return a mask (h, w) of the cells of the cue in an RGB image (3, H, W).

    Args:
        image: values from 0 to 255.
        label: the class of the panel, 1 to 4.
    """
    color = torch.tensor(list(COLORS.values())[label - 1], dtype=torch.float32)
    distance = torch.stack([cells(channel) for channel in image]) - color[:, None, None]
    return distance.square().sum(0).sqrt() < 60  # noise of 20 averages to 5; other cells are > 100


def dataset_mean(name: str) -> Tensor:
    """Return the mean (3,) of the RGB images of a dataset, 0 to 255."""
    images = [read_image(record["file_name"]) for record in DatasetCatalog.get(name)]
    return torch.stack([torch.as_tensor(i.mean((0, 1))) for i in images]).mean(0).float()


def probability(model: nn.Module, inputs: list[dict], panel: Tensor, label: int) -> list[float]:
    """Return the mean probability of a class on the panel (H, W), for each input."""
    with torch.no_grad():
        outputs = model(inputs)
    return [float(o["sem_seg"].softmax(0)[label][panel].mean()) for o in outputs]


def measure(model: nn.Module, predictor: ModelPredictor, name: str, mean: Tensor) -> Table:
    """Return the mean numbers over a dataset.

    Args:
        model: a network with one criss-cross block.
        predictor: prepares its inputs.
        name: a validation set of far_cue.
        mean: (3,), RGB.

    Returns:
        For all images and for each class the means of: ``hits`` (whether the most attended
        positions contain a cell of the cue), ``complete`` (whether they contain all of its cells),
        ``attention`` (on the cue, of 1), ``probability``, and the drops of it; and their ``ratio``.
    """
    fill = mean.flip(0) if predictor.format == "BGR" else mean
    rows: dict[int, list[dict[str, float]]] = defaultdict(list)
    for index, record in enumerate(tqdm(DatasetCatalog.get(name), desc=name, unit="image")):
        image = read_image(record["file_name"])
        panel = torch.as_tensor(semantic_label(record).copy())
        label = int(panel.max())
        inputs = predictor.prepare(image)
        (found,) = attention_maps(model, [inputs]).criss_cross.values()
        query = cells((panel > 0).float())[None]
        attention = attended_by(found[0].weights, query / query.sum())[0]
        top = most_attended(attention, SHARE)
        cue = find_cue(torch.as_tensor(image.copy()).permute(2, 0, 1).float(), label)
        masks = [top, *random_positions(top, DRAWS, seed=index)]
        changed = [{**inputs, "image": replaced(inputs["image"], m, fill)} for m in masks]
        plain, attended, *random = probability(model, [inputs, *changed], panel > 0, label)
        drop = plain - sum(random) / DRAWS
        shares = float((top & cue).any()), float((top & cue).sum() == cue.sum())
        numbers = [*shares, float(attention[cue].sum()), plain, plain - attended, drop]
        rows[label].append(dict(zip(NAMES, numbers, strict=True)))
    by_class = {CLASSES[label]: _means(rows[label]) for label in sorted(rows)}
    return {"all": _means([row for each in rows.values() for row in each]), **by_class}


def _means(rows: list[dict[str, float]]) -> dict[str, float]:
    means = {name: sum(row[name] for row in rows) / len(rows) for name in NAMES}
    return {**means, "ratio": means["attended drop"] / max(means["random drop"], FLOOR)}


@reports_user_errors
def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.far_cue.attention",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("weights", metavar="RUN", help="the folder of the run any_ccnet_R2")
    args = parser.parse_args()
    cfg = trained_cfg(argparse.Namespace(weights=args.weights, config_file="", opts=[]))
    model = Trainer.build_model(cfg)
    Checkpointer(model).load(cfg.MODEL.WEIGHTS)
    test, train = cfg.DATASETS.TEST[0], cfg.DATASETS.TRAIN[0]
    if not test.startswith("far_cue_"):
        raise UserError(f"{args.weights} was trained on {train}; name a run of far_cue")
    with evaluation_mode(model):
        found = measure(model, ModelPredictor(cfg, model), test, dataset_mean(train))
    rows = [[name, *(f"{value:.3f}" for value in row.values())] for name, row in found.items()]
    print(tabulate(rows, ["images", *found["all"]], "github", disable_numparse=True))
    if found["all"]["hits"] < LEAST_HITS or found["all"]["ratio"] < LEAST_RATIO:
        sys.exit(1)


if __name__ == "__main__":
    main()
