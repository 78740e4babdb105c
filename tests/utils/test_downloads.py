"""Downloads from servers on this machine: every address has a file of its own in the cache."""

import functools
import http.server
import threading
from pathlib import Path

import pytest
from detectron2.utils.file_io import PathManager

from ccsa.utils.downloads import cached_file


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder silently; a file named cut.pth is announced as larger than it is."""

    def log_message(self, *args):
        pass

    def send_header(self, keyword, value):
        if keyword == "Content-Length" and "cut" in self.path:
            value = str(int(value) + 7)
        super().send_header(keyword, value)


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Return a function that serves a file ``a.pth`` with a content, and returns the address."""
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    servers = []

    def start(content, name="a.pth"):
        folder = tmp_path / f"server{len(servers)}"
        folder.mkdir()
        (folder / name).write_text(content)
        handler = functools.partial(Handler, directory=folder)
        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/{name}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_the_host_is_a_part_of_the_key(serve):
    for content in ("one", "two"):
        address = serve(content)
        with open(PathManager.get_local_path(address)) as file:
            assert file.read() == content
        assert PathManager.get_local_path(address) == str(cached_file(address))


def test_a_file_is_downloaded_once(serve, tmp_path):
    address = serve("one")
    PathManager.get_local_path(address)
    (tmp_path / "server0" / "a.pth").write_text("another")
    assert Path(PathManager.get_local_path(address)).read_text() == "one"


def test_the_file_stays_in_the_cache(serve, tmp_path):
    address = serve("one")
    before = {path for path in tmp_path.rglob("*") if "cache" not in path.parts}
    for path in ("/../../../x.pth", "/..", "/%2e%2e/x.pth", "/.ssh"):
        file = cached_file(address.replace("/a.pth", path))
        assert file.resolve().is_relative_to(tmp_path / "cache") and file.name != ".."
    PathManager.get_local_path(address.replace("/a.pth", "/x/../a.pth"))
    assert {path for path in tmp_path.rglob("*") if "cache" not in path.parts} == before


def test_a_download_that_ends_early_leaves_no_file(serve):
    address = serve("one", "cut.pth")
    with pytest.raises(Exception, match=r"of 10 bytes arrived|more expected"):
        PathManager.get_local_path(address)
    folder = cached_file(address).parent
    assert [path.name for path in folder.iterdir() if path.suffix != ".lock"] == []
