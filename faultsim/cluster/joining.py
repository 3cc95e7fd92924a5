"""What a worker shows when it joins, and how one that fits is told from the others.

A worker that fits gets a Dask resource that all jobs of this version need, one of it: so a worker runs one job at a
time, and one of another version none.
"""

import hashlib
import json
import os
import socket
from dataclasses import dataclass
from functools import cache
from typing import Any

import distributed
from distributed.core import Status


@cache
def compute_known_answers() -> str:
    """Compute the SHA-256 (hex) of some chips' failing cells, which are the same wherever the kernel is right."""
    from ..chips.chip_map import find_failing_cells
    from ..faults import Chip, FaultKind, FaultModel

    digest = hashlib.sha256()
    for kind in (FaultKind.FLIP, FaultKind.STUCK_AT_RANDOM):
        cells = find_failing_cells(Chip(2026), 8, 0.02, FaultModel(kind))
        for values in (cells.array, cells.row, cells.column, cells.stuck_at):
            digest.update(values.tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Version:
    """What must be equal on all machines."""

    faultsim: str
    torch: str
    """Without the name of its build, such as +cpu."""
    known_answers: str

    @classmethod
    def here(cls) -> "Version":
        """Return the version of this process."""
        import torch

        from .. import __version__

        return cls(__version__, torch.__version__.partition("+")[0], compute_known_answers())

    @property
    def resource(self) -> str:
        """Name of the Dask resource of workers of this version."""
        text = json.dumps([self.faultsim, self.torch, self.known_answers])
        return f"faultsim-{hashlib.sha256(text.encode()).hexdigest()[:12]}"

    def explain_difference(self, other: "Version") -> str | None:
        """Return in words what another version has otherwise; None where it is the same."""
        for name in ("faultsim", "torch"):
            ours, theirs = getattr(self, name), getattr(other, name)
            if ours != theirs:
                return f"it has {name} {theirs}, the coordinator has {ours}"
        if self.known_answers != other.known_answers:
            return "its compiled kernel gives other failing cells"
        return None


@dataclass(frozen=True)
class Member:
    """A worker that joined."""

    address: str
    name: str
    host: str
    processor: str
    refused: str | None
    """Why it gets no jobs; None: it gets them."""


class Joining(distributed.WorkerPlugin):
    """Runs on each worker when it joins, early or late: checks its version, sets its threads, and tells who it is."""

    def __init__(self, version: Version, coordinator: tuple[str, int], device: str, topic: str) -> None:
        self.version, self.coordinator, self.device = version, coordinator, device
        self.topic = topic  # of the Dask event in which it tells who it is

    async def setup(self, worker: Any) -> None:
        """Check the worker, and let it have jobs."""
        import torch

        from ..io.provenance import name_device

        if (socket.gethostname(), os.getpid()) != self.coordinator:
            torch.set_num_threads(1)  # as many worker processes as cores
        refused = self.version.explain_difference(Version.here())
        if refused is None and self.device == "cuda" and not torch.cuda.is_available():
            refused = "torch finds no GPU there, and the jobs need one"
        if refused is None:
            await worker.set_resources(**{self.version.resource: 1})
            if worker.status == Status.running:  # jobs may have waited for such a worker: Dask looks again
                worker.status = Status.paused
                worker.status = Status.running
        member = {
            "address": worker.address,
            "name": str(worker.name),
            "host": socket.gethostname(),
            "processor": name_device(self.device if refused is None else "cpu"),
            "refused": refused,
        }
        worker.log_event(self.topic, member)
