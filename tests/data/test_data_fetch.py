"""Fetching, against a real HTTP server on the loopback interface."""

import builtins
import hashlib
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from faultsim.cli import main
from faultsim.data import cifar, gtsrb, load
from faultsim.data.fetch import Archive, fetch
from faultsim.errors import FaultsimError


class Server(ThreadingHTTPServer):
    """Serves `content` at every path. `cut`: closes the connection after that many bytes."""

    content = b""
    cut = None
    status = 200
    requests = 0
    address_family = 2  # IPv4

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.requests += 1
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content[: self.server.cut])

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.02,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def offered(server, file: str, content: bytes) -> Archive:
    server.content = content
    return Archive(file, server.base, hashlib.md5(content).hexdigest())


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_fetched_once_and_then_read_from_the_cache(make_cifar, tmp_path, server, monkeypatch, name):
    made = make_cifar(name, False)
    content = made.write_archive(tmp_path).read_bytes()
    assert cifar.OFFICIAL[name].file == made.archive
    monkeypatch.setitem(cifar.OFFICIAL, name, offered(server, made.archive, content))
    cache = tmp_path / "cache"
    for split in ("test", "train", "test"):
        dataset = load(name, split, cache_dir=cache)
        assert torch.equal(dataset.images.reshape(-1, 3072), torch.from_numpy(made.pixels[split]))
    assert server.requests == 1
    assert [path.name for path in cache.iterdir()] == [made.archive]

    (cache / made.archive).write_bytes(content[:1000])  # a cache that was damaged is fetched again
    assert len(load(name, "test", cache_dir=cache)) == 20
    assert server.requests == 2


def test_gtsrb_is_fetched(gtsrb_archives, tmp_path, server, monkeypatch):
    made, archive = gtsrb_archives
    monkeypatch.setattr(gtsrb, "GTSRB_TRAIN", offered(server, archive.name, archive.read_bytes()))
    dataset = load("gtsrb", "train", cache_dir=tmp_path / "cache")
    assert len(dataset) == len(made.train)
    assert dataset.groups.unique().numel() == 86


@pytest.fixture
def gtsrb_archives(gtsrb, tmp_path):
    path = tmp_path / "GTSRB_Final_Training_Images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(gtsrb.training.rglob("*")):
            archive.write(file, file.relative_to(gtsrb.root))
    return gtsrb, path


def test_the_log_says_once_what_is_being_fetched(tmp_path, server, caplog, capfd):
    archive = offered(server, "a.tar.gz", bytes(3_000_000))
    with caplog.at_level("INFO", "faultsim"):
        fetch(archive, tmp_path / "cache")
        fetch(archive, tmp_path / "cache")
    assert caplog.messages == [f"fetching {server.base}a.tar.gz (3 MB)"]
    assert capfd.readouterr() == ("", "")  # the library prints nothing


def test_the_command_line_says_what_is_being_fetched(tmp_path, server, monkeypatch, capsys):
    archive = offered(server, "cifar-10-binary.tar.gz", bytes(3_000_000))
    monkeypatch.setitem(cifar.OFFICIAL, "cifar10", archive)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SystemExit, match="2"):  # it is no data set
        main(["evaluate", "--dataset", "cifar10", "--bit-error-rate", "0.01"])
    out, error = capsys.readouterr()
    assert (out, error.splitlines()[0]) == ("", f"fetching {server.base}cifar-10-binary.tar.gz (3 MB)")
    assert error.count("\n") == 2


def refused(archive, cache, reason):
    with pytest.raises(FaultsimError, match=reason) as caught:
        fetch(archive, cache)
    message = str(caught.value)
    assert message.startswith(f"could not fetch {archive.base}{archive.file}: ")
    assert "--data-dir" in message
    assert "\n" not in message
    assert not cache.exists() or list(cache.iterdir()) == []  # nothing half-done stays behind


def test_a_wrong_checksum_is_refused(tmp_path, server):
    archive = offered(server, "a.tar.gz", b"genuine")
    server.content = b"altered"
    refused(archive, tmp_path / "cache", "hash|checksum")


def test_a_broken_connection_is_refused(tmp_path, server):
    archive = offered(server, "a.tar.gz", bytes(3 << 20))
    server.cut = 2 << 20
    refused(archive, tmp_path / "cache", "broke off")


def test_a_shorter_file_with_the_right_length_header_is_refused(tmp_path, server):
    archive = offered(server, "a.tar.gz", bytes(1000))
    server.content = bytes(999)
    refused(archive, tmp_path / "cache", "hash|checksum")


def test_a_page_that_is_not_there(tmp_path, server):
    archive = offered(server, "a.tar.gz", b"not here")
    server.status = 404
    refused(archive, tmp_path / "cache", "404")


def test_no_network(tmp_path, server, capfd):
    archive = offered(server, "a.tar.gz", b"content")
    closed = Archive(archive.file, "http://127.0.0.1:9/", archive.md5)  # the discard port: nobody listens
    refused(closed, tmp_path / "cache", "no connection")
    assert capfd.readouterr() == ("", "")  # the error is the only line


def test_a_cache_folder_that_cannot_be_written(tmp_path, server):
    archive = offered(server, "a.tar.gz", b"content")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FaultsimError, match=r"could not fetch .*--data-dir"):
        fetch(archive, tmp_path / "file" / "cache")


def test_without_pooch(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "pooch":
            raise ModuleNotFoundError("No module named 'pooch'", name="pooch")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        FaultsimError, match=r"needs the package pooch: pip install .faultsim\[data\]., or .*--data-dir"
    ):
        fetch(Archive("a", "http://127.0.0.1:9/", "0"), tmp_path)
