"""Options of commands whose jobs may run on the workers of a cluster, as one group."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FaultsimError
from ..support.extras import needs_extra

if TYPE_CHECKING:
    from ..cluster.workers import Workers


@dataclass(frozen=True)
class ClusterOptions:
    """Who computes: this process, or workers."""

    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Compute in N worker processes on this machine, with one thread each. The results are the same.",
        ),
    ] = None
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Compute on the workers of the Dask scheduler at this address, like tcp://host:8786; with --device "
            "cuda on workers of the resource GPU. Use a scheduler that you trust, and keep others "
            "away from it: it runs what its peers send.",
        ),
    ] = None

    @property
    def given(self) -> bool:
        """Whether the user gave any of them."""
        return self != ClusterOptions()

    def find_device(self, device: str) -> str:
        """Return where this process keeps the model: on a CPU if a scheduler's workers compute."""
        return device if self.scheduler is None else "cpu"

    @contextlib.contextmanager
    def open(self, device: str) -> Iterator["Workers | None"]:
        """Yield the workers, None without the options. `device` is where the jobs compute."""
        if not self.given:
            yield None
            return
        if self.workers is not None and self.scheduler is not None:
            raise FaultsimError("--workers cannot be combined with --scheduler, which has workers of its own")
        from ..cluster.clusters import connect, start_workers

        kind = "cuda" if device.startswith("cuda") else "cpu"
        with needs_extra("cluster"):
            import_module("distributed")  # which sets the levels of its loggers
        for name in ("distributed", "distributed.client", "distributed.core", "distributed.comm"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what the user can mend is told by us
        opened = connect(self.scheduler, kind) if self.scheduler else start_workers(self.workers or 0, kind)
        with opened as workers:
            yield workers
