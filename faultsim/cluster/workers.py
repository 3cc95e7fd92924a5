"""Dask workers that run jobs: which of them fit, what is in flight, and what becomes of jobs whose workers die."""

import asyncio
import contextlib
import json
import logging
import os
import queue
import socket
import time
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import FaultsimError, summarize_error
from ..support.extras import needs_extra
from .files import JobFiles
from .jobs import Done, Job, run_job

if TYPE_CHECKING:
    from distributed import Client, Future

    from .joining import Joining, Member

IN_FLIGHT = 3
"""Jobs that each worker has at most, the running one included: enough that none waits for the coordinator."""
RETRIES = 2
"""How often a job is tried again that fails with an error, such as one of a full memory."""
SETTLE_SECONDS = 0.01
"""For which the coordinator lets more jobs end before it takes one in: a message for many costs as much as for one."""
REGISTER_SECONDS = 120
"""For which the coordinator asks the workers for their versions again, where one of them dies while it does."""
LOOK_SECONDS = 1.0
"""How often the coordinator looks which workers are there."""

log = logging.getLogger(__name__)


class LostScheduler(FaultsimError):
    """The connection to the scheduler is gone."""


class Workers:
    """The workers of a Dask cluster, for one or more studies.

        with faultsim.cluster.clusters.start_workers(2) as workers:
            faultsim.sweep_subject(subject, 100, client=workers)

    Parameters
    ----------
    client : distributed.Client
        Connected to the cluster. It stays open. The workers are processes of their own: what torch does to trace a
        model concerns all threads of a process.
    device : str
        "cpu" or "cuda": where jobs compute. Those of "cuda" need one of the Dask resource GPU.

    Raises
    ------
    FaultsimError
        Where the package distributed is not installed.
    """

    def __init__(self, client: "Client", device: str = "cpu") -> None:
        with needs_extra("cluster"):
            from .joining import Joining, Version
        self.client, self.device = client, device
        self.members: dict[str, Member] = {}
        """All that joined, by their addresses; also those that left."""
        self.present: set[str] = set()
        """Addresses of the workers that get jobs and are there now."""
        self.done: Counter[str] = Counter()
        """Jobs that each worker did, by its address."""
        self.in_flight: list[Job] = []
        """Jobs that were given to the cluster and have not ended."""
        self._version = Version.here()
        self._plugin = f"faultsim-{uuid.uuid4().hex}"  # also the topic of what its workers tell
        self._looked = 0.0
        self._told: set[str] = set()
        client.subscribe_topic(self._plugin, self._welcome)
        me = (socket.gethostname(), os.getpid())
        self._register(Joining(self._version, me, device, self._plugin))

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        # after an error, Ctrl-C for instance, nobody waits for answers
        if kind is None and self.client.status == "running":
            with contextlib.suppress(OSError):  # a worker may die just then
                self.client.unregister_worker_plugin(self._plugin)
            self.client.unsubscribe_topic(self._plugin)

    def _register(self, plugin: "Joining") -> None:
        """Give all workers, also those to come, what they do when they join."""
        deadline = time.monotonic() + REGISTER_SECONDS
        while True:
            try:
                self.client.register_plugin(plugin, name=self._plugin)
                return
            except Exception as error:
                if self.client.status != "running":
                    raise self._lost() from error
                # Dask's errors of connections, of a worker that dies meanwhile for instance, are OSErrors
                if isinstance(error, OSError) and time.monotonic() < deadline:
                    time.sleep(LOOK_SECONDS)
                    continue
                why = summarize_error(error)
                raise FaultsimError(
                    f"the workers cannot check their version ({why}): install the same faultsim there"
                ) from error

    def _welcome(self, event: tuple[float, dict[str, Any]]) -> None:
        """Take in that a worker joined."""
        from ..io.provenance import name_device
        from .joining import Member

        told = event[1]  # to which Dask adds more
        member = Member(*(told[one.name] for one in fields(Member)))
        self.members[member.address] = member
        ours = name_device().rpartition(",")[0]
        theirs = member.processor.rpartition(",")[0] or member.processor
        if member.refused is not None:
            self._tell(f"worker {member.name} on {member.host} gets no jobs: {member.refused}")
        elif self.device == "cpu" and theirs != ours:
            self._tell(
                f"workers on {member.host} compute on {theirs}, this machine on {ours}: numbers of a model may differ "
                "in their last digits"
            )

    def _tell(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            log.info(line)

    def describe(self) -> list[dict[str, Any]]:
        """Return the workers that are there now, with the jobs that each did, as JSON values."""
        return [
            {"name": one.name, "host": one.host, "processor": one.processor, "jobs": self.done[one.address]}
            for one in self.members.values()
            if one.address in self.present
        ]

    def look(self) -> set[str]:
        """Look which workers are there, at most once a second, and return their addresses."""
        if time.monotonic() - self._looked >= LOOK_SECONDS:
            self._looked = time.monotonic()
            try:
                there = self.client.nthreads()
                # some told who they are before Dask knew that we listen
                late = set(there) - set(self.members)
                events = self.client.get_events(self._plugin) if late else ()
            except OSError as error:  # Dask's errors of connections are such
                raise self._lost() from error
            for event in events:
                self._welcome(event)
            fitting = {address for address, member in self.members.items() if member.refused is None}
            self.present = fitting & set(there)
            nobody = f"no worker is there: waiting for one to join {self.client.scheduler.address}"
            if self.present:
                self._told.discard(nobody)  # they may all leave later, which is news again
            else:
                self._tell(nobody)
        return self.present

    def run(
        self,
        next_job: Callable[[], Job | None],
        files: JobFiles | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> Generator[Done]:
        """Run jobs, and yield each one that ended, in any order.

        Parameters
        ----------
        next_job
            Returns the next job, or None where there is none now. It is asked again after each job that ended.
        files
            Those that jobs need.
        tick
            Called about once a second.

        Raises
        ------
        LostScheduler
            Where the connection to the scheduler is gone.
        """
        ended: queue.SimpleQueue[Future] = queue.SimpleQueue()
        flying: dict[str, tuple[Future, Job]] = {}
        ready: list[Job] = []  # to be given to the cluster again
        suspects: list[Job] = []  # their workers died; Dask blames all jobs that wait there
        alone: Job | None = None  # a suspect that runs alone
        ticked = 0.0
        try:
            while True:
                room = IN_FLIGHT * max(1, len(self.look())) - len(flying)
                given: list[Job] = []
                while len(given) < room and (job := ready.pop() if ready else next_job()) is not None:
                    given.append(job)
                for future, job in zip(self._submit(given), given, strict=True):
                    flying[future.key] = future, job
                    future.add_done_callback(ended.put)
                if not flying and suspects:
                    alone = suspects.pop()
                    ready.append(alone)
                    continue
                if not flying:
                    return
                self.in_flight = [job for _, job in flying.values()]
                if time.monotonic() - ticked >= LOOK_SECONDS:
                    tick()
                    ticked = time.monotonic()
                for done in self._collect(_drain(ended), flying):
                    if done.lost:
                        ready.append(done.job)
                    elif done.missing is not None:
                        if files is None:
                            raise FaultsimError(f"{done.job.name} asks for a file that nobody has")
                        files.send(done.missing, self.client)
                        ready.append(done.job)
                    elif done.killed and done.job is not alone:
                        suspects.append(done.job)
                    else:
                        yield done
        finally:
            self.in_flight = []
            flying.clear()  # the cluster forgets jobs whose futures are gone

    def _submit(self, jobs: list[Job]) -> list["Future"]:
        """Give jobs to the cluster, all in one message."""
        if not jobs:
            return []
        resources = {self._version.resource: 1} | ({"GPU": 1} if self.device == "cuda" else {})
        functions = [job.function for job in jobs]
        arguments = [json.dumps(dict(job.arguments), allow_nan=False) for job in jobs]
        try:
            futures: list[Future] = self.client.map(
                run_job, functions, arguments, pure=False, resources=resources, retries=RETRIES
            )
            return futures
        except Exception as error:
            raise self._lost() from error

    def _lost(self) -> LostScheduler:
        return LostScheduler(
            "the connection to the scheduler is gone: start the same command again, with a scheduler that runs"
        )

    def _collect(self, futures: list["Future"], flying: dict[str, tuple["Future", Job]]) -> list[Done]:
        """Return what came of futures that ended, and forget them."""
        if self.client.status != "running":
            raise self._lost()
        finished = [future for future in futures if future.status == "finished"]
        try:
            texts = self._gather(finished) if finished else {}
        except Exception as error:
            raise self._lost() from error
        found = []
        for future in futures:
            _, job = flying.pop(future.key)
            if (text := texts.get(future.key)) is not None:
                found.append(_read(job, json.loads(text)))
                self.done[found[-1].worker] += 1
            elif future.status == "error":
                found.append(_explain(job, future))
            elif _lost_connection(future):
                raise self._lost()
            else:
                found.append(Done(job, None, "", 0.0, lost=True))
        return found

    def _gather(self, futures: list["Future"]) -> dict[str, str | None]:
        """Return the results of futures by their keys, None for one that is gone.

        One that died with its worker is computed again, which may take a while and may fail.
        """
        keyed = {future.key: future for future in futures}
        results = self.client.gather(keyed, errors="skip", asynchronous=True)
        running = asyncio.run_coroutine_threadsafe(results, self.client.loop.asyncio_loop)
        while True:
            try:
                found: dict[str, str | None] = running.result(LOOK_SECONDS)
                return found
            except TimeoutError:
                if running.done():
                    raise
                self.look()


def _lost_connection(future: "Future") -> bool:
    """Return whether Dask cancelled a future because the connection to the scheduler was lost.

    Dask connects again by itself, but to a scheduler that knows nothing of our jobs.
    """
    lost = "scheduler-connection-lost"
    if future.status == "cancelled":
        try:
            future.result()
        except Exception as error:
            return bool(getattr(error, "reason", lost) == lost)
    return False


def _read(job: Job, found: dict[str, Any]) -> Done:
    """Return what a worker said of a job; FaultsimError for what is wrong on any worker."""
    if "error" in found:
        raise FaultsimError(found["error"])
    return Done(job, found.get("result"), found["worker"], found["seconds"], missing=found.get("missing"))


def _explain(job: Job, future: "Future") -> Done:
    """Return in one line why a job failed."""
    from distributed import KilledWorker

    error = future.exception()
    if isinstance(error, KilledWorker):
        return Done(
            job, None, "", 0.0, "each worker that ran it died, perhaps for too little memory", killed=True
        )
    return Done(job, None, "", 0.0, f"{type(error).__name__}: {summarize_error(error)}")


AnyClient: TypeAlias = "Client | Workers"
"""A client of a Dask cluster, or its workers."""


@contextlib.contextmanager
def open_workers(client: AnyClient, device: str = "cpu") -> Iterator[Workers]:
    """Yield the workers of a client, or those that are given."""
    if isinstance(client, Workers):
        yield client
        return
    with Workers(client, device) as workers:
        yield workers


def _drain(ended: "queue.SimpleQueue[Future]") -> list["Future"]:
    """Return the futures that ended, waiting for one; after a second, perhaps none."""
    found = []
    with contextlib.suppress(queue.Empty):
        found.append(ended.get(timeout=LOOK_SECONDS))
        time.sleep(SETTLE_SECONDS)
        while True:
            found.append(ended.get_nowait())
    return found
