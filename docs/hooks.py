"""MkDocs hooks: give every file of the repository that a document links to a page on the site.

Documents link to files outside ``docs/`` (``../configs/ccnet_mask_rcnn.yaml``), so that the links
work in a checkout. MkDocs only knows the files in ``docs/``. These hooks add the other files as
pages and rewrite the links:

* README.md becomes the start page; CHANGELOG.md, CONTRIBUTING.md and the other Markdown files at
  the root become pages of the same name.
* A Markdown file in another folder keeps its path below ``source/``.
* Any other file becomes a page that shows its text; a folder becomes its README.md, or a list of
  its files.

A link to a file that does not exist is left as it is, and ``mkdocs build --strict`` reports it.
"""

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
START_PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "THIRD_PARTY.md", "configs", "tools")
LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".toml": "toml", ".sh": "sh"}
NOT_LISTED = ("__pycache__", ".egg-info")
LARGEST_SHOWN = 200_000  # bytes
LINK = re.compile(r"(?<=\]\()[^)\s]+(?=\))")
FENCE = re.compile(r"^\s*(```|~~~)")

_sources: dict[str, PurePosixPath] = {}  # page -> file of the repository that it shows


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for every file outside ``docs/`` that can be reached by links."""
    _sources.clear()
    docs = PurePosixPath(Path(config.docs_dir).relative_to(ROOT).as_posix())
    waiting = [PurePosixPath(name) for name in START_PAGES]
    for file in files.documentation_pages():
        _sources[file.src_uri] = docs / file.src_uri
        waiting += _linked_files(docs / file.src_uri, file.content_string)
    while waiting:
        path = _with_readme(waiting.pop())
        page = _page_of(path)
        if page in _sources or path.is_relative_to(docs) or not (ROOT / path).exists():
            continue
        _sources[page] = path
        content = _content_of(path)
        files.append(File.generated(config, page, content=content))
        waiting += _linked_files(path, content)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite the links of one page from paths in the repository to pages of the site."""
    source = _sources[page.file.src_uri]
    folder = str(PurePosixPath(page.file.src_uri).parent)

    def site_link(match: re.Match[str]) -> str:
        path, anchor = _resolve(source, match.group())
        if path is None or not (ROOT / path).exists():
            return match.group()
        target = _page_of(_with_readme(path))
        return os.path.relpath(target, folder) + (f"#{anchor}" if anchor else "")

    return "\n".join(
        text if is_code else LINK.sub(site_link, text) for text, is_code in _lines(markdown)
    )


def _page_of(path: PurePosixPath) -> str:
    """Return the page, a path below ``docs/``, that shows a file of the repository."""
    if path.parts[:1] == ("docs",):
        return str(path.relative_to("docs"))
    if path == PurePosixPath("README.md"):
        return "index.md"
    if path.suffix == ".md":
        return str(path) if len(path.parts) == 1 else f"source/{path}"
    return f"source/{path}/index.md" if (ROOT / path).is_dir() else f"source/{path}.md"


def _with_readme(path: PurePosixPath) -> PurePosixPath:
    """Return the README.md of a folder that has one; any other path is returned unchanged."""
    return path / "README.md" if (ROOT / path / "README.md").exists() else path


def _content_of(path: PurePosixPath) -> str:
    """Return the Markdown of a page that shows the file or folder ``path``."""
    if (ROOT / path).is_dir():
        names = sorted(
            file.name + "/" * file.is_dir()
            for file in (ROOT / path).iterdir()
            if not file.name.startswith(".") and not file.name.endswith(NOT_LISTED)
        )
        return f"# {path}\n\n" + "\n".join(f"* [{name}]({name})" for name in names)
    data = (ROOT / path).read_bytes()
    if len(data) > LARGEST_SHOWN or b"\0" in data:
        return f"# {path}\n\nThis file of {len(data):,} bytes is not shown."
    text = data.decode("utf-8")
    if path.suffix == ".md":
        return text
    language = LANGUAGES.get(path.suffix, "text")
    return (
        f"---\ntitle: {path.name}\nsearch:\n  exclude: true\n---\n\n# {path}\n\n"
        f"~~~~~~ {language}\n{text}\n~~~~~~\n"
    )


def _linked_files(source: PurePosixPath, markdown: str) -> list[PurePosixPath]:
    """Return the files of the repository that a document links to."""
    links = [
        match for text, is_code in _lines(markdown) if not is_code for match in LINK.findall(text)
    ]
    return [path for path, _ in (_resolve(source, link) for link in links) if path is not None]


def _resolve(source: PurePosixPath, link: str) -> tuple[PurePosixPath | None, str]:
    """Return the file that a link in ``source`` names, or None, and the anchor in that file."""
    target, _, anchor = link.partition("#")
    if not target or ":" in target or target.startswith("/"):
        return None, anchor
    folder = source if (ROOT / source).is_dir() else source.parent
    path = os.path.normpath(folder / target)
    return (None if path.startswith("..") else PurePosixPath(path)), anchor


def _lines(markdown: str) -> list[tuple[str, bool]]:
    """Return each line and whether it belongs to a fenced code block."""
    lines, fence = [], None
    for text in markdown.split("\n"):
        mark = FENCE.match(text)
        is_code = fence is not None or mark is not None
        if mark and fence in (None, mark.group(1)):
            fence = mark.group(1) if fence is None else None
        lines.append((text, is_code))
    return lines
