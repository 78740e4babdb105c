"""Short runs with the moving average, accumulation, validation loss and early stopping."""

import json

import pytest
import torch
from detectron2.utils.env import seed_all_rng

from ccsa.checkpoint import Checkpointer
from ccsa.data.synthetic.digits import register_digits, write_digits
from ccsa.engine import Trainer, check_run
from ccsa.engine.validation_loss import validation_losses
from ccsa.errors import UserError

pytestmark = pytest.mark.slow
SMALL = ("DATALOADER.NUM_WORKERS", 0, "SOLVER.IMS_PER_BATCH", 2)


@pytest.fixture(scope="module", autouse=True)
def scenes(datasets):
    """Write a few scenes and register them in catalogs that contain no others."""
    write_digits(datasets / "digits", {"train": 8, "val": 2})
    register_digits(datasets)


def trained(configure, file, folder, *options):
    cfg, args = configure(file, folder, *SMALL, *options)
    check_run(cfg, args)
    folder.mkdir(exist_ok=True)
    seed_all_rng(0)
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    trainer.train()
    return trainer


def test_a_run_with_every_safeguard(configure, tmp_path):
    """With a learning rate of almost 0, the metric cannot improve by 50."""
    trainer = trained(
        *(configure, "digits/fcn.yaml", tmp_path, "SOLVER.MAX_ITER", 9, "TEST.EVAL_PERIOD", 1),
        *("MODEL.EMA.ENABLED", True, "TEST.VALIDATION_LOSS", True, "SOLVER.ACCUMULATE", 2),
        *("SOLVER.EARLY_STOPPING.ENABLED", True, "SOLVER.EARLY_STOPPING.PATIENCE", 2),
        *("SOLVER.EARLY_STOPPING.MIN_DELTA", 100.0),
    )
    assert trainer.iter == 2  # the first evaluation is the best one, two more do not improve
    results = trainer.results
    assert set(results) == {"sem_seg", "sem_seg_ema", "validation_loss"}
    assert set(results["sem_seg"]) == set(results["sem_seg_ema"])
    assert 0 < results["validation_loss"]["total"] < 100
    rows = [json.loads(line) for line in (tmp_path / "metrics.json").read_text().splitlines()]
    assert rows[-1]["iteration"] == 2
    assert rows[-1]["validation_loss/total"] == results["validation_loss"]["total"]
    assert rows[-1]["grad_norm"] > 0
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    final = torch.load(tmp_path / "model_final.pth", weights_only=True)
    assert final["iteration"] == 2
    average = torch.load(tmp_path / "model_ema.pth", weights_only=True)["model"]
    assert average.keys() == final["model"].keys()
    best = torch.load(tmp_path / "model_best.pth", weights_only=True)
    assert best["trainer"]["hooks"]["BestCheckpoint"]["best_iteration"] == best["iteration"]
    model = Trainer.build_model(trainer.cfg)
    Checkpointer(model).load(str(tmp_path / "model_ema.pth"))
    again = Trainer.test(trainer.cfg, model)["sem_seg"]
    assert again == pytest.approx(results["sem_seg_ema"], abs=1e-12, nan_ok=True)


def test_evaluations_and_their_losses_do_not_change_the_training(configure, tmp_path):
    """A detector samples regions at random; training draws the same ones with an evaluation."""
    file, short = "digits/mask_rcnn.yaml", ("SOLVER.MAX_ITER", 2)
    plain = trained(configure, file, tmp_path / "plain", *short, "DATASETS.TEST", "[]")
    options = ("TEST.EVAL_PERIOD", 1, "TEST.VALIDATION_LOSS", True)
    evaluated = trained(configure, file, tmp_path / "evaluated", *short, *options)
    states = plain.model.state_dict(), evaluated.model.state_dict()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    rows = [(tmp_path / name / "metrics.json").read_text() for name in ("plain", "evaluated")]
    rows = [
        {k: v for line in text.splitlines() for k, v in json.loads(line).items()} for text in rows
    ]
    assert rows[0]["fast_rcnn/cls_accuracy"] == rows[1]["fast_rcnn/cls_accuracy"]
    assert rows[0]["total_loss"] == rows[1]["total_loss"]
    losses = evaluated.results["validation_loss"]
    assert losses["total"] == pytest.approx(sum(losses.values()) - losses["total"])
    again = validation_losses(evaluated.cfg, evaluated.model, "digits_val")
    assert again == losses and evaluated.model.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("SOLVER.ACCUMULATE", 3), "SOLVER.ACCUMULATE 3 .*more parts than it has images"),
        (("SOLVER.EARLY_STOPPING.ENABLED", True, "TEST.EVAL_PERIOD", 0), "set EVAL_PERIOD, e.g."),
        (("TRACKER", "visdom"), "TRACKER .*must be one of"),
    ],
)
def test_settings_without_effect_are_rejected(configure, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        check_run(*configure("digits/fcn.yaml", tmp_path, *SMALL, *options))
