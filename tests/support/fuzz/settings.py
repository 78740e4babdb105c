"""Mutations of configuration files, of KEY VALUE pairs and of the results of runs.

Every generator is deterministic for a seed. A case says what must happen: ``reject`` (one sentence
and exit status 2), ``accept``, or ``any`` of both; a traceback, a hang and a crash are always
wrong.
"""

import functools
import itertools
import json
import random
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from detectron2.config import get_cfg

from ccsa import add_ccsa_config
from ccsa.engine.model_parts import all_values

REJECT, ACCEPT, ANY = "reject", "accept", "any"


class Option(NamedTuple):
    """A KEY VALUE pair.

    Attributes:
        key: the key.
        value: the word on the command line.
        verdict: what must happen.
    """

    key: str
    value: str
    verdict: str = ANY


class Files(NamedTuple):
    """A configuration, or the folder of a run, that consists of files.

    Attributes:
        name: what was done to it.
        files: the content of each file by its name; ``main.yaml`` is the one to use.
        verdict: what must happen.
    """

    name: str
    files: dict[str, bytes]
    verdict: str = REJECT


# Words that are a value of no key, and those for each type of a default value. A word that is valid
# for a key of this type is listed under ODD.
WRONG = {
    bool: ["2", "0.5", "maybe", "[]", "None", "[True]", "{}"],
    int: ["1.5", "True", "None", "many", "''", "[]", "[1]", "{}", "nan", "1e999", "-1e999", "1e9"],
    float: ["True", "None", "much", "''", "[]", "[0.1]", "{}", "nan", "1e999", "-1e999", "1+2j"],
    str: ["3", "1.5", "True", "None", "[]", "{}", "()"],
    tuple: ["3", "True", "None", "some", "''", "{}", "[None]", "[{}]", "[[[[[]]]]]", "[1e999]"],
    list: ["3", "True", "None", "some", "''", "{}", "[None]", "[1e999]", "[b'x']", "{1, 2}"],
    type(None): ["many", "[]", "{}", "True"],
}
ODD = {
    bool: ["True", "False"],
    int: ["-5", "-1", "0", "1", "3", "1000000000", "2147483648", "18446744073709551617", "9" * 400],
    float: ["-1.0", "0.0", "-0.0", "1e-320", "1e30", "1e308", "1", "0.5", "2.0", "-5"],
    str: ["", "x", "x" * 5000, "../../x", "\u202e", "a\nb", "$HOME", "%s{0}", "relu", "BN"],
    tuple: ["()", "[]", "[0]", "[-1]", "[1]", "[1, 2, 3]", "['x']", "[1, 1]", "[2, 1]", "[0.5]"],
    list: ["[]", "()", "[0]", "[-1]", "[1, 1]", "['x']", "[0.5, -0.5]", "[[1]]", "[[]]", "[True]"],
    type(None): ["-1.0", "0.0", "1e999", "0.1", "nan"],
}
HUGE = {
    tuple: ["[1000000000]", "[1000000000, 1000000000]", str([1] * 2000), "[1e308, 1e308]"],
    list: ["[1000000000]", "[1000000000, 1000000000]", str([1] * 2000), "[" * 300 + "]" * 300],
}


def options(defaults: Mapping[str, Any], seed: int = 0, count: int | None = None) -> list[Option]:
    """Return pairs of every key with every word, or ``count`` of them chosen by ``seed``.

    Args:
        defaults: the default value of every key.
        seed: of the choice.
        count: how many; all of them by default.
    """
    found = list(NAMED)
    for key, default in defaults.items():
        kind = type(default)
        wrong = ANY if key in FREE or kind is str else REJECT  # any word is text
        found += [Option(key, word, wrong) for word in WRONG[kind]]
        found += [Option(key, word) for word in (*ODD[kind], *HUGE.get(kind, ()))]
    random.Random(seed).shuffle(found)
    return found[:count]


