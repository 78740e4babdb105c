"""Tests of the documents: the site builds, links resolve, and quoted commands exist.

The site is built once, with ``--strict``, into a temporary folder.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "docs/api/*.md", "configs/**/README.md", "tools/*.md")
    for path in ROOT.glob(pattern)
)
CURRENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # it also names old files
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE_CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\(([^)\s]+)\)")
PLACEHOLDER = re.compile(r"[$<>*{}]|\.\.\.|\b[A-Z]{3,}")  # $name, <config>, *.yaml, FILE.yaml


def of_document(paths: list[Path]) -> pytest.MarkDecorator:
    """Return the parametrization of a test over documents."""
    names = [str(path.relative_to(ROOT)) for path in paths]
    return pytest.mark.parametrize("document", paths, ids=names)


def without_code(text: str) -> str:
    return INLINE_CODE.sub("", FENCE.sub("", text))


def code(text: str) -> str:
    """Return all code of a document, one command per line."""
    blocks = [block for _, block in FENCE.findall(text)]
    inline = INLINE_CODE.findall(FENCE.sub("", text))
    return "\n".join(blocks + inline).replace("\\\n", " ")


def fenced(path: Path, language: str) -> list[str]:
    return [block for name, block in FENCE.findall(path.read_text("utf-8")) if name == language]


class PageParser(HTMLParser):
    """Collects the ids of a page, its links, and everything that a browser loads with it."""

    def __init__(self, text: str):
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.ids.update(values[key] for key in ("id", "name") if values.get(key))
        if tag == "a" and values.get("href"):
            self.links.append(values["href"])
        elif tag == "link" and values.get("rel") != "canonical" and values.get("href"):
            self.loaded.append(values["href"])
        elif values.get("src"):
            self.loaded.append(values["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """Build the site once and return its folder."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}  # an announcement of the theme
    run = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, PageParser]:
    return {path: PageParser(path.read_text("utf-8")) for path in site.rglob("*.html")}


def test_every_document_is_a_page_of_the_site(site):
    for path in DOCUMENTS:
        relative = path.relative_to(ROOT)
        if relative.parts[0] == "docs":
            page = relative.relative_to("docs")
        else:
            page = relative if len(relative.parts) == 1 else Path("source", relative)
        page = page.with_suffix(".html")
        if page.name == "README.html":
            page = page.with_name("index.html")
        assert (site / page).is_file(), page


def test_links_and_anchors_of_the_site_resolve(site, pages):
    broken = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are absolute, for a server
            continue
        for link in page.links + page.loaded:
            url = urlsplit(link)
            if url.scheme or url.netloc:
                continue
            target = (path.parent / unquote(url.path)).resolve() if url.path else path
            if target.is_dir():
                target /= "index.html"
            anchor = unquote(url.fragment)
            known = not anchor or target not in pages or anchor in pages[target].ids
            if not target.is_file() or not known:
                broken.append(f"{path.relative_to(site)}: {link}")
    assert not broken, broken


def test_the_site_loads_nothing_from_other_hosts(site, pages):
    external = [url for page in pages.values() for url in page.loaded if urlsplit(url).netloc]
    assert not external, external
    styles = "".join(path.read_text("utf-8") for path in site.rglob("*.css"))
    assert not re.findall(r"(?:@import|url\()\s*[\"']?https?:", styles)


@of_document(DOCUMENTS)
def test_links_name_files_of_the_repository(document):
    links = LINK.findall(without_code(document.read_text("utf-8")))
    paths = [link.partition("#")[0] for link in links if not urlsplit(link).scheme]
    missing = [path for path in paths if not (document.parent / path).exists()]
    assert not missing, missing


@of_document(CURRENT)
def test_quoted_commands_name_files_and_targets_that_exist(document):
    text = code(document.read_text("utf-8"))
    files = re.findall(r"\b(?:python|sh) ((?:tools|tests)/[\w/.]+)", text)
    files += re.findall(r"--config-file[ =](\S+\.ya?ml)", text)
    files += re.findall(r"(?<![\w/.-])configs/[\w/.$<>*{}-]+\.yaml", text)
    missing = [name for name in files if not (PLACEHOLDER.search(name) or (ROOT / name).exists())]

    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    missing += [
        f"make {name}"
        for name in re.findall(r"^make ([\w-]+)", text, re.MULTILINE)
        if name not in targets
    ]
    missing += [
        f"python -m {name}"
        for name in re.findall(r"python -m ((?:benchmarks|experiments|ccsa)[\w.]*)", text)
        if importlib.util.find_spec(name) is None
    ]
    overlays = {path.stem for path in ROOT.glob("configs/overlays/*")}
    for names in re.findall(r"--with[ =]([\w,]+)", text):
        missing += [
            f"--with {name}"
            for name in names.split(",")
            if name not in overlays and not re.fullmatch(r"[A-Z]+", name)
        ]
    assert not missing, missing


@of_document(CURRENT)
def test_quoted_commands_use_options_that_exist(document):
    import detectron2.engine.defaults

    shared = "".join(path.read_text("utf-8") for path in ROOT.glob("projects/ccsa/engine/*.py"))
    parser = Path(detectron2.engine.defaults.__file__).read_text("utf-8")
    unknown = []
    commands = r"python (?:(tools/\w+\.py)|-m ((?:benchmarks|experiments)[\w.]*))([^\n#;]*)"
    for tool, module, words in re.findall(commands, code(document.read_text("utf-8"))):
        path = ROOT / (tool or module.replace(".", "/"))
        if not path.exists():
            path = path.with_suffix(".py")
        source = (path / "__main__.py" if path.is_dir() else path).read_text("utf-8") + shared
        if "default_argument_parser" in source:
            source += parser
        options = re.findall(r"(?<!\S)--[a-z][\w-]*", words)
        unknown += [f"{path.name} {name}" for name in options if f'"{name}"' not in source]
    assert not unknown, unknown


