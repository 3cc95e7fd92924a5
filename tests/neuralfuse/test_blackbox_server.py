"""The server of black boxes under real clients: many, wrong, huge and slow ones."""

import contextlib
import io
import json
import re
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
import urllib3

from faultsim import Chip, FaultModel, FaultsimError, bundled, load_weights, models
from faultsim.data import load, normalize
from neuralfuse import generators
from neuralfuse.blackbox import app, server, wire
from neuralfuse.blackbox.box import PythonCallable
from neuralfuse.blackbox.chip import ModelOnChip
from neuralfuse.blackbox.client import HttpEndpoint
from neuralfuse.blackbox.evaluation import evaluate_restricted

LIMITS = wire.Limits(batch=16, body=1 << 20, seconds=0.5)
DESCRIPTION = wire.Description("digits classifier", (3, 32, 32), 10, LIMITS)


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (count, 3, 32, 32)).astype(np.float32)


def digits(count: int, seed: int = 0) -> np.ndarray:
    """Some of the test images, in some order: a trained model answers differently to each."""
    test = load("digits", "test")
    chosen = torch.from_numpy(np.random.default_rng(seed).permutation(len(test))[:count])
    return normalize(test.images[chosen]).numpy()


@pytest.fixture(scope="module")
def box() -> ModelOnChip:
    network = models.create("DigitsNet")
    stored, _ = load_weights(network, bundled.WEIGHTS)
    return ModelOnChip(network, stored, Chip(5), bit_error_rate=0.02, faults=FaultModel())


@pytest.fixture(scope="module")
def url(box) -> str:
    with server.serving(box, DESCRIPTION) as address:
        yield address


@pytest.fixture
def pool() -> urllib3.PoolManager:
    with urllib3.PoolManager(retries=False, timeout=10) as made:
        yield made


def post(pool, url: str, body, media: str = wire.NPY, **headers: str):
    return pool.request("POST", f"{url}/predict", body=body, headers={"Content-Type": media, **headers})


@contextlib.contextmanager
def connected(url: str):
    """A bare connection, for clients that no library would be."""
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as made:
        yield made


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found = bytearray()
    while part := connection.recv(65536):
        found += part
    return bytes(found)


def test_it_describes_itself_and_nothing_more(url):
    found = HttpEndpoint(url).description
    assert found == DESCRIPTION
    told = urllib3.request("GET", url + "/").json()
    assert set(told) == {"name", "input", "classes", "limits", "predict"}


def test_many_clients_get_their_own_answers(url, box):
    asked = [[digits(size, 100 * client + size) for size in (1, 5, 16, 40)] for client in range(8)]
    expected = [
        [box.predict(images[i : i + 16]) for images in mine for i in range(0, len(images), 16)]
        for mine in asked
    ]

    def client(mine: list[np.ndarray]) -> np.ndarray:
        endpoint = HttpEndpoint(url)
        return np.concatenate([endpoint.predict(images) for images in mine])

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(client, asked))
    assert len({tuple(answers) for answers in found}) == 8
    for mine, theirs in zip(found, expected, strict=True):
        assert mine.dtype == np.int64
        assert mine.tolist() == np.concatenate(theirs).tolist()


def test_json_and_npy_say_the_same(url, box, pool):
    images = digits(4)
    answer = post(pool, url, json.dumps({"images": images.tolist()}), "application/json; charset=utf-8")
    assert (answer.status, answer.headers["Content-Type"]) == (200, wire.JSON)
    assert answer.json() == {"classes": box.predict(images).tolist()}
    answer = post(pool, url, wire.to_npy(images))
    assert (answer.status, answer.headers["Content-Type"]) == (200, wire.NPY)
    assert np.load(io.BytesIO(answer.data), allow_pickle=False).tolist() == box.predict(images).tolist()


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


# a header that promises 10**12 images, and no data
HUGE = wire.to_npy(pictures(1)).replace(b"(1, 3, 32, 32), }            ", b"(1000000000000, 3, 32, 32), }")[
    :200
]


