"""Values and damages that annotation files are mutated with."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEEP = json.loads("[" * 300 + "]" * 300)
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 1.5, -0.0, 1e8, -1e8, 1e300, 10**18, 10**4000),
    *(2**31, 2**63, float("nan"), float("inf"), -float("inf")),
    *("", " ", "1", "01", "-3", "1e5", "abc", "\0", "é", "a" * 5000, "../../../etc/passwd"),
    *("/etc/passwd", "/dev/zero", ".", "..", "a/../b", "\\"),
    *([], {}, [[]], [{}], [[[]]], [0], [0, 0], [1e8] * 4, [1e8] * 6, [[1e8] * 6], [-1] * 6, DEEP),
    *([[5, 5, 5, 5, 5, 5]], [[0, 0, 1e5, 1e5, 0, 1e5]], ["1", "2"], [None] * 4, [True] * 4),
    *({"size": [96, 128], "counts": "0"}, {"size": [96, 128], "counts": ""}, {"counts": [1, 2]}),
    *({"size": [10**9, 10**9], "counts": [10**18]}, {"size": [96, 128], "counts": [0, 12288, 0]}),
    *({"size": [96, 128], "counts": "oooooooooooooooo"}, {"size": [96, 128], "counts": [12288]}),
    *({"size": [96, 128], "counts": [-1, 12289]}, {"size": [96, 128], "counts": "é0"}),
]
BYTES = [
    lambda b, r: b"",
    lambda b, r: b[: r.randrange(len(b))],
    lambda b, r: b"\xef\xbb\xbf" + b,
    lambda b, r: b.decode("utf-8", "replace").encode("utf-16"),
    lambda b, r: b.decode("utf-8", "replace").encode("utf-16-le"),
    lambda b, r: b.decode("utf-8", "replace").encode("utf-16")[:-1],
    lambda b, r: b[: len(b) // 2] + b"\0" + b[len(b) // 2 :],
    lambda b, r: b[: len(b) // 2] + b"\xff\xfe" + b[len(b) // 2 :],
    lambda b, r: b"\0" * 64,
    lambda b, r: b"[" * 10_000 + b"]" * 10_000,
    lambda b, r: b"null",
    lambda b, r: b"[]",
    lambda b, r: b"{}",
    lambda b, r: b"9" * 5_000,
    lambda b, r: b.replace(b"1", b"9" * 5_000, 1),
    lambda b, r: b.replace(b"0.", b"NaN ", 3),
    lambda b, r: b.replace(b'"', b'"\\ud800', 4),
    lambda b, r: bytes(c if r.random() > 0.01 else r.randrange(256) for c in b),
    lambda b, r: b + b,
]


def _paths(value: Any, prefix: tuple = ()) -> Iterator[tuple]:
    yield prefix
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _paths(item, (*prefix, key))


def mutate_json(content: Any, rng: random.Random) -> Any:
    """Return a copy of JSON content in which one value is replaced, removed or repeated."""
    content = copy.deepcopy(content)
    # Short paths are few: choose the depth first.
    paths = list(_paths(content))
    depth = rng.choice(sorted({len(path) for path in paths}))
    path = rng.choice([path for path in paths if len(path) == depth])
    if not path:
        return rng.choice(VALUES)
    holder = content
    for key in path[:-1]:
        holder = holder[key]
    action = rng.random()
    if action < 0.15:
        del holder[path[-1]]
    elif action < 0.25 and isinstance(holder, list):
        holder.append(holder[path[-1]])
    elif action < 0.35 and isinstance(holder[path[-1]], str) and holder[path[-1]]:
        text = holder[path[-1]]
        place = rng.randrange(len(text))
        holder[path[-1]] = text[:place] + chr(rng.randrange(1, 0x250)) + text[place + 1 :]
    else:
        holder[path[-1]] = rng.choice(VALUES)
    return content


def mutate_text(text: str, rng: random.Random) -> str:
    """Return the text with one word replaced."""
    words = text.split(" ")
    words[rng.randrange(len(words))] = str(rng.choice(VALUES))[:6000].replace("\n", " ")
    return " ".join(words)


def mutate_file(file: Path, rng: random.Random) -> None:
    """Damage an annotation file: its bytes, one value of its JSON, or one word of its text."""
    content = file.read_bytes()
    if rng.random() < 0.2:
        file.write_bytes(rng.choice(BYTES)(content, rng))
    elif file.suffix == ".json":
        file.write_text(json.dumps(mutate_json(json.loads(content), rng)))
    else:
        file.write_text(mutate_text(content.decode(), rng))


def mutate_annotations(folder: Path, rng: random.Random) -> str:
    """Damage one annotation file of a folder, and return its name."""
    suffixes = (".json", ".txt", ".yaml", ".xml")
    file = rng.choice(sorted(f for f in folder.rglob("*") if f.suffix in suffixes))
    mutate_file(file, rng)
    return str(file.relative_to(folder))
