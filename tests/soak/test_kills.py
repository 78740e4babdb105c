"""Runs that are killed at random moments and resumed equal the undisturbed ones bit for bit."""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import train_net
from soak.reliability_table import table, write_section
from support import own_scenes
from support.exact_resume import SCHEDULE, SMALL
from support.forked import call, fork
from support.resumed_runs import differences

from ccsa.data.synthetic.moving_cue import write_moving_cue

KILLS = 50
PATIENCE = 600.0  # seconds; on a busy machine, four workers in each process start slowly
MODELS = {
    "Mask R-CNN, moving average": (
        "own/mask_rcnn",
        *("MODEL.EMA.ENABLED", "True", "INPUT.CROP.ENABLED", "True", *SMALL),
        *("DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"),
        *("DATALOADER.REPEAT_THRESHOLD", "0.9"),
    ),
    "Panoptic FPN, accumulation": ("own/panoptic_fpn", "SOLVER.ACCUMULATE", "2", *SMALL),
    "CCNet, validation loss": ("own/ccnet", "TEST.VALIDATION_LOSS", "True"),
    "CCNet on clips": ("moving_cue/T5",),
}


class Runs:
    """The runs of one configuration, each in a folder of its own."""

    def __init__(self, root: Path, place: Path, scenes: Path, config: str, options, processes: int):
        data = ("--data", scenes) if config.startswith("own/") else ()
        # Parts of an accumulated batch need an image for each process.
        batch = ("SOLVER.IMS_PER_BATCH", 4) if processes > 1 else ()
        self.words = (
            *("--config-file", root / "configs" / f"{config}.yaml", *data),
            *("--num-gpus", processes),
        )
        self.options = (*SCHEDULE, "SEED", 3, *options, *batch)
        self.place = place

    def start(self, folder: str, workers: int, *more: str):
        """Start a run, or with ``--resume`` its next part, in a process group of its own."""
        output = ("DATALOADER.NUM_WORKERS", workers, "OUTPUT_DIR", self.place / folder)
        words = (*self.words, *more, *self.options, *output)
        return fork(partial(call, train_net, words), self.place / f"{folder}.txt")

    def duration(self) -> float:
        """Return how long the undisturbed run takes."""
        start = time.monotonic()
        assert self.start("whole", 0).wait(PATIENCE) == 0, (self.place / "whole.txt").read_text()[
            -3000:
        ]
        return time.monotonic() - start

    def killed(self, folder: str, kills: int, duration: float, generator: random.Random) -> int:
        """Kill a run and its next parts, and continue it to its end; return the number of kills."""
        done = 0
        while done < kills:
            process = self.start(folder, generator.choice((0, 2, 4)), "--resume")
            end = time.monotonic() + generator.uniform(0.1, 1.0) * duration
            while process.running() and time.monotonic() < end:
                time.sleep(0.005)
            if not process.running():
                break  # it has ended before
            # The first process only, whose end the others must notice; or all at once.
            (os.kill if generator.random() < 0.5 else os.killpg)(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
        process = self.start(folder, generator.choice((0, 2, 4)), "--resume")
        assert process.wait(PATIENCE) == 0, (self.place / f"{folder}.txt").read_text()[-3000:]
        return done


def test_killed_runs_equal_undisturbed_ones(root, tmp_path, monkeypatch):
    """The number of workers changes with every part; the table is written to the document."""
    torch.set_num_threads(1)
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path / "datasets"))
    monkeypatch.setenv("CCSA_CACHE", str(tmp_path / "cache"))
    scenes = tmp_path / "scenes"
    own_scenes.DIALECTS["coco_panoptic"][0](scenes, own_scenes.make_scenes(7))
    write_moving_cue(tmp_path / "datasets" / "moving_cue", {"train": 7, "val": 2})
    rows, wrong, total = [], [], 0
    cases = [(name, processes) for name in MODELS for processes in (1, 2)]
    for number, (name, processes) in enumerate(cases):
        generator = random.Random(number)
        wanted = KILLS // len(cases) + (number < KILLS % len(cases))
        place = tmp_path / str(number)
        place.mkdir()
        config, *options = MODELS[name]
        runs = Runs(root, place, scenes, config, options, processes)
        duration, kills, parts, equal = runs.duration(), 0, 0, 0
        while kills < wanted:
            folder = f"parts{parts}"
            count = runs.killed(folder, min(3, wanted - kills), duration, generator)
            found = differences(place / "whole", place / folder)
            wrong += [(name, processes, folder, found)] if found else []
            kills, parts = kills + count, parts + bool(count)
            equal += count * (not found)
        row = {"model": name, "processes": processes, "runs": parts, "kills": kills}
        rows.append({**row, "kills whose run ended bit for bit as the undisturbed one": equal})
        total += kills
    assert not wrong, wrong
    assert total == KILLS
    write_section("kills", table(rows))


@pytest.mark.parametrize("content", ["", "<!-- soak:a -->", "<!-- /soak:a --> <!-- soak:a -->"])
def test_a_section_that_is_missing_is_an_error(tmp_path, content):
    document = tmp_path / "document.md"
    document.write_text(content)
    with pytest.raises(ValueError, match="needs one section"):
        write_section("a", "text", document)
