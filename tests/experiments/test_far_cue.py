"""python -m experiments.far_cue: the tables, the deviations that it reports, and failing runs."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from ccsa.analysis.runs import read_run
from ccsa.data.synthetic.far_cue import register_far_cue, write_far_cue
from ccsa.data.synthetic.moving_cue import register_moving_cue, write_moving_cue
from ccsa.errors import UserError
from experiments.far_cue import __main__ as tool
from experiments.far_cue import moving_cue, training
from experiments.far_cue import networks as far_cue

GOOD = {"plain": (28.0, 30.0), "ccnet_R1": (99.0, 59.0), "ccnet_R2": (98.0, 98.04)}


def runs(make_run, scores):
    """Return runs with made-up results, by variant and config."""
    return {
        (variant, config): read_run(
            make_run(
                f"{variant}_{config}",
                {"sem_seg": {"mIoU": value}},
                f"far_cue/{variant}_{config}.yaml",
            )
        )
        for config, values in scores.items()
        for variant, value in zip(("cross", "any"), values, strict=True)
    }


def test_table_has_a_line_for_each_network(make_run):
    text = far_cue.table(far_cue.RECURRENCES, runs(make_run, GOOD), "github")
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert lines[0] == ["mIoU", "cue: cross", "cue: any"]
    assert lines[2:] == [
        ["R = 0 (no block)", "0.28", "0.30"],
        ["criss-cross, R = 1", "0.99", "0.59"],
        ["criss-cross, R = 2", "0.98", "0.98"],
    ]


@pytest.mark.parametrize(
    ("config", "values", "names"),
    [
        ("plain", (41.0, 30.0), ["cross_plain"]),
        ("plain", (30.0, 50.0), ["any_plain"]),
        ("ccnet_R1", (94.9, 76.0), ["cross_ccnet_R1", "any_ccnet_R1"]),
        ("ccnet_R2", (10.0, 94.0), ["any_ccnet_R2"]),
        ("ccnet_R2", (10.0, 95.0), []),
    ],
)
def test_surprises_are_named(make_run, config, values, names):
    found = far_cue.deviations(runs(make_run, {**GOOD, config: values}))
    assert [text.split()[0] for text in found] == names


@pytest.mark.parametrize(
    ("values", "names"), [((0.41, 0.9), ["T1"]), ((0.3, 0.89), ["T5"]), ((0.4, 1.0), [])]
)
def test_frames_have_a_table_of_their_own(make_run, values, names):
    runs = {
        name: read_run(
            make_run(name, {"sem_seg": {"mIoU": 100 * value}}, f"moving_cue/{name}.yaml")
        )
        for name, value in zip(("T1", "T5"), values, strict=True)
    }
    lines = [line.split("|") for line in moving_cue.table(runs, "github").splitlines()]
    assert [line[1].split(",")[0].strip() for line in lines[2:]] == [
        "T = 1 (the labeled frame)",
        "T = 5",
    ]
    assert [line[2].strip() for line in lines[2:]] == [f"{value:.2f}" for value in values]
    assert [text.split()[1] for text in moving_cue.deviations(runs)] == names


def test_a_training_that_fails_is_named_with_its_reason(tmp_path):
    options = ["SOLVER.BASE_LR", "fast"]
    with pytest.raises(UserError, match=r"training any_plain failed .*'fast'.*any_plain\.txt"):
        training.train(["far_cue/any_plain"], tmp_path, seed=1, options=options, jobs=1)


def test_a_failure_ends_the_others(tmp_path, monkeypatch):
    started = []

    class Training(training.Training):
        def __init__(self, config, folder, seed, options, threads):
            super().__init__(config, folder, seed, options, threads)
            started.append(self)

    sleeper = tmp_path / "tools" / "train_net.py"
    sleeper.parent.mkdir()
    sleeper.write_text(
        "import sys, time\ntime.sleep(0 if 'bad' in sys.argv[2] else 60)\nsys.exit(3)"
    )
    monkeypatch.setattr(training, "ROOT", tmp_path)
    monkeypatch.setattr(training, "Training", Training)
    monkeypatch.setattr(training, "POLL_INTERVAL", 0.1)
    with pytest.raises(UserError, match="training bad failed"):
        training.train(["bad", "slow"], tmp_path, seed=1, options=[], jobs=2)
    assert [t.process.poll() is None for t in started] == [False, False]


def test_a_killed_training_is_said_to_be_killed(tmp_path, monkeypatch):
    trainer = tmp_path / "tools" / "train_net.py"
    trainer.parent.mkdir()
    trainer.write_text("import os\nprint('iteration 3', flush=True)\nos.kill(os.getpid(), 9)")
    monkeypatch.setattr(training, "ROOT", tmp_path)
    monkeypatch.setattr(training, "POLL_INTERVAL", 0.1)
    with pytest.raises(
        UserError, match=r"training one failed \(ended by signal 9; is there enough memory"
    ):
        training.train(["one"], tmp_path, seed=1, options=[], jobs=1)


def test_ending_the_tool_ends_its_trainings(tmp_path):
    """Send SIGTERM, as `timeout` and job schedulers do."""
    trainer = tmp_path / "tools" / "train_net.py"
    trainer.parent.mkdir()
    trainer.write_text(
        "import os, time\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        "time.sleep(60)"
    )
    code = (
        "import sys; from pathlib import Path; from experiments.far_cue import __main__ as tool\n"
        f"tool.training.ROOT = Path({str(tmp_path)!r})\n"
        "tool.ensure_far_cue = tool.ensure_moving_cue = lambda: None\n"
        "sys.argv = ['far_cue.py', '--output', sys.argv[1]]; tool.main()"
    )
    paths = (str(training.ROOT), os.environ.get("PYTHONPATH", ""))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", code, str(tmp_path / "out")]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
    try:
        until = time.monotonic() + 120
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.1)
        process.terminate()
        assert process.wait(timeout=60) == 143
    finally:
        process.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.slow
def test_it_trains_draws_and_never_overwrites(tmp_path, monkeypatch, capsys):
    """Run the whole experiment with a few iterations and images, too few to learn anything."""

    write_far_cue(tmp_path / "far_cue", {"train": 8, "val": 2})
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    write_moving_cue(tmp_path / "moving_cue", {"train": 8, "val": 2})
    monkeypatch.setattr(tool, "ensure_far_cue", lambda: None)
    monkeypatch.setattr(tool, "ensure_moving_cue", lambda: None)
    monkeypatch.setattr(DatasetCatalog, "data", {})
    monkeypatch.setattr(MetadataCatalog, "data", {})
    register_far_cue(tmp_path)
    register_moving_cue(tmp_path)
    monkeypatch.setattr(far_cue, "RECURRENCES", far_cue.RECURRENCES[2:])  # two networks, not six
    monkeypatch.setattr(moving_cue, "NETWORKS", moving_cue.NETWORKS[1:])
    monkeypatch.setattr(moving_cue, "EXPECTED_MIOU", {"T5": (0.95, 1.0)})
    monkeypatch.setattr(far_cue, "EXPECTED_MIOU", {("any", "ccnet_R2"): (0.95, 1.0)})
    words = ["--output", str(tmp_path / "out"), "SOLVER.MAX_ITER", "2", "SOLVER.IMS_PER_BATCH", "4"]
    monkeypatch.setattr(sys, "argv", ["far_cue.py", *words])
    (tmp_path / "out" / "1").mkdir(parents=True)
    tool.main()
    printed = capsys.readouterr().out
    folder = tmp_path / "out" / "2"
    assert "criss-cross, R = 2" in printed and "not as expected: any_ccnet_R2" in printed
    assert "T = 5, 3D criss-cross" in printed and "not as expected: moving_cue T5" in printed
    assert {"table.md", "table.png", "any_ccnet_R2", "cross_ccnet_R2"} <= {
        place.name for place in Path(folder).iterdir()
    }
    assert (folder / "any_ccnet_R2" / "results.json").is_file()
    text = (folder / "table.md").read_text()
    assert "cue: any" in text and "mIoU, cue in earlier frames" in text
    picture = np.asarray(Image.open(folder / "table.png").convert("RGB"))
    assert min(picture.shape[:2]) > 500 and len(np.unique(picture)) > 50
