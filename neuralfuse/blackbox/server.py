"""Black boxes behind HTTP: listening, serving, stopping."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor

from faultsim.errors import FaultsimError
from faultsim.support.extras import needs_extra

from .app import create_application
from .box import BlackBox
from .wire import Description

with needs_extra("serve"):
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 32
"""Most connections: further ones are answered 503. Each may hold one body in memory."""
HEADER_SECONDS = 10.0
"""Limit for a request's first line and headers."""
IDLE_SECONDS = 30
"""Limit for an open connection between requests: a client's generator may be slow."""
_GRACE_SECONDS = 5  # for requests under way when the server is told to stop


class _ImpatientProtocol(H11Protocol):
    """Closes connections whose headers do not arrive in time; uvicorn itself would wait forever.

    The application limits the time of bodies.
    """

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Stop the clock when the application has the request."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:  # the application has the request
            self._forget()
        elif self._deadline is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._forget()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _forget(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def listen(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Open a socket that accepts connections; port 0 takes a free one. Raises FaultsimError where it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (while")[0].rstrip(".")
        raise FaultsimError(
            f"cannot listen on {host}, port {port}: {reason}; --port 0 takes a free port, --host 127.0.0.1 this machine"
        ) from error


def format_address(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def serve(
    box: BlackBox, description: Description, listener: socket.socket, announce: Callable[[], None]
) -> None:
    """Serve a black box until SIGINT or SIGTERM; requests under way are still answered. For the main thread.

    Parameters
    ----------
    box : BlackBox
        Answers the requests.
    description : Description
        Which images are accepted, and how many at once.
    listener : socket
        From `listen`.
    announce : callable
        Called when the server heeds signals.
    """
    with _one_thread() as worker:
        server = _server(box, description, worker)

        def stop(*_: object) -> None:
            server.should_exit = True

        # uvicorn raises the signals that it caught once more when it is done: they come here and end nothing
        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            announce()
            server.run(sockets=[listener])
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def serving(box: BlackBox, description: Description) -> Iterator[str]:
    """Serve a black box on a free loopback port in another thread, inside the block; yield the URL."""
    with _one_thread() as worker, listen() as listener:
        server = _server(box, description, worker)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="black-box-server")
        thread.start()
        try:
            yield format_address(listener)
        finally:
            server.should_exit = True
            thread.join()


def _one_thread() -> ThreadPoolExecutor:
    """Create the worker: a model runs for one request at a time, always in the same thread."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="black-box")


def _server(box: BlackBox, description: Description, worker: Executor) -> uvicorn.Server:
    config = uvicorn.Config(
        create_application(box, description, worker),
        http=_ImpatientProtocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    return uvicorn.Server(config)
