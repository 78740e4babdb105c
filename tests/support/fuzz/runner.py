"""Run one attempt and judge how it ended."""

import hashlib
import os
import random
import re
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from support import forked
from support.fuzz.settings import ACCEPT, REJECT
from support.fuzz.world import World, tool

LONGEST = 1200  # characters of a message
WORKED, REJECTED = "worked", "rejected"
FAULTS = ("traceback", "crash", "hang", "other", "accepted", "refused", "touched", "message")


class Attempt(NamedTuple):
    """A call of a tool with a mutated input.

    Attributes:
        tool: the name of the tool.
        words: the words after it.
        folder: the working directory, which contains everything that was mutated.
        what: what was mutated, and how.
        verdict: ``reject``, ``accept``, or ``any`` of both.
        owned: the names in the folder that the tool may write to.
        adds: whether the tool may add files anywhere in the folder.
        mention: what the tool must print if it succeeds.
    """

    tool: str
    words: Sequence[object]
    folder: Path
    what: str
    verdict: str
    owned: Sequence[str] = ("out",)
    adds: bool = False
    mention: str = ""


class Verdict(NamedTuple):
    """How an attempt ended.

    Attributes:
        outcome: ``worked``, ``rejected``, or a fault: one of ``FAULTS``.
        attempt: the attempt.
        text: what the tool printed.
        seconds: how long it took.
    """

    outcome: str
    attempt: Attempt
    text: str
    seconds: float

    def __str__(self) -> str:
        words = " ".join(str(word)[:80] for word in self.attempt.words)
        call = f"{self.attempt.tool} {words}"
        return f"{self.outcome}: {self.attempt.what}\n{call}\n{self.text[-3000:]}"


def judge(attempt: Attempt, seconds: float = 60.0) -> Verdict:
    """Run an attempt in a forked process."""
    before = _snapshot(attempt)
    done = forked.run_forked(tool(attempt.tool), attempt.words, attempt.folder, seconds)
    outcome = {forked.OK: WORKED, forked.REJECT: REJECTED}.get(done.kind, done.kind)
    silent = attempt.verdict == REJECT or attempt.mention not in done.text
    if outcome == WORKED and silent:
        outcome = "accepted"
    elif outcome == REJECTED and attempt.verdict == ACCEPT:
        outcome = "refused"
    elif outcome == REJECTED and not _is_a_sentence(done.text):
        outcome = "message"
    after = _snapshot(attempt)
    if attempt.adds:
        after = {name: content for name, content in after.items() if name in before}
    if outcome in (WORKED, REJECTED) and after != before:
        outcome = "touched"
    return Verdict(outcome, attempt, done.text, done.seconds)


def _is_a_sentence(text: str) -> bool:
    """Return whether a text ends with one error of reasonable length."""
    if re.search(r"^\d+ images? checked: \d+ errors?", text, re.MULTILINE):
        return True  # the table of problems
    text = text.replace("\r", "\n")  # a progress bar
    found = re.search(r"^(?:\S+: )?error: .*", text, re.DOTALL | re.MULTILINE)
    return found is not None and len(found.group().strip()) < LONGEST


def _snapshot(attempt: Attempt) -> dict[str, object]:
    """Return the content of every file that does not belong to the tool."""
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(attempt.folder):
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            relative = path.relative_to(attempt.folder)
            if relative.parts[0] in attempt.owned:
                continue
            mode = path.lstat().st_mode
            regular = stat.S_ISREG(mode)
            content = (
                hashlib.sha256(path.read_bytes()).hexdigest() if regular else stat.S_IFMT(mode)
            )
            found[str(relative)] = content
    return found


def attempt_of(kinds: dict, kind: str, number: int, world: World, folder: Path) -> Attempt:
    """Return the attempt of a kind with a number, in an empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return kinds[kind](world, folder, random.Random(f"{kind} {number}"))
