"""A resumed run equals the undisturbed one bit for bit: metrics, weights, buffers and optimizer."""

import os
import signal
import subprocess
import time

import pytest
import torch
from support.exact_resume import SCHEDULE, SMALL
from support.resumed_runs import differences, rows, train
from support.run_tools import command, environment

pytestmark = pytest.mark.slow

CASES = {
    "detector": (
        "own/mask_rcnn",
        *("MODEL.EMA.ENABLED", "True", "INPUT.CROP.ENABLED", "True", *SMALL),
        *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
        *("DATALOADER.REPEAT_THRESHOLD", "0.9"),
    ),
    "panoptic": ("own/panoptic_fpn", "SOLVER.ACCUMULATE", "2", *SMALL),
    "semantic": ("own/ccnet", "SEED", "-1", "TEST.VALIDATION_LOSS", "True"),
    "video": ("moving_cue/T5",),
}


@pytest.mark.parametrize("name", CASES)
def test_a_run_that_was_killed_twice_ends_as_the_undisturbed_one(configured, tmp_path, name):
    """Killed in the iteration after a checkpoint with an evaluation, and long after another; the
    number of workers changes each time. Seven images are read three times."""
    config, *options = CASES[name]
    workers = "DATALOADER.NUM_WORKERS"
    if "-1" in options:  # both runs must choose the same seed to be compared
        options[options.index("-1")] = "3"
    train(configured(config, tmp_path / "whole", *options, workers, 0))
    for kill, count in ((6, 2), (9, 0), (None, 1)):
        cfg = configured(config, tmp_path / "parts", *options, workers, count)
        train(cfg, resume=kill != 6, kill=kill)
    assert differences(tmp_path / "whole", tmp_path / "parts") == []
    assert len(rows(tmp_path / "whole")) >= 2


def test_a_random_seed_is_kept(configured, tmp_path):
    options = ("own/ccnet", tmp_path, "SEED", -1)
    seeds = {train(configured(*options), kill=4).progress.seed}
    resumed = train(configured(*options), resume=True, kill=5).progress
    assert {resumed.seed, resumed.loader.seed} == seeds


def test_another_batch_trains_on_as_many_images(configured, tmp_path, logged):
    train(configured("own/ccnet", tmp_path), kill=7)  # the last checkpoint is after 6
    options = ("SOLVER.IMS_PER_BATCH", 4, "SOLVER.BASE_LR", 0.01)
    for first, last in ((3, 3), (3, None)):  # the second part is killed before its checkpoint
        trainer = train(configured("own/ccnet", tmp_path, *options), resume=True, kill=last)
        assert (trainer.start_iter, trainer.max_iter) == (first, 6)
        assert "SOLVER.IMS_PER_BATCH 2 -> 4" in logged.text
        assert "SOLVER.BASE_LR 0.001 -> 0.01" in logged.text
    assert "rescaled to MAX_ITER 6, STEPS (4,)" in logged.text
    rates = [row["lr"] for row in rows(tmp_path) if row["iteration"] == 5 and "lr" in row]
    assert rates == [pytest.approx(0.01 * (1 - 5 / 6) ** 0.9, rel=0.05)]


def test_a_killed_process_is_continued_exactly(root, seven_scenes, tmp_path):
    """By signal 9, at a moment that nobody chose, with two workers and then none."""

    def words(folder, workers, *more):
        config = ("--config-file", root / "configs/own/mask_rcnn.yaml", "--data", seven_scenes)
        options = (*SCHEDULE, *SMALL, "DATASETS.TEST", "()", "DATALOADER.NUM_WORKERS", workers)
        options = (*more, *options, "OUTPUT_DIR", tmp_path / folder)
        return command(root, "train_net.py", *config, *options)

    def run(*arguments):
        return subprocess.Popen(
            words(*arguments), env=environment(tmp_path), stdout=subprocess.DEVNULL,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    assert run("whole", 0).wait(240) == 0
    process = run("parts", 2)
    while not (tmp_path / "parts" / "model_0000005.pth").exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    assert run("parts", 0, "--resume").wait(240) == 0
    assert differences(tmp_path / "whole", tmp_path / "parts") == []
    state = torch.load(tmp_path / "parts" / "model_final.pth", weights_only=True)
    assert state["trainer"]["hooks"]["ResumeState"]["seconds"] > 1
