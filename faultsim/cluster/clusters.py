"""Where workers come from: processes of this machine, or the scheduler of a Dask cluster."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..errors import FaultsimError
from ..support.extras import needs_extra
from .workers import LOOK_SECONDS, Workers

if TYPE_CHECKING:
    from distributed import LocalCluster

CONNECT_SECONDS = 10
"""For which a scheduler may take to answer."""
CLOSE_SECONDS = 3
"""For which the end of a connection may take."""

LOST_SECONDS = 60
"""After which a worker of a local cluster that died and has not come back is replaced. Dask's 15 s are shorter than
the start of a worker on a busy machine, which has to import torch."""

KEPT_BYTES = 1 << 28
"""Of free memory that a worker of a local cluster does not give back. Dask's 64 KiB make each large tensor fresh
memory, whose page faults cost a small network up to half of its time."""
MAPPED_BYTES = 1 << 25
"""From which a tensor is memory of its own; glibc takes no larger number."""
HOUSEKEEPING = {
    "distributed.admin.tick.interval": "1 s",
    "distributed.admin.system-monitor.interval": "2 s",
    "distributed.worker.profile.enabled": False,
}
"""What the processes of a local cluster do beside their jobs. By Dask's settings (20 ms, 500 ms, and a look at each
worker's stack every 10 ms) they take a tenth of a core from two workers, and with these a seventieth."""


@contextlib.contextmanager
def start_workers(count: int, device: str = "cpu") -> Iterator[Workers]:
    """Start worker processes on this machine, with one thread each, and stop them at the end.

    Parameters
    ----------
    count
        Number of processes.
    device
        "cpu" or "cuda".

    Raises
    ------
    FaultsimError
        For fewer than one, and where the package distributed is not installed.
    """
    if count < 1:
        raise FaultsimError(f"{count} workers: at least 1 is needed")
    with needs_extra("cluster"):
        import dask
        from distributed import Client, LocalCluster
    environment = "distributed.nanny.pre-spawn-environ"
    suited = dask.config.set(
        {
            "distributed.deploy.lost-worker-timeout": f"{LOST_SECONDS}s",
            f"{environment}.MALLOC_TRIM_THRESHOLD_": KEPT_BYTES,
            f"{environment}.MALLOC_MMAP_THRESHOLD_": MAPPED_BYTES,
        }
        | HOUSEKEEPING
    )
    cluster = LocalCluster(
        n_workers=count,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        memory_limit=None,
        resources={"GPU": 1} if device == "cuda" else None,
        silence_logs=logging.CRITICAL,
    )
    with (
        suited,
        cluster,
        _restore(cluster, count),
        Client(cluster) as client,
        Workers(client, device) as workers,
    ):
        yield workers


@contextlib.contextmanager
def _restore(cluster: "LocalCluster", count: int) -> Iterator[None]:
    """Start workers of a local cluster again that are gone for good, inside a `with` block."""
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(LOOK_SECONDS):
            cluster.scale(count)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextlib.contextmanager
def connect(address: str, device: str = "cpu") -> Iterator[Workers]:
    """Connect to the scheduler of a Dask cluster, such as tcp://host:8786.

    Raises
    ------
    FaultsimError
        Where no scheduler answers, and where the package distributed is not installed.
    """
    with needs_extra("cluster"):
        from distributed import Client
    try:
        client = Client(address, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise FaultsimError(
            f"no scheduler answers at {address}: start one with `dask scheduler`, or check the address"
        ) from error
    try:
        with Workers(client, device) as workers:
            yield workers
    finally:
        with contextlib.suppress(TimeoutError):
            client.close(timeout=CLOSE_SECONDS)