def test_quoted_overlays_fit_their_configurations():
    from ccsa.engine import setup_cfg

    text = "\n".join(code(document.read_text("utf-8")) for document in CURRENT)
    commands = re.findall(r"--config-file (\S+\.yaml)((?: +--with [\w,]+)+)", text)
    assert commands
    for file, overlays in commands:
        if not PLACEHOLDER.search(file):
            names = overlays.split()[1::2]
            args = {"config_file": str(ROOT / file), "overlays": names, "opts": []}
            setup_cfg(argparse.Namespace(**args))


@of_document(CURRENT)
def test_quoted_configuration_keys_exist(document):
    from detectron2.config import CfgNode, get_cfg

    from ccsa import add_ccsa_config

    cfg = get_cfg()
    add_ccsa_config(cfg)
    unknown = []
    pattern = r"\b(?:MODEL|INPUT|SOLVER|TEST|DATASETS|DATALOADER)(?:\.[A-Z][A-Z0-9_]*)+\b"
    for key in re.findall(pattern, code(document.read_text("utf-8"))):
        node = cfg
        for part in key.split("."):
            node = node.get(part) if isinstance(node, CfgNode) else None
        if node is None:
            unknown.append(key)
    assert not unknown, unknown


def test_the_readme_is_a_hub():
    text = README.read_text("utf-8")
    assert len(text.splitlines()) < 120
    for command in ("make train", "make test", "make far-cue", "make benchmark", "make docs"):
        assert command in text


def test_python_of_the_readme_needs_only_torch(tmp_path):
    """As the README says; test_torch_only.py tests the names that it imports."""
    script = ROOT / "tests/support/torch_only.py"
    example = "\n".join(fenced(README, "python"))
    env = {**os.environ, "PYTHONPATH": str(ROOT / "projects")}
    command = [sys.executable, str(script), "none", example]
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_python_of_the_readme_runs():
    examples = fenced(README, "python")
    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})


def test_yaml_of_the_readme_inserts_its_blocks():
    torch = pytest.importorskip("torch")
    from detectron2.config import CfgNode
    from detectron2.modeling import build_model
    from yaml import safe_load

    from ccsa.engine import setup_cfg
    from ccsa.insertion import context_blocks

    examples = fenced(README, "yaml")
    assert examples
    for example in examples:
        args = CfgNode({"config_file": str(ROOT / "configs/mask_rcnn.yaml"), "opts": []})
        cfg = setup_cfg(args).clone()
        cfg.defrost()
        cfg.merge_from_other_cfg(CfgNode(safe_load(example)))
        cfg.MODEL.DEVICE = "meta"
        with torch.device("meta"):
            model = build_model(cfg)
        assert len(list(context_blocks(model))) >= len(cfg.MODEL.CONTEXT.BLOCKS) > 0


@pytest.mark.parametrize(
    "document", ["CONTRIBUTING.md", "docs/INSERTION.md", "docs/OPS.md", "docs/QUICK_START.md"]
)
def test_python_of_the_documents_runs(document, tmp_path):
    """The examples of one document run one after the other, and then the tests among them."""
    script = tmp_path / "examples.py"
    examples = "\n\n".join(fenced(ROOT / document, "python"))
    calls = "\n".join(f"{name}()" for name in re.findall(r"^def (test_\w+)", examples, re.M))
    script.write_text(f"{examples}\n\n{calls}\n", encoding="utf-8")
    run = subprocess.run([sys.executable, str(script)], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_examples_and_references_of_docstrings_are_rendered(site):
    """A doctest outside "Examples:" becomes a quotation, and a Sphinx role stays as it is."""
    for path in (site / "api").glob("*.html"):
        text = path.read_text("utf-8")
        assert "<blockquote>" not in text, path
        assert not re.search(r":(class|func|mod|meth):", text), path


@of_document(DOCUMENTS)
def test_lists_and_tables_are_written_for_both_renderers(document):
    """Python-Markdown, unlike GitHub, needs four spaces for a nested list, and an empty line before
    a list or table."""
    text = FENCE.sub("", document.read_text("utf-8"))
    item = r"(?:[*-]|1\.) "
    assert not re.findall(rf"^ {{1,3}}{item}.*", text, re.MULTILINE)
    paragraph = r"^(?![*|#<]|- |\d+\. |\s).+\n"
    assert not re.findall(rf"{paragraph}(?:{item}|\|).*", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("report", "numbers"),
    [
        ("FAR_CUE.md", ["0.29", "0.46", "1.00"]),
        ("RESULTS.md", ["46.5", "58.7", "45.4", "41.0"]),
        ("BENCHMARKS.md", ["1374", "97", "14.2"]),
    ],
)
def test_numbers_of_the_readme_are_those_of_the_reports(report, numbers):
    text = (ROOT / "docs" / report).read_text("utf-8")
    readme = README.read_text("utf-8").replace(",", "")
    for number in numbers:
        assert re.search(rf"\b{number}\b", readme), number
        assert re.search(rf"\|[ *]*{number}\b", text), number