# Keys that take more types than that of their default.
FREE = {
    "MODEL.CONTEXT.BLOCKS",
    "MODEL.SEM_SEG_HEAD.BLOCKS",
    "MODEL.SEM_SEG_HEAD.SANET.BLOCKS",
    "MODEL.TIMM.ARGUMENTS",
    "INPUT.INTENSITY_RANGE",
    "DATASETS.LABEL_MAPPING",
    "DATASETS.TRAIN",
    "SOLVER.WEIGHT_DECAY_BIAS",
    "SOLVER.CLIP_GRADIENTS.NORM_TYPE",
    "TEST.EXPECTED_RESULTS",
}

# Values that have the right type and are wrong, each a fault that was found by hand.
NAMED = [
    *(Option("SOLVER.IMS_PER_BATCH", value, REJECT) for value in ("0", "-1", "-8")),
    *(Option("SOLVER.MAX_ITER", value, REJECT) for value in ("0", "-5")),
    *(Option("SOLVER.CHECKPOINT_PERIOD", value, REJECT) for value in ("0", "-1")),
    *(Option("TEST.EVAL_PERIOD", value, REJECT) for value in ("-1", "-1000")),
    *(Option("SOLVER.BASE_LR", value, REJECT) for value in ("-0.1", "nan", "1e999", "0.0")),
    *(Option("SOLVER.MOMENTUM", value, REJECT) for value in ("-0.1", "1.0", "1.5")),
    *(Option("SOLVER.WEIGHT_DECAY", value, REJECT) for value in ("-0.1", "1e999")),
    *(Option("SOLVER.STEPS", value, REJECT) for value in ("(2, 1)", "(1, 1)", "(-1,)", "(0.5,)")),
    *(Option("SOLVER.WARMUP_ITERS", value, REJECT) for value in ("-1", "-1000")),
    *(Option("SOLVER.WARMUP_FACTOR", value, REJECT) for value in ("-1.0", "2.0")),
    *(Option("SOLVER.WARMUP_METHOD", value, REJECT) for value in ("burnin", "")),
    *(Option("SOLVER.OPTIMIZER", value, REJECT) for value in ("Adam", "sgd", "")),
    *(Option("SOLVER.LR_SCHEDULER_NAME", value, REJECT) for value in ("Poly", "")),
    *(Option("SOLVER.CLIP_GRADIENTS.CLIP_TYPE", value, REJECT) for value in ("all", "")),
    *(Option("SOLVER.REFERENCE_WORLD_SIZE", value, REJECT) for value in ("-1", "7")),
    *(Option("SEED", value, REJECT) for value in ("4294967296", "-2", "9" * 400)),
    *(Option("DATALOADER.NUM_WORKERS", value, REJECT) for value in ("-1", "100000")),
    *(Option("DATALOADER.SAMPLER_TRAIN", value, REJECT) for value in ("Random", "")),
    *(Option("INPUT.FORMAT", value, REJECT) for value in ("BRG", "", "rgb", "RGBA")),
    *(Option("INPUT.MAPPER", value, REJECT) for value in ("panoptic", "")),
    *(Option("INPUT.MIN_SIZE_TRAIN", value, REJECT) for value in ("()", "(-1,)", "(1000000,)")),
    *(Option("INPUT.MAX_SIZE_TRAIN", value, REJECT) for value in ("0", "-1", "5")),
    *(Option("INPUT.MIN_SIZE_TEST", value, REJECT) for value in ("-1", "10000000")),
    *(Option("INPUT.MAX_SIZE_TEST", value, REJECT) for value in ("0", "-1", "5")),
    Option("INPUT.MIN_SIZE_TRAIN_SAMPLING", "all", REJECT),
    Option("INPUT.RANDOM_FLIP", "diagonal", REJECT),
    *(Option("MODEL.PIXEL_STD", value, REJECT) for value in ("[0, 0, 0]", "[1.0, 1.0]", "[-1]")),
    *(Option("MODEL.PIXEL_MEAN", value, REJECT) for value in ("[1.0]", "['a', 'b', 'c']")),
    *(
        Option("MODEL.SEM_SEG_HEAD.NUM_CLASSES", value, REJECT)
        for value in ("0", "-1", "1000000000")
    ),
    *(
        Option("MODEL.SEM_SEG_HEAD.BLOCKS", f"[{{'block': 'CrissCross', {word}}}]", REJECT)
        for word in (
            *("'recurrence': 1000000000", "'recurrence': -1", "'recurrence': 1.5"),
            *("'recurrence': True", "'recurrence': None", "'recurrence': 101"),
            *("'reduction': 0", "'reduction': 1000000", "'dims': 4", "'x': 1", "1: 2"),
        )
    ),
    *(Option("MODEL.SEM_SEG_HEAD.BLOCKS", value, REJECT) for value in ("[1]", "['x']", "[{}]")),
    *(Option("MODEL.SEM_SEG_HEAD.DROPOUT", value, REJECT) for value in ("-0.1", "1.5")),
    *(Option("MODEL.META_ARCHITECTURE", value, REJECT) for value in ("MaskRCNN", "")),
    *(Option("MODEL.DEVICE", value, REJECT) for value in ("gpu", "", "cuda:99", "meta")),
    *(Option("VERSION", value, REJECT) for value in ("1", "3", "-1")),
    *(Option(key, "1", REJECT) for key in ("", ".", "..", "SOLVER.", ".SEED", "SOLVER..MAX_ITER")),
    *(
        Option(key, "1", REJECT)
        for key in ("SOLVER", "seed", "SOLVER.MAX_ITR", "_BASE_", "x" * 900)
    ),
]

