"""The web application around a black box: GET / describes it, POST /predict asks it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import cast

import numpy as np

from faultsim.errors import FaultsimError
from faultsim.support.extras import needs_extra

from . import wire
from .box import BlackBox, check_images

with needs_extra("serve"):
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route
    from starlette.types import Receive, Scope, Send

LINGER_SECONDS = 1.0
"""How long the server still reads, and drops, what a client sends after a refusal. Closing at once would reset the
connection, and the client would never see why."""

_CODECS: dict[str, tuple[Callable[[bytearray], np.ndarray], Callable[[np.ndarray], bytes]]] = {
    wire.NPY: (lambda body: wire.from_npy(body, wire.IMAGES), wire.to_npy),
    wire.JSON: (wire.images_from_json, wire.to_json),
}


def create_application(box: BlackBox, description: wire.Description, worker: Executor) -> Starlette:
    """Create the ASGI application of a black box. Every refusal is JSON, {"error": message}.

    Parameters
    ----------
    box : BlackBox
        Answers the requests.
    description : Description
        Which images are accepted, and how many at once.
    worker : Executor
        Where the black box runs.
    """

    async def describe(_: Request) -> Response:
        return JSONResponse(description.as_json())

    async def predict(request: Request) -> Response:
        media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if media not in _CODECS or request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, f"send images as {wire.NPY} or {wire.JSON}, not encoded otherwise")
        body = await _body(request, description.limits)

        def answer() -> bytes:
            decode, encode = _CODECS[media]
            try:
                images = _fitting(decode(body), description)
            except FaultsimError as error:
                raise HTTPException(400, str(error)) from error
            return encode(box.predict(images))  # what fails here isn't the client's fault

        content = await asyncio.get_running_loop().run_in_executor(worker, answer)
        return Response(content, media_type=media)

    return Starlette(
        routes=[Route("/", describe, methods=["GET"]), Route("/predict", predict, methods=["POST"])],
        exception_handlers={HTTPException: _refuse, Exception: _failed},
    )


async def _body(request: Request, limits: wire.Limits) -> bytearray:
    """Read the whole body. Raises HTTPException if it is too large or too slow."""
    too_large = HTTPException(
        413, f"the body is larger than {limits.body:,} bytes: send fewer images at once"
    )
    announced = request.headers.get("content-length", "0")
    if len(announced) > 18 or int(announced) > limits.body:  # digits only: the HTTP parser has seen to it
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for part in request.stream():
                if len(body) + len(part) > limits.body:
                    raise too_large
                body += part
    except TimeoutError:
        raise HTTPException(408, f"the body took longer than {limits.seconds:g} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the body ended early") from None
    request.scope["body_read"] = True
    return body


def _fitting(images: np.ndarray, description: wire.Description) -> np.ndarray:
    """Return the same images. Raises FaultsimError unless shape, number, type and range are those accepted."""
    if images.ndim != 4 or images.shape[1:] != description.input_shape:
        shape = ", ".join(map(str, description.input_shape))
        raise FaultsimError(f"images must be of shape [B, {shape}], not {list(images.shape)}")
    if len(images) > description.limits.batch:
        raise FaultsimError(
            f"{len(images)} images are more than {description.limits.batch}: send fewer at once"
        )
    return check_images(images)


async def _refuse(request: Request, failure: Exception) -> Response:
    error = cast(HTTPException, failure)  # it is registered for no other
    message = error.detail
    if error.status_code in (404, 405):
        message = f"{request.method} {request.url.path}: there are only GET / and POST /predict"
    return _Refusal({"error": message}, error.status_code, error.headers)


async def _failed(_: Request, error: Exception) -> Response:
    return _Refusal({"error": f"the model failed ({type(error).__name__})"}, 500)


class _Refusal(JSONResponse):
    """An error. A connection with an unread body is closed afterwards, once the client could read it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("body_read"):
            return await super().__call__(scope, receive, send)
        headers = [*self.raw_headers, (b"connection", b"close")]
        await send({"type": "http.response.start", "status": self.status_code, "headers": headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while (await receive()).get("more_body"):
                    pass
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b"", "more_body": False})
