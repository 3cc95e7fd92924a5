"""Readers of what comes over HTTP: bodies and descriptions of a black box."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from faultsim.errors import FaultsimError
from faultsim.io.bounds import parse_json
from neuralfuse.blackbox import wire
from neuralfuse.blackbox.app import create_application
from neuralfuse.blackbox.box import PythonCallable
from tests.fuzz.readers.reader import JSON, Reader


class _Here:
    """An executor that computes at once."""

    def submit(self, function, *arguments):
        from concurrent.futures import Future

        future = Future()
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)
        return future


def make_bodies(folder: Path) -> list[Reader]:
    limits = wire.Limits(batch=4, body=16 << 20)
    description = wire.Description("made", (3, 4, 4), 2, limits)
    app = create_application(
        PythonCallable(lambda images: np.zeros(len(images), np.int64)), description, _Here()
    )

    async def post(body: bytes, media: str) -> tuple[int, bytes]:
        scope = {
            "type": "http", "method": "POST", "path": "/predict", "raw_path": b"/predict", "query_string": b"",
            "headers": [(b"content-type", media.encode()), (b"content-length", str(len(body)).encode())],
            "http_version": "1.1", "scheme": "http", "server": ("test", 80), "client": ("test", 1), "root_path": "",
        }  # fmt: skip
        told = []

        async def receive() -> dict:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict) -> None:
            told.append(message)

        await app(scope, receive, send)
        return told[0]["status"], b"".join(message.get("body", b"") for message in told)

    def read(path: Path, _: Path) -> object:
        media = wire.NPY if path.suffix == ".npy" else wire.JSON
        # In a thread of its own: a browser's test in this process may have left an event loop running.
        with ThreadPoolExecutor(1) as thread:
            status, body = thread.submit(asyncio.run, post(path.read_bytes(), media)).result()
        if status >= 500:
            raise AssertionError(f"status {status}: the client's fault is told as the model's")
        if status != 200:
            raise FaultsimError(json.loads(body)["error"])
        return status

    def told(path: Path, _: Path) -> object:
        try:
            return wire.Description.from_json(parse_json(path.read_bytes()))
        except FaultsimError:
            raise
        except ValueError as error:  # as the client says it
            raise FaultsimError(error) from None

    images = np.linspace(-1, 1, 2 * 48, dtype=np.float32).reshape(2, 3, 4, 4)
    bodies = {
        "images.npy": wire.to_npy(images),
        "images.json": json.dumps({"images": images.tolist()}).encode(),
    }
    described = {"description.json": json.dumps(description.as_json()).encode()}
    return [
        Reader("HTTP body", bodies, read, inside=JSON),
        Reader("description", described, told, inside=JSON),
    ]