@pytest.mark.parametrize(
    ("media", "body", "status", "words"),
    [
        (wire.NPY, b"", 400, "no .npy file"),
        (wire.NPY, b"\x93NUMPY\x01\x00", 400, "no .npy file"),
        (wire.NPY, npy(pictures(1))[:-1], 400, "holds 12,287 bytes"),
        (wire.NPY, npy(pictures(1)) + b"x", 400, "holds 12,289 bytes"),
        (wire.NPY, HUGE, 400, "[1000000000000, 3, 32, 32]"),
        (wire.NPY, npy(pictures(1).astype("f8")), 400, "<f8"),
        (wire.NPY, npy(pictures(1).astype(">f4")), 400, ">f4"),
        (wire.NPY, npy(np.array([print], object)), 400, "|O"),
        (wire.NPY, npy(np.asfortranarray(pictures(2))), 400, "Fortran"),
        (wire.NPY, npy(pictures(1)[0]), 400, "[B, 3, 32, 32]"),
        (wire.NPY, npy(pictures(2).reshape(2, 32, 32, 3)), 400, "not [2, 32, 32, 3]"),
        (wire.NPY, npy(pictures(0)), 400, "empty"),
        (wire.NPY, npy(pictures(17)), 400, "17 images are more than 16"),
        (wire.NPY, npy(2 * pictures(1)), 400, "within [-1, 1]"),
        (wire.NPY, npy(np.full_like(pictures(1), np.nan)), 400, "within [-1, 1]"),
        (wire.JSON, b"{", 400, "no JSON"),
        (wire.JSON, b"\xff\xfe", 400, "no JSON"),
        (wire.JSON, b"[" * 100_000, 400, "no JSON"),
        (wire.JSON, b"[]", 400, '{"images": [...]}'),
        (wire.JSON, b'{"images": [], "more": 1}', 400, '{"images": [...]}'),
        (wire.JSON, b'{"images": [[1], [1, 2]]}', 400, "equal lengths"),
        (wire.JSON, b'{"images": [["a"]]}', 400, "numbers"),
        (wire.JSON, b'{"images": 1e999}', 400, "1e999 is no finite number"),
        (wire.JSON, b'{"images": 1.5}', 400, "[B, 3, 32, 32]"),
        (wire.JSON, b'{"images": ["' + b"a" * 5000 + b'", "b"]}', 400, "numbers"),
        (wire.JSON, json.dumps({"images": np.full([1, 3, 32, 32], 1e300).tolist()}), 400, "within [-1, 1]"),
        (
            wire.JSON,
            json.dumps({"images": np.full([1, 3, 32, 32], np.nan).tolist()}),
            400,
            "NaN is no finite",
        ),
        ("text/plain", b"hello", 415, "application/x-npy"),
        ("application/octet-stream", npy(pictures(1)), 415, "application/x-npy"),
        ("application/x-www-form-urlencoded", b"a=b", 415, "application/x-npy"),
        ("", b"hello", 415, "application/x-npy"),
    ],
)
def test_bad_bodies_get_a_clear_answer(url, pool, media, body, status, words):
    answer = post(pool, url, body, media)
    assert answer.status == status
    assert answer.headers["Content-Type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]
    assert HttpEndpoint(url).predict(pictures(1)).shape == (1,)  # and life goes on


def test_encoded_bodies_are_not_unpacked(url, pool):
    answer = post(pool, url, b"anything", **{"Content-Encoding": "gzip"})
    assert answer.status == 415


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/predict", 405),
        ("PUT", "/predict", 405),
        ("POST", "/", 405),
        ("GET", "/weights", 404),
        ("POST", "/predict/more", 404),
    ],
)
def test_other_ways_lead_nowhere(url, pool, method, path, status):
    answer = pool.request(method, url + path)
    assert answer.status == status
    assert "there are only GET / and POST /predict" in answer.json()["error"]


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [LIMITS.body + 1, 40 << 20])
def test_large_bodies_are_cut_off(url, pool, chunked, size):
    body = bytes(size)
    if chunked:
        body = (bytes(65536) for _ in range(0, size, 65536))
    answer = post(pool, url, body)
    assert answer.status == 413
    assert "larger than 1,048,576 bytes" in answer.json()["error"]


@pytest.mark.parametrize("media", ["application/x-npy", "text/plain"])
def test_who_sends_everything_first_still_sees_the_refusal(url, media):
    body = bytes(20 << 20)
    with connected(url) as connection:
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {media}\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode())
        connection.sendall(body)  # would fail if the connection were closed at once
        answer = everything(connection)
    assert re.match(rb"HTTP/1.1 41[35] ", answer)
    assert b"\r\nconnection: close\r\n" in answer


def test_a_large_body_is_refused_before_it_is_sent(url):
    with connected(url) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\nExpect: 100-continue\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        answer = everything(connection)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in answer


def test_a_body_of_the_largest_size_is_taken(url, pool):
    body = json.dumps({"images": pictures(2).tolist()}).encode()
    answer = post(pool, url, body.ljust(LIMITS.body), wire.JSON)
    assert answer.status == 200


def test_slow_bodies_are_given_up_and_hold_up_nobody(url, box, monkeypatch):
    monkeypatch.setattr(app, "LINGER_SECONDS", 0.1)
    begin = time.monotonic()
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(connected(url)) for _ in range(4)]
        for connection in slow:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\n"
                b"Content-Length: 5000\r\n\r\n\x93NUMPY"
            )
        # others are served meanwhile
        assert HttpEndpoint(url).predict(digits(9)).tolist() == box.predict(digits(9)).tolist()
        for connection in slow:  # one byte now and then doesn't help
            time.sleep(0.05)
            connection.sendall(b"x")
        answers = [everything(connection) for connection in slow]
    assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in answers)
    assert all(b"took longer than 0.5 s" in answer for answer in answers)
    assert time.monotonic() - begin < 8


