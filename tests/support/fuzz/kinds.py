"""The kinds of attempts: which input is mutated, and which tool reads it."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

from support.fuzz import calls, settings
from support.fuzz.images import damage_one
from support.fuzz.runner import Attempt
from support.fuzz.settings import ANY, REJECT
from support.fuzz.values import mutate_annotations, mutate_file
from support.fuzz.weights import damage_safetensors, damage_weights
from support.fuzz.world import DATA, World

Kind = Callable[[World, Path, random.Random], Attempt]
KINDS: dict[str, Kind] = {}
SPLITS = ("train", "val")


def kind(name: str) -> Callable[[Kind], Kind]:
    """Register a kind of attempts."""

    def register(function: Kind) -> Kind:
        KINDS[name] = function
        return function

    return register


def _data(world: World, folder: Path, rng: random.Random, names: tuple[str, ...] = DATA) -> str:
    name = rng.choice(names)
    shutil.copytree(world.data(name), folder / "data")
    return name


def _train(world: World, name: str) -> list[object]:
    return ["--config-file", world.config(name), "--data", "data", "OUTPUT_DIR", "out"]


def _copy_run(world: World, folder: Path, name: str) -> None:
    shutil.copytree(world.run(name), folder / "run")


# Annotations
WITH_FILES = tuple(name for name in DATA if name not in ("instance_labels", "class_masks"))


@kind("annotations, check_dataset")
def _(world: World, folder: Path, rng: random.Random) -> Attempt:
    name = _data(world, folder, rng, WITH_FILES)
    what = mutate_annotations(folder / "data", rng)
    words = ["--data", "data", "--json", "out"]
    if rng.random() < 0.3:
        words = ["--data", "data", "--preview", "out.png", "--config-file", world.config(name)]
    return Attempt("check_dataset", words, folder, f"{name}: {what}", ANY, ("out", "out.png"))


@kind("annotations, train_net")
def _(world: World, folder: Path, rng: random.Random) -> Attempt:
    name = _data(world, folder, rng, WITH_FILES)
    what = mutate_annotations(folder / "data", rng)
    return Attempt("train_net", _train(world, name), folder, f"{name}: {what}", ANY)


# Images and labels
def _pictures(tool: str) -> Kind:
    def make(world: World, folder: Path, rng: random.Random) -> Attempt:
        name = _data(world, folder, rng)
        parts = sorted(
            p for p in (folder / "data").rglob("*") if p.is_dir() and list(p.glob("*.png"))
        )
        what, verdict = damage_one(rng.choice(parts), rng)
        words = _train(world, name) if tool == "train_net" else ["--data", "data", "--json", "out"]
        # A damaged image may be left out, with a row in the table.
        mention = Path(what.partition(":")[0]).stem if verdict == REJECT else ""
        return Attempt(tool, words, folder, f"{name}: {what}", ANY, mention=mention)

    return make


kind("images and labels, check_dataset")(_pictures("check_dataset"))
kind("images and labels, train_net")(_pictures("train_net"))


@kind("images, demo")
def _(world: World, folder: Path, rng: random.Random) -> Attempt:
    name = rng.choice(("class_masks", "coco_mixed", "coco_panoptic"))
    images = folder / "images"
    images.mkdir()
    source = sorted((world.data(name) / "val").glob("*.png"))[0]
    shutil.copy(source, images / "a.png")
    what, verdict = damage_one(images, rng)
    if rng.random() < 0.4:  # one such file must not end the whole folder
        shutil.copy(source, images / "b.png")
        verdict = ANY
    words = ["--weights", world.run(name), "--input", "images", "--output", "out"]
    return Attempt("demo", words, folder, f"{name}: {what}", verdict)


@kind("images, explore")
def _(world: World, folder: Path, rng: random.Random) -> Attempt:
    (folder / "images").mkdir()
    shutil.copy(
        sorted((world.data("class_masks") / "val").glob("*.png"))[0], folder / "images/a.png"
    )
    what, verdict = damage_one(folder / "images", rng)
    words = ["--weights", world.run("class_masks"), "--input", "images", "--output", "out.html"]
    return Attempt("explore", [*words, "--no-check"], folder, what, verdict, ("out.html",))


# Weights
@kind("weights")
def _(world: World, folder: Path, rng: random.Random) -> Attempt:
    name = rng.choice(("class_masks", "coco_mixed", "coco_panoptic"))
    file = folder / "weights.pth"
    shutil.copy(world.run(name) / "model_final.pth", file)
    if rng.random() < 0.2:
        what, verdict = damage_safetensors(file, rng)
        file = file.with_suffix(".safetensors")
    else:
        what, verdict = damage_weights(file, rng)
    config = ["--config-file", world.run(name) / "config.yaml"]
    image = sorted((world.data(name) / "val").glob("*.png"))[0]
    tool = rng.choice(("demo", "train_net", "eval", "export_model", "convert_weights", "explore"))
    owned = ("out", "out.pt", "out.html", "out.safetensors")
    words: list[object] = {
        "demo": [*config, "--weights", file.name, "--input", image, "--output", "out"],
        "train_net": [*_train(world, name), "MODEL.WEIGHTS", file.name],
        "eval": ["--eval-only", *_train(world, name), "MODEL.WEIGHTS", file.name],
        "export_model": [
            *config,
            "--weights",
            file.name,
            "--format",
            "torchscript",
            "--output",
            "out.pt",
        ],
        "convert_weights": [
            "--source",
            "ccsa",
            "--input",
            file.name,
            "--output",
            "out.safetensors",
        ],
        "explore": [*config, "--weights", file.name, "--input", image, "--output", "out.html"],
    }[tool]
    if tool in ("train_net", "eval"):
        (folder / "data").symlink_to(world.data(name))
    if tool in ("explore",):
        words = [*words, "--no-check"]
    # Training starts from what fits, and the log lists the rest; a conversion knows no model.
    known = tool not in ("convert_weights", "train_net") or not what.endswith(": no elements")
    tool = "train_net" if tool == "eval" else tool
    return Attempt(tool, words, folder, f"{name}: {what}", verdict if known else ANY, owned)


@kind("checkpoints, --resume")
def _(world: World, folder: Path, rng: random.Random) -> Attempt:
    name = rng.choice(("class_masks", "coco_mixed"))
    shutil.copytree(world.run(name), folder / "out")
    (folder / "data").symlink_to(world.data(name))
    file = rng.choice(
        ["model_final.pth", "model_final.pth", "last_checkpoint", "config.yaml", "metrics.json"]
    )
    if file == "model_final.pth":
        what, _ = damage_weights(folder / "out" / file, rng)
    else:
        path = folder / "out" / file
        path.write_bytes(settings.damaged(path.read_bytes(), rng))
        what = "random damage"
    words = ["--resume", *_train(world, name), "SOLVER.MAX_ITER", 2]
    return Attempt("train_net", words, folder, f"{file}: {what}", ANY)


# Configurations, options and results
@kind("configurations")
def _(world: World, folder: Path, rng: random.Random) -> Attempt:
    name = rng.choice(("class_masks", "coco_mixed", "coco_panoptic"))
    files = rng.choice(list(settings.config_files(str(world.config(name)), rng.random())))
    for file, content in files.files.items():
        (folder / file).write_bytes(content)
    (folder / "data").symlink_to(world.data(name))
    tool = rng.choice(("train_net", "analyze_model", "demo"))
    owned = ("out",)
    words: list[object] = {
        "train_net": ["--config-file", "main.yaml", "--data", "data", "OUTPUT_DIR", "out"],
        "analyze_model": ["--config-file", "main.yaml", "--size", "64x64"],
        "demo": [
            *("--config-file", "main.yaml", "--weights", world.run(name) / "model_final.pth"),
            *("--input", "data/val", "--output", "out"),
        ],
    }[tool]
    verdict = files.verdict if tool == "train_net" else {REJECT: REJECT}.get(files.verdict, ANY)
    return Attempt(tool, words, folder, files.name, verdict, owned)


def _call(tool: str) -> Kind:
    def make(world: World, folder: Path, rng: random.Random) -> Attempt:
        data = world.data("class_masks")
        train = ["--config-file", world.config("class_masks"), "--data", data]
        words = {
            "train_net": [*train, "OUTPUT_DIR", "out"],
            "demo": ["--weights", "run", "--output", "drawn", "--input", data / "val"],
            "compare_runs": ["--no-cost", "run"],
            "analyze_model": ["--config-file", world.config("class_masks"), "--size", "64x64"],
            "check_dataset": ["--data", data],
        }[tool]
        keys = settings.all_keys() if tool in ("train_net", "demo", "analyze_model") else {}
        case = rng.choice(calls.cases(tool, keys, seed=rng.randrange(10**6), count=50))
        call = calls.Call(tool, words, folder / "call", world.run("class_masks"))
        case.mutate(call)
        owned = ("out", "drawn", "file", "x.nothing", "x", "output", "folder")
        return Attempt(tool, call.words, call.folder, case.name, case.verdict, owned)

    return make


for name in calls.OPTIONS:
    kind(f"options and keys, {name}")(_call(name))


@kind("results, compare_runs")
def _(world: World, folder: Path, rng: random.Random) -> Attempt:
    _copy_run(world, folder, "class_masks")
    what, content, verdict = rng.choice(list(settings.results_files(rng.random())))
    (folder / "run" / "results.json").write_bytes(content)
    return Attempt("compare_runs", ["run", "--no-cost"], folder, what, verdict)


@kind("folders of runs")
def _(world: World, folder: Path, rng: random.Random) -> Attempt:
    name = rng.choice(("class_masks", "coco_mixed", "coco_panoptic"))
    _copy_run(world, folder, name)
    files = sorted(
        f for f in (folder / "run").rglob("*") if f.is_file() and not f.name.startswith("events")
    )
    file = rng.choice(files)
    action = rng.choice(("removed", "damaged", "a folder", "empty"))
    if action == "damaged":
        file.write_bytes(settings.damaged(file.read_bytes(), rng))
    else:
        file.unlink()
        if action == "a folder":
            file.mkdir()
        elif action == "empty":
            file.touch()
    tool = rng.choice(("demo", "compare_runs", "explore", "export_model", "report", "report"))
    image = sorted((world.data(name) / "val").glob("*.png"))[0]
    owned = ("out", "out.pt", "out.html")
    words: list[object] = {
        "demo": ["--weights", "run", "--input", image, "--output", "out"],
        "compare_runs": ["run", "--no-cost"],
        "report": ["run", "--output", "out.html"],
        "explore": ["--weights", "run", "--input", image, "--output", "out.html", "--no-check"],
        "export_model": ["--weights", "run", "--format", "torchscript", "--output", "out.pt"],
    }[tool]
    return Attempt(tool, words, folder, f"{name}: {file.name} {action}", ANY, owned)


# Panoptic files
@kind("panoptic files, evaluate_panoptic")
def _(world: World, folder: Path, rng: random.Random) -> Attempt:
    _data(world, folder, rng, ("coco_panoptic",))
    shutil.copytree(folder / "data", folder / "predicted")
    part = folder / rng.choice(("data", "predicted"))
    if rng.random() < 0.6:
        mutate_file(part / "panoptic_val.json", rng)
        what = "JSON"
    else:
        what, _ = damage_one(part / "panoptic_val", rng)
    words = ["--gt-json", "data/panoptic_val.json", "--gt-dir", "data/panoptic_val"]
    words += ["--pred-json", "predicted/panoptic_val.json", "--pred-dir", "predicted/panoptic_val"]
    return Attempt(
        "evaluate_panoptic", [*words, "--output", "out"], folder, f"{part.name}: {what}", ANY
    )


@kind("panoptic files, prepare_dataset")
def _(world: World, folder: Path, rng: random.Random) -> Attempt:
    root = folder / "root" / "coco"
    (root / "annotations").mkdir(parents=True)
    for split in SPLITS:
        source = world.data("coco_panoptic")
        shutil.copytree(source / split, root / f"{split}2017")
        shutil.copytree(source / f"panoptic_{split}", root / f"panoptic_{split}2017")
        shutil.copy(
            source / f"panoptic_{split}.json", root / f"annotations/panoptic_{split}2017.json"
        )
    if rng.random() < 0.6:
        what = mutate_annotations(root, rng)
    else:
        what, _ = damage_one(root, rng)
    words = ["coco_panoptic", "--root", "root"]
    return Attempt("prepare_dataset", words, folder, what, ANY, (), adds=True)
