"""Mutated calls of the tools: of their options, configuration files, KEY VALUE pairs, and of the
results and the configuration of runs.

A case is ``(name, mutate, verdict)``. ``mutate(call)`` changes a :class:`Call` in place: its words,
or files in its scratch folder. All cases are deterministic for a seed::

    for case in cases("train_net", base, seed=1, count=50):
        call = Call("train_net", words, tmp_path / str(number))
        case.mutate(call)
        outcome = run_forked(train_net, call.words, call.folder)
        assert case.allows(outcome.kind), (case.name, outcome.text)

``damaged`` bytes and single lists of mutations are in :mod:`support.fuzz.settings`.
"""

import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from support.forked import OK, REJECT
from support.fuzz import settings as config


class Call:
    """A call of a tool.

    Args:
        tool: the name of the tool.
        words: the words of a call that works, in which FILE stands for the file "file", and so on.
        folder: an empty scratch folder, in which the tool runs. It gets "file" (text), "empty" and
            "folder".
        run: a finished run that mutations of "run" copy into the scratch folder.
    """

    def __init__(self, tool: str, words: Sequence[object], folder: Path, run: Path | None = None):
        self.tool, self.words, self.folder = tool, list(map(str, words)), folder
        (folder / "folder").mkdir(parents=True)
        (folder / "file").write_text("x")
        (folder / "empty").touch()
        if run is not None:
            shutil.copytree(run, folder / "run")

    def set(self, option: str, *values: object) -> None:
        """Replace the value of an option, or add the option before all others."""
        if option in self.words:
            at = self.words.index(option) + 1
            self.words[at : at + 1] = list(map(str, values))
        else:
            self.words[:0] = [option, *map(str, values)]


class Case(NamedTuple):
    """A named mutation of a call.

    Attributes:
        name: what it does.
        mutate: changes a call in place.
        verdict: ``reject``, ``accept``, or ``any`` of both.
    """

    name: str
    mutate: Callable[[Call], None]
    verdict: str

    def allows(self, kind: str) -> bool:
        """Return whether a call may end like this; see :mod:`support.forked`."""
        allowed = {config.REJECT: (REJECT,), config.ACCEPT: (OK,)}
        return kind in allowed.get(self.verdict, (OK, REJECT))


LONG = "x" * 5000
_PATHS = (
    "nowhere",
    "folder",
    "file",
    "empty",
    "/dev/null",
    "/dev/zero",
    "",
    LONG,
    "\u202e",
    "a\nb",
)
_UNWRITABLE = ("folder", "file/x", "/proc/x", "/dev/null/x", LONG)

# By tool, the values of each option that must be rejected.
OPTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "train_net": {
        "--config-file": _PATHS,
        "--with": ("", "nothing", "r3,r3", "/", "nowhere.yaml", ",", LONG),
        "--data": ("nowhere", "folder", "file", "empty", "/dev/null", "/dev/zero", "/proc", LONG),
        "--data-format": ("x", "COCO", LONG),
        "--epochs": ("0", "-3", "x", "9" * 30, "nan", "1.5"),
        "--import": ("nowhere.py", "", "folder", "file", "nothing_of_this_name"),
        "--images": ("nowhere", "file"),
        "--val": ("nowhere.json", "folder"),
        "--num-gpus": ("0", "-1", "9", "1e3", "x", "1000000"),
        "--num-machines": ("0", "-1", "x", "9" * 30),
        "--machine-rank": ("-1", "5", "x"),
        "--dist-url": ("nonsense", "", "tcp://", "tcp://a", "tcp://a:0", "tcp://a:99999", LONG),
        "--nothing": ("1",),
    },
    "demo": {
        "--weights": ("nowhere", "folder", "file", "empty", "/dev/zero", "", LONG),
        "--config-file": _PATHS[:5],
        "--with": ("r3",),
        "--input": ("nowhere", "file", "folder", "*.nothing", "[", "", LONG),
        "--output": ("file", "file/x", "/dev/null", "/proc/x", LONG),
        "--confidence-threshold": ("nan", "inf", "2", "-1", "x", ""),
        "--nothing": ("1",),
    },
    "compare_runs": {
        "--metric": ("nothing", "", "/", "sem_seg/", LONG),
        "--output": ("file", "file/x", "/proc/x", LONG),
        "--nothing": ("1",),
    },
    "analyze_model": {
        "--config-file": _PATHS[:5],
        "--size": ("0x0", "-1x5", "x", "5", "1x2x3", f"{'9' * 30}x1", f"{'9' * 5000}x1", ""),
        "--depth": ("-5", "x", "1.5", ""),
        "--image": ("nowhere", "folder", "file", "empty", LONG),
    },
    "check_dataset": {
        "--data": ("nowhere", "folder", "file", "empty", "/dev/null", "/dev/zero", LONG),
        "--json": _UNWRITABLE,
        "--preview": (*_UNWRITABLE, "x.nothing", "x"),
        "--config-file": _PATHS[:5],
    },
}


def cases(
    tool: str, keys: Mapping[str, Any], seed: int = 0, count: int | None = None
) -> list[Case]:
    """Return mutations of a call of a tool, or ``count`` of them chosen by ``seed``.

    Args:
        tool: one of ``OPTIONS``.
        keys: the default value of every configuration key; empty for a tool without KEY VALUE
            pairs.
        seed: of the choice and of random damages.
        count: how many; all of them by default.
    """
    found = [*_options(tool), *_pairs(keys, seed)]
    if tool == "compare_runs":
        found += [*_results(seed), *_run_configurations(seed)]
    if tool == "demo":
        found += _run_configurations(seed)
    random.Random(seed).shuffle(found)
    return found[:count]


def _options(tool: str) -> Iterator[Case]:
    for option, values in OPTIONS[tool].items():
        for value in values:
            name = f"{option} {value[:40]!r}"
            yield Case(name, lambda call, o=option, v=value: call.set(o, v), config.REJECT)


def _pairs(keys: Mapping[str, Any], seed: int) -> Iterator[Case]:
    if not keys:
        return
    for key, value, verdict in config.options(keys, seed):
        if verdict == config.REJECT and "BLOCKS" in key:
            verdict = config.ANY  # only the lists of blocks that the model uses are checked
        name = f"{key[:40]} {value[:40]!r}"
        yield Case(name, lambda call, k=key, v=value: call.words.extend((k, v)), verdict)
    for words in (["SEED"], ["SEED", "1", "SEED"], ["--nothing", "1"], ["a b", "c"], ["", ""]):
        yield Case(f"words {words}", lambda call, w=words: call.words.extend(w), config.REJECT)


def _results(seed: int) -> Iterator[Case]:
    for name, content, verdict in config.results_files(seed):

        def mutate(call: Call, content: bytes = content) -> None:
            (call.folder / "run" / "results.json").write_bytes(content)

        yield Case(f"results.json: {name}", mutate, verdict)


def _run_configurations(seed: int, count: int = 40) -> Iterator[Case]:
    for number in range(count):

        def mutate(call: Call, number: int = number) -> None:
            file = call.folder / "run" / "config.yaml"
            generator = random.Random(f"{seed} {number}")
            file.write_bytes(config.damaged(file.read_bytes(), generator))

        yield Case(f"config.yaml of the run: random damage {number}", mutate, config.ANY)
    for name, content in (("empty", b""), ("a list", b"[1]"), ("zeros", bytes(500))):

        def replace(call: Call, content: bytes = content) -> None:
            (call.folder / "run" / "config.yaml").write_bytes(content)

        yield Case(f"config.yaml of the run: {name}", replace, config.REJECT)