YAML = """\
MODEL:
  DEVICE: cpu
SOLVER:
  MAX_ITER: 2
  STEPS: [1]
SEED: 1
"""
BASE = "_BASE_: {base}\n"


def config_files(base: str, seed: int = 0, flips: int = 40) -> Iterator[Files]:
    """Yield damaged configuration files.

    Args:
        base: the path of a configuration that the files extend.
        seed: of the random damages.
        flips: the number of random damages.
    """
    good = BASE.format(base=base) + YAML

    def one(name: str, text: str | bytes, verdict: str = REJECT) -> Files:
        content = text if isinstance(text, bytes) else text.encode()
        return Files(name, {"main.yaml": content}, verdict)

    yield one("unchanged", good, ACCEPT)
    yield one("byte order mark", b"\xef\xbb\xbf" + good.encode(), ANY)
    yield one("Windows line ends", good.replace("\n", "\r\n"), ACCEPT)
    yield from (one(name, text) for name, text in _not_a_mapping())
    for encoding in ("utf-16", "utf-16-le", "utf-32"):
        yield one(encoding, good.encode(encoding))
    yield one("latin-1", f"{good}OUTPUT_DIR: é\n".encode("latin-1"))
    yield one("NUL byte", good.replace("SEED", "SE\0ED"))
    yield one("tab", good.replace("  MAX_ITER", "\tMAX_ITER"))
    yield one("a key twice", f"{good}SEED: 2\n")
    yield one("a section twice", f"{good}SOLVER:\n  MAX_ITER: 3\n")
    yield one("a key that is a number", f"{good}3: 4\n")
    yield one("a key in a section that is a number", good.replace("MAX_ITER: 2", "7: 2"))
    yield one("a key that is null", f"{good}null: 4\n")
    yield one("a key that is a list", f"{good}? [1, 2]\n: 4\n")
    yield one("a key that is true", f"{good}true: 4\n")
    yield one("a key with dots", f"{good}MODEL.WEIGHTS: x\n")
    yield one("an unknown key", f"{good}SEEED: 4\n")
    yield one("a section that is a list", good.replace("MODEL:\n  DEVICE: cpu", "MODEL: [1]"))
    yield one("a section that is null", good.replace("MODEL:\n  DEVICE: cpu", "MODEL:"), ANY)
    yield one("a value that is a section", good.replace("SEED: 1", "SEED: {A: 1}"))
    yield one("a date", good.replace("SEED: 1", "SEED: 2001-01-01"))
    yield one("a set", good.replace("STEPS: [1]", "STEPS: !!set {1, 2}"))
    yield one("binary", good.replace("SEED: 1", "SEED: !!binary aGVsbG8="))
    yield one("a tag of Python", f"{good}OUTPUT_DIR: !!python/object/apply:os.getcwd []\n")
    yield one("an unknown tag", f"{good}OUTPUT_DIR: !x y\n")
    yield one("not a number", good.replace("MAX_ITER: 2", "BASE_LR: .nan"))
    yield one("infinity", good.replace("MAX_ITER: 2", "BASE_LR: .inf"))
    yield one("a number of 5,000 digits", good.replace("MAX_ITER: 2", f"MAX_ITER: {'9' * 5000}"))
    yield one("an alias that contains itself", f"{good}DATASETS: &a {{TRAIN: [*a]}}\n")
    yield one("aliases that multiply", good + _multiplied())
    multiplied = f"{_multiplied()}DATASETS: {{TRAIN: *a29}}\n"
    yield one("aliases that multiply in a known key", good + multiplied)
    yield one("an alias of nothing", f"{good}DATASETS: {{TRAIN: *z}}\n")
    yield one("a merge key", f"{good}<<: {{SEED: 3}}\n", ANY)
    yield one("deep lists", f"{good}DATASETS: {{TRAIN: {'[' * 20000}{']' * 20000}}}\n")
    yield one("deep mappings", good + "DATASETS: " + "{A: " * 5000 + "1" + "}" * 5000 + "\n")
    yield one("two documents", f"{good}---\n{good}")
    yield one("large", good + "# comment\n" * 2_000_000)
    yield from (one(name, BASE.format(base=text) + YAML) for name, text in _bad_bases())
    yield from _several_files(base)
    generator = random.Random(seed)
    for number in range(flips):
        yield one(f"random damage {number}", damaged(good.encode(), generator), ANY)


