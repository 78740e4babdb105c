"""The check of MODEL.WEIGHTS before a run starts."""

import http.server
import threading
import time
import urllib.request

import pytest
from support.refusals import message

from ccsa.engine.weights import check_weights


def test_no_weights_are_fine():
    check_weights("")


def test_weights_that_are_there_are_fine(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"x")
    check_weights(str(tmp_path / "w.pth"))


def test_weights_of_timm_are_its_own_or_a_file(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"x")
    check_weights(f"timm://{tmp_path}/w.safetensors")
    check_weights("timm://hub")
    text = message(check_weights, "timm://nowhere/w.pth")
    assert text.startswith("weights nowhere/w.pth do not exist")


@pytest.mark.parametrize(
    ("name", "what"), [("nowhere/model.pth", "do not exist"), (".", "is a folder")]
)
def test_weights_that_are_not_there_are_named_with_the_cure(name, what):
    text = message(check_weights, name)
    assert f"weights {name} {what}" in text
    assert "MODEL.WEIGHTS" in text and 'MODEL.WEIGHTS ""' in text


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FVCORE_CACHE", str(tmp_path / "cache"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path / "cache"


@pytest.fixture
def server():
    """Start a web server with one file, /w.pth; yields its address and a list of the requests."""
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.command, self.path))
            self.send_response(200 if self.path == "/w.pth" else 404)
            self.send_header("Content-Length", "7")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"weights")

        do_HEAD = do_GET

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:9/w.pth", "https://nowhere.invalid/w.pth", "detectron://MSRA/R-50.pkl"],
)
def test_an_address_that_cannot_be_reached_is_told_at_once(cache, address):
    start = time.perf_counter()
    text = message(check_weights, address)
    assert address in text and "cannot be fetched" in text and 'MODEL.WEIGHTS ""' in text
    assert time.perf_counter() - start < 5


def test_an_address_without_the_file_is_told(cache, server):
    text = message(check_weights, f"{server[0]}/other.pth")
    assert f"{server[0]}/other.pth" in text and "Not Found" in text
    assert not list(cache.rglob("*.pth"))


def test_weights_at_an_address_are_fetched_once(cache, server):
    address, asked = server
    check_weights(f"{address}/w.pth")
    assert [p.read_bytes() for p in cache.rglob("w.pth")] == [b"weights"]
    count = len(asked)
    check_weights(f"{address}/w.pth")
    assert len(asked) == count


def test_detectron2s_own_addresses_are_asked_with_a_time_limit(cache, monkeypatch):
    asked = []

    def urlopen(request, *args, timeout=None, **kwargs):
        asked.append((getattr(request, "full_url", request), timeout))
        raise OSError("no network")

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    weights = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    text = message(check_weights, weights)
    assert weights in text and "no network" in text
    (address, timeout), *rest = asked
    assert address.startswith("https://dl.fbaipublicfiles.com/") and address.endswith("R-50.pkl")
    assert timeout is not None and timeout <= 4 and not rest
