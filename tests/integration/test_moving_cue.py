"""Train the configurations of moving_cue with fewer clips and iterations."""

import pytest
from detectron2.utils.env import seed_all_rng

from ccsa.data.synthetic.moving_cue import register_moving_cue, write_moving_cue
from ccsa.engine import Trainer, check_run
from ccsa.errors import UserError
from ccsa.visualization import draw_predictions

pytestmark = pytest.mark.slow
T5 = "moving_cue/T5.yaml"


@pytest.fixture(scope="module", autouse=True)
def clips(datasets):
    write_moving_cue(datasets / "moving_cue", {"train": 16, "val": 3})
    register_moving_cue(datasets)


@pytest.mark.parametrize(("name", "frames"), [("T1", 1), ("T5", 5)])
def test_it_learns_evaluates_and_draws(configure, tmp_path, name, frames):
    """After forty steps on sixteen clips, the loss is below that of guessing among five classes."""
    options = ["SOLVER.MAX_ITER", "40", "SOLVER.WARMUP_ITERS", "5"]
    cfg, args = configure(f"moving_cue/{name}.yaml", tmp_path, *options)
    check_run(cfg, args)
    seed_all_rng(cfg.SEED)
    trainer = Trainer(cfg)
    seen = []
    trainer.model.register_forward_pre_hook(lambda _, x: seen.append(x[0][0]["image"].shape))
    trainer.train()
    assert set(seen) == {(frames, 3, 32, 32)}
    losses = [value for value, _ in trainer.storage.history("total_loss").values()]
    assert losses[-1] < 0.6 * losses[0]
    assert 15 < trainer.results["sem_seg"]["mIoU"] <= 100
    picture = draw_predictions(cfg, trainer.model, "moving_cue_val", tmp_path / "shown.png", 2)
    assert picture.stat().st_size > 1000


def test_windows_and_scales_are_evaluated(configure, tmp_path):
    options = ["TEST.SLIDING_WINDOW.ENABLED", "True", "TEST.SLIDING_WINDOW.CROP", "[16, 32]"]
    options += ["TEST.SLIDING_WINDOW.STRIDE", "[16, 32]", "TEST.SEM_SEG_AUG.ENABLED", "True"]
    options += ["TEST.SEM_SEG_AUG.SCALES", "[0.5, 1.0]"]
    cfg, _ = configure(T5, tmp_path, *options)
    results = Trainer.test(cfg, Trainer.build_model(cfg))
    assert 0 <= results["sem_seg"]["mIoU"] <= 100


def test_what_would_fail_later_is_said_before(configure, tmp_path):
    for options, text in (
        (
            ["INPUT.CLIP.SOURCE", "labelled"],
            "has a neighbor at the distance that INPUT.CLIP asks for",
        ),
        (["INPUT.CLIP.LABELLED", "first"], r"LABELLED .*must be one of last, middle, not 'first'"),
        (["MODEL.SEM_SEG_HEAD.NAME", "FCNHead"], "needs MODEL.SEM_SEG_HEAD.NAME VideoCCNetHead"),
    ):
        with pytest.raises(UserError, match=text):
            check_run(*configure(T5, tmp_path, *options))