def _not_a_mapping() -> Iterator[tuple[str, str | bytes]]:
    yield "empty", b""
    yield "spaces", "  \n\n"
    yield "a comment", "# nothing\n"
    yield "only null", "null\n"
    yield "a word", "word\n"
    yield "a number", "7\n"
    yield "a list", "[1, 2]\n"
    yield "unclosed", "MODEL: [\n"
    yield "random bytes", bytes(random.Random(0).randrange(256) for _ in range(500))
    yield "zeros", bytes(500)
    yield "JSON of something else", '{"images": [], "annotations": []}'


def _bad_bases() -> Iterator[tuple[str, str]]:
    for value in ("", "[]", "{}", "3", "[3]", "[null]", "true", "nowhere.yaml", "~nobody/x.yaml"):
        yield f"base {value or 'null'}", value
    yield "base that is a folder", "/"
    yield "base that is a device", "/dev/zero"
    yield "base that is itself", "main.yaml"
    yield "base with a long name", "x" * 5000 + ".yaml"
    yield "base with a NUL byte", '"a\\0b.yaml"'


def _several_files(base: str) -> Iterator[Files]:
    yield Files(
        "two files that extend each other",
        {"main.yaml": b"_BASE_: a.yaml", "a.yaml": b"_BASE_: main.yaml"},
    )
    names = [f"{i}.yaml" for i in range(40)]
    files = {a: f"_BASE_: [{b}, {b}]".encode() for a, b in itertools.pairwise(names)}
    files[names[-1]] = f"_BASE_: {base}".encode()
    yield Files("bases that multiply", {"main.yaml": b"_BASE_: 0.yaml", **files}, ANY)
    chain = {f"c{i}.yaml": f"_BASE_: c{i + 1}.yaml".encode() for i in range(3000)}
    yield Files("3,000 files in a row", {"main.yaml": b"_BASE_: c0.yaml", **chain})
    yield Files("a damaged base", {"main.yaml": b"_BASE_: a.yaml", "a.yaml": b"MODEL: [\n"})
    yield Files("an empty base", {"main.yaml": b"_BASE_: a.yaml", "a.yaml": b""})
    yield Files(
        "a base with a section that is a value here",
        {"main.yaml": b"_BASE_: a.yaml\nSOLVER: {MAX_ITER: 3}", "a.yaml": b"SOLVER: 3"},
    )


