"""The project uses the standard terms of its field: a check of words that it once used instead."""

import re
import shutil
import subprocess

import pytest

WORDS = {
    "twin": "baseline or ablation",
    "twins": "baselines or ablations",
    "told": "reported or raised",
    "cure": "fix",
    "cures": "fixes",
    "as ever": "as before",
    "at hand": "available",
    "for want of": "without",
    "the other way about": "the other way round",
    "says so": "a sentence with a subject that says something",
    "lies in": "is located in",
    "what is there": "what exists",
}
PATTERN = re.compile(r"\b(" + "|".join(WORDS).replace(" ", r"\s+") + r")\b", re.IGNORECASE)
SUFFIXES = ("*.py", "*.md", "*.yaml", "*.yml", "*.toml", "Makefile")


@pytest.mark.skipif(shutil.which("git") is None, reason="git lists the files")
def test_standard_terms_are_used(root):
    listed = subprocess.run(
        ["git", "ls-files", *SUFFIXES], cwd=root, capture_output=True, text=True
    )
    if listed.returncode:
        pytest.skip("this is not a git checkout")
    found = []
    for name in listed.stdout.splitlines():
        file = root / name
        if name == "tests/test_language.py" or not file.is_file():
            continue
        text = file.read_text(encoding="utf-8")
        for match in PATTERN.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            word = " ".join(match[1].lower().split())
            found.append(f"{name}:{line}: '{word}'; write {WORDS[word]}")
    assert not found, "\n".join(found)
