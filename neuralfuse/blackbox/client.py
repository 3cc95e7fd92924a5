"""A black box behind an HTTP endpoint (`faultsim serve-model`)."""

import numpy as np

from faultsim.errors import FaultsimError
from faultsim.io.bounds import parse_json
from faultsim.support.extras import needs_extra

from . import wire
from .box import check_classes, check_images

with needs_extra("serve"):
    import urllib3

_DESCRIPTION = 64 << 10  # bytes of a description or an error at most
_CONNECT_SECONDS = 5.0


class HttpEndpoint:
    """A black box behind an HTTP endpoint. Connections stay open between requests.

    Parameters
    ----------
    url
        http or https address. Its description is read at once.
    timeout
        Seconds per request. A request is repeated once if an open connection breaks.

    Raises
    ------
    FaultsimError
        If nobody answers, or the endpoint is no black box.
    """

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        try:
            scheme = urllib3.util.parse_url(url).scheme
        except urllib3.exceptions.LocationParseError:
            scheme = None
        if scheme not in ("http", "https"):
            raise FaultsimError(f"endpoint {url!r} is no address: write one like http://127.0.0.1:8000")
        if not 0.0 < timeout < float("inf"):
            raise FaultsimError(f"a timeout of {timeout} s: it must be above 0 and finite")
        self.url = url.rstrip("/")
        # no proxies or credentials from the environment: images go to `url` and nowhere else
        self._pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=min(timeout, _CONNECT_SECONDS), read=timeout),
            retries=urllib3.Retry(
                connect=0,
                read=1,
                redirect=0,
                status=0,
                other=0,
                allowed_methods=None,
                raise_on_redirect=False,
            ),
        )
        body = self._ask("GET", "/", _DESCRIPTION)
        try:
            self.description = wire.Description.from_json(parse_json(body))
        except ValueError as error:
            why = error if isinstance(error, FaultsimError) else "it answers no JSON"
            raise FaultsimError(f"{self.url} is no black box: {why}") from None
        if not self.description.images_at_once:
            raise FaultsimError(f"{self.url} takes bodies too small for a single image")

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the class of each image, in as many requests as the limits of the endpoint demand."""
        images = check_images(images)
        if images.shape[1:] != self.description.input_shape:
            raise FaultsimError(
                f"{self.url} takes images {list(self.description.input_shape)}, not {list(images.shape[1:])}"
            )
        step = self.description.images_at_once
        return np.concatenate([self._predict(images[i : i + step]) for i in range(0, len(images), step)])

    def _predict(self, images: np.ndarray) -> np.ndarray:
        body = wire.to_npy(images.astype(wire.IMAGES, copy=False))
        answer = self._ask("POST", "/predict", wire.HEADER + wire.CLASSES.itemsize * len(images), body)
        try:
            classes = wire.from_npy(answer, wire.CLASSES)
        except FaultsimError as error:
            raise FaultsimError(f"{self.url} answers no predictions: {error}") from error
        return check_classes(classes, len(images), self.url)

    def _ask(self, method: str, path: str, most: int, body: bytes | None = None) -> bytes:
        """Return the body of an answer 200, `most` bytes at most."""
        headers = {} if body is None else {"Content-Type": wire.NPY}
        try:
            answer = self._pool.request(
                method, self.url + path, body=body, headers=headers, redirect=False, preload_content=False
            )
            try:
                found = answer.read(max(most, _DESCRIPTION) + 1, decode_content=False)
            finally:
                answer.close() if answer.length_remaining else answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            raise FaultsimError(f"{self.url} doesn't answer: {_reason(error)}") from error
        if answer.status != 200:
            raise FaultsimError(f"{self.url} answers {answer.status}: {_complaint(found) or answer.reason}")
        if len(found) > most:
            raise FaultsimError(f"{self.url} answers more than {most:,} bytes: no black box would")
        return found


def _reason(error: urllib3.exceptions.HTTPError) -> str:
    """Say what happened to a request, without the names of objects."""
    cause = getattr(error, "reason", None) or error
    if isinstance(cause, urllib3.exceptions.NewConnectionError):  # a timeout too, to urllib3
        return "no connection; is it running, and is this its address?"
    if isinstance(cause, urllib3.exceptions.TimeoutError):
        return "it took too long; is it busy, or the timeout too short?"
    return str(cause)


def _complaint(body: bytes) -> str | None:
    """Return the message of an error in JSON."""
    try:
        message = parse_json(body)["error"]
    except (ValueError, KeyError, TypeError):
        return None
    return message[:500] if isinstance(message, str) else None