def _multiplied(levels: int = 30) -> str:
    """Return YAML of which each level repeats the level before ten times."""
    lines = ["A0: &a0 [x]"]
    lines += [f"A{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


def damaged(content: bytes, generator: random.Random) -> bytes:
    """Return content with one random damage: bytes changed, removed, repeated or cut off."""
    data, at = bytearray(content), generator.randrange(max(1, len(content)))
    end = at + generator.randrange(1, 20)
    match generator.randrange(5):
        case 0:
            data[at:end] = bytes(generator.randrange(256) for _ in range(end - at))
        case 1:
            del data[at:end]
        case 2:
            data[at:at] = data[at:end] * generator.randrange(1, 50)
        case 3:
            del data[at:]
        case 4:
            data[at : at + 1] = generator.choice([b":", b"-", b"[", b"{", b"&", b"*", b"\n", b"'"])
    return bytes(data)


RESULTS: dict[str, Any] = {
    "results": {"sem_seg": {"mIoU": 50.0, "IoU-one": 40.0, "IoU-two": None}},
    "seconds": 1.0,
    "peak_memory_bytes": 2**30,
}


def results_files(seed: int = 0, flips: int = 20) -> Iterator[tuple[str, bytes, str]]:
    """Yield damaged contents of the results.json of a run: (what was done, content, verdict)."""
    good = json.dumps(RESULTS).encode()
    yield "unchanged", good, ACCEPT
    for name, text in _not_a_mapping():
        yield name, text if isinstance(text, bytes) else text.encode(), REJECT
    yield "byte order mark", b"\xef\xbb\xbf" + good, ANY
    yield "utf-16", good.decode().encode("utf-16"), REJECT
    yield "cut off", good[:-20], REJECT
    yield "two values", good + good, REJECT
    yield "deep", b"[" * 100_000 + b"]" * 100_000, REJECT
    yield "a number of 5,000 digits", good.replace(b"50.0", b"9" * 5000), REJECT
    yield "large", b" " * 100_000_000 + good, ANY
    for value in ('"high"', "[50.0]", "true", "Infinity", "-Infinity", "{}", '{"a": 1}', "1e999"):
        yield f"a metric that is {value}", good.replace(b"50.0", value.encode()), REJECT
    yield "a metric that is NaN", good.replace(b"50.0", b"NaN"), ANY
    yield "a metric that is null", good.replace(b"50.0", b"null"), ANY
    yield "a metric of a class that is text", good.replace(b"40.0", b'"x"'), REJECT
    for value in ("null", "[]", "3", '"x"', "{}", '{"sem_seg": 3}', '{"sem_seg": []}'):
        record = b'{"results": %s, "seconds": 1.0, "peak_memory_bytes": 1}' % value.encode()
        yield f"results that are {value}", record, REJECT
    yield "results with an empty task", b'{"results": {"sem_seg": {}}, "seconds": 1}', REJECT
    for value in ('"x"', "-1", "[]", "true", "NaN", "1e999", "1.5", "9" * 400):
        damage = good.replace(str(2**30).encode(), value.encode())
        yield f"memory that is {value[:9]}", damage, REJECT
    generator = random.Random(seed)
    for number in range(flips):
        yield f"random damage {number}", damaged(good, generator), ANY


@functools.cache
def all_keys() -> dict[str, Any]:
    """Return the default value of every configuration key."""
    cfg = get_cfg()
    add_ccsa_config(cfg)
    return all_values(cfg)