@pytest.mark.parametrize("start", [b"", b"POST /pre", b"POST /predict HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_slow_headers_are_given_up(url, monkeypatch, start):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
    with connected(url) as connection:
        begin = time.monotonic()
        closed = False
        while not closed and time.monotonic() - begin < 8:  # a byte at a time would last for ever
            try:
                connection.sendall(start[:1] or b"")
                start = start[1:] or start
                connection.settimeout(0.05)
                closed = connection.recv(100) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True
    assert closed


def test_a_slow_header_after_a_good_request_is_given_up(url, monkeypatch):
    monkeypatch.setattr(server, "HEADER_SECONDS", 0.3)
    with connected(url) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET ")
        time.sleep(0.1)
        connection.sendall(b"/ HT")
        begin = time.monotonic()
        assert everything(connection).count(b"HTTP/1.1 200") == 1
        assert time.monotonic() - begin < 8


def test_a_body_that_ends_early_harms_nobody(url, box):
    for _ in range(3):
        with connected(url) as connection:
            connection.sendall(
                b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-npy\r\nContent-Length: 50\r\n\r\nab"
            )
    with connected(url) as connection:
        connection.sendall(b"\x16\x03\x01 no HTTP at all\r\n\r\n")
        assert everything(connection).startswith(b"HTTP/1.1 400 ")
    assert HttpEndpoint(url).predict(digits(9)).tolist() == box.predict(digits(9)).tolist()


def test_connections_have_a_limit(box, monkeypatch):
    monkeypatch.setattr(server, "CONNECTIONS", 3)
    with server.serving(box, DESCRIPTION) as url, contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connected(url))
        time.sleep(0.3)
        with pytest.raises(FaultsimError, match="answers 503"):
            HttpEndpoint(url)


def test_a_model_that_fails_is_the_servers_fault(caplog):
    def broken(_: np.ndarray) -> np.ndarray:
        raise RuntimeError("secret weights: 1 2 3")

    with server.serving(type("Broken", (), {"predict": staticmethod(broken)})(), DESCRIPTION) as url:
        for _ in range(2):
            with pytest.raises(
                FaultsimError, match=r"answers 500: the model failed \(RuntimeError\)"
            ) as raised:
                HttpEndpoint(url).predict(pictures(1))
            assert "secret" not in str(raised.value)
    assert "secret" in caplog.text  # whoever runs the server sees it


def test_errors_of_the_box_itself_are_not_the_clients(caplog):
    box = PythonCallable(lambda _: "no classes")
    with server.serving(box, DESCRIPTION) as url, pytest.raises(FaultsimError, match="answers 500"):
        HttpEndpoint(url).predict(pictures(1))


def test_ports_and_hosts_that_cannot_be():
    with server.listen() as listener, pytest.raises(FaultsimError, match="in use"):
        server.listen("127.0.0.1", listener.getsockname()[1])
    for host, port in (("127.0.0.1", -1), ("127.0.0.1", 2**16), ("no.such.host.invalid", 0)):
        with pytest.raises(FaultsimError, match="cannot listen on"):
            server.listen(host, port)


class Recorder:
    """Stands between client and server and keeps what passes."""

    def __init__(self, url: str) -> None:
        self._to = urlsplit(url)
        self.sent, self.received = bytearray(), bytearray()
        self.listener = server.listen()
        self.url = server.format_address(self.listener)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                far = socket.create_connection((self._to.hostname, self._to.port))
                for source, target, kept in ((near, far, self.sent), (far, near, self.received)):
                    threading.Thread(target=self._pass, args=(source, target, kept), daemon=True).start()

    @staticmethod
    def _pass(source: socket.socket, target: socket.socket, kept: bytearray) -> None:
        with contextlib.suppress(OSError):
            while part := source.recv(65536):
                kept += part
                target.sendall(part)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


def test_only_predictions_cross_the_line(url, box):
    """Every byte that the server sends during an evaluation with a generator is accounted for."""
    fuse = generators.NeuralFuse(generators.create("UNetS"))
    data = [(torch.from_numpy(digits(n, n)), torch.zeros(n, dtype=torch.int64)) for n in (16, 7)]
    recorder = Recorder(url)
    with recorder.listener:
        found = evaluate_restricted([HttpEndpoint(recorder.url)], data, fuse)
    with torch.no_grad():
        shown = [front(x).numpy() for x, _ in data for front in (torch.nn.Identity(), fuse.eval())]
    answers = [wire.to_npy(box.predict(images)) for images in shown]
    rest = bytes(recorder.received)
    for content in [json.dumps(DESCRIPTION.as_json(), separators=(",", ":")).encode(), *answers]:
        head, _, rest = rest.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert {line.split(b":")[0].lower() for line in head.split(b"\r\n")[1:]} == {
            b"date",
            b"content-length",
            b"content-type",
        }
        assert rest[: len(content)] == content
        rest = rest[len(content) :]
    assert rest == b""
    # and what goes out is the images
    assert all(images.tobytes() in bytes(recorder.sent) for images in shown)
    assert len(recorder.sent) < sum(images.nbytes for images in shown) + 5 * 1000
    same = PythonCallable(box.predict)
    assert evaluate_restricted([same], data, fuse) == found
