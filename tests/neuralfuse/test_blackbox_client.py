"""The client of black boxes: its connections, and servers that are none or that lie."""

import threading
import time

import numpy as np
import pytest
from urllib3.util import connection

from faultsim import FaultsimError
from neuralfuse.blackbox import server, wire
from neuralfuse.blackbox.box import PythonCallable
from neuralfuse.blackbox.client import HttpEndpoint

DESCRIPTION = wire.Description("classifier", (3, 32, 32), 10, wire.Limits(batch=16))


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3, 32, 32)).astype(np.float32)


@pytest.fixture
def box() -> PythonCallable:
    return PythonCallable(lambda images: (images[:, 0, 0, 0] > 0).astype(int))


@pytest.fixture
def url(box) -> str:
    with server.serving(box, DESCRIPTION) as address:
        yield address


def test_connections_are_kept_and_broken_ones_made_anew(box, monkeypatch):
    made = []
    connect = connection.create_connection
    monkeypatch.setattr(connection, "create_connection", lambda *a, **k: made.append(a) or connect(*a, **k))
    with server.serving(box, DESCRIPTION) as url:
        endpoint = HttpEndpoint(url)
        for _ in range(5):
            endpoint.predict(pictures(1))
        assert len(made) == 1
    monkeypatch.setattr(server, "IDLE_SECONDS", 0)
    with server.serving(box, DESCRIPTION) as url:
        endpoint = HttpEndpoint(url)
        for _ in range(3):
            time.sleep(0.1)
            assert endpoint.predict(pictures(1)).shape == (1,)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda images: np.zeros(len(images) + 1, np.int64), "answers"),
        (lambda images: np.zeros(len(images)), "answers no predictions"),
        (lambda images: np.full(len(images), -1), "classes count from 0"),
        (lambda images: np.zeros([len(images), 100_000], np.int64), "no black box would"),
    ],
)
def test_servers_that_lie_are_found_out(answer, words):
    liar = type("Liar", (), {"predict": staticmethod(answer)})()
    with server.serving(liar, DESCRIPTION) as url, pytest.raises(FaultsimError, match=words):
        HttpEndpoint(url).predict(pictures(2))


def test_wrong_images_do_not_leave_the_client(url):
    endpoint = HttpEndpoint(url)
    with pytest.raises(FaultsimError, match=r"takes images \[3, 32, 32\], not \[3, 8, 8\]"):
        endpoint.predict(pictures(1)[:, :, :8, :8].copy())
    with pytest.raises(FaultsimError, match="within"):
        endpoint.predict(3 * pictures(1))


@pytest.mark.parametrize("address", ["", "nonsense", "ftp://127.0.0.1", "http://[::1", "/tmp/x"])
def test_addresses_that_are_none(address):
    with pytest.raises(FaultsimError, match="is no address"):
        HttpEndpoint(address)


def test_who_is_not_there_or_no_black_box():
    with server.listen() as listener:
        silent = server.format_address(listener)
        with pytest.raises(FaultsimError, match="it took too long"):
            HttpEndpoint(silent, timeout=0.2)
    with pytest.raises(FaultsimError, match="no connection"):
        HttpEndpoint(silent)

    def answer(content: bytes) -> str:
        listener = server.listen()

        def once() -> None:
            connection, _ = listener.accept()
            with connection, listener:
                connection.recv(65536)
                connection.sendall(content)

        threading.Thread(target=once).start()
        return server.format_address(listener)

    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: "
    with pytest.raises(FaultsimError, match="is no black box: it answers no JSON"):
        HttpEndpoint(answer(head + b"2\r\n\r\nhi"))
    with pytest.raises(FaultsimError, match="is no black box: it doesn't describe itself"):
        HttpEndpoint(answer(head + b"2\r\n\r\n{}"))
    with pytest.raises(FaultsimError, match="no black box would"):
        HttpEndpoint(answer(head + b"900000\r\n\r\n" + b"x" * 900_000))
    with pytest.raises(FaultsimError, match="answers 302"):
        HttpEndpoint(
            answer(b"HTTP/1.1 302 Found\r\nLocation: http://example.org/\r\nContent-Length: 0\r\n\r\n")
        )
