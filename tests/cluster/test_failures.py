"""Is nothing lost when workers die, have another version, lack files, or when the scheduler is gone?"""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from itertools import count

import pytest
import torch

import faultsim
from faultsim.cli import main
from faultsim.cluster.clusters import connect, start_workers
from faultsim.cluster.files import JobFiles, find_shared_folder
from faultsim.cluster.jobs import Job
from faultsim.cluster.workers import LostScheduler, Workers

distributed = pytest.importorskip("distributed")
from faultsim.cluster.joining import Version  # noqa: E402

SIZE = "faultsim.studies.campaign:sample_size"
POINTS = {"bit_error_rates": [0.0, 0.02]}


def give(jobs: list[Job]):
    left = iter(jobs)
    return lambda: next(left, None)


def refusals(client, caplog, device: str = "cpu") -> list[str]:
    """What is told of three workers, none of which gets jobs."""
    caplog.set_level(logging.INFO, "faultsim")
    with Workers(client, device) as workers:
        deadline = time.monotonic() + 60
        while len(workers.members) < 3 and time.monotonic() < deadline:
            time.sleep(0.2)
            workers.look()
        assert workers.look() == set()
    lines = [line for line in caplog.messages if "gets no jobs" in line]
    assert len(lines) == 3
    return lines


def test_a_worker_that_is_killed_in_the_middle(processes, subject):
    began = count()

    def kill_once(row) -> None:
        if next(began) == 2:
            os.kill(next(iter(processes.run(os.getpid).values())), signal.SIGKILL)

    found = faultsim.sweep_subject(subject, 20, **POINTS, client=processes, progress=kill_once)
    assert next(began) > 3
    assert found.chip_rows() == faultsim.sweep_subject(subject, 20, **POINTS).chip_rows()


def test_a_job_that_kills_its_workers_fails_alone(processes):
    scheduler = processes.cluster.scheduler
    allowed, scheduler.allowed_failures = scheduler.allowed_failures, 0
    try:
        jobs = [Job("deadly", "os:_exit", {"status": 1})]
        jobs += [Job(f"job {n}", SIZE, {"population": 100 + n, "margin": 0.1}) for n in range(9)]
        with Workers(processes) as workers:
            found = {done.job.name: done for done in workers.run(give(jobs))}
    finally:
        scheduler.allowed_failures = allowed
    assert found.pop("deadly").failure == "each worker that ran it died, perhaps for too little memory"
    assert len(found) == 9
    assert {done.failure for done in found.values()} == {None}


def test_a_worker_that_does_not_come_back_is_replaced(monkeypatch, caplog):
    # sooner than any worker can start again: then Dask gives the only one up
    monkeypatch.setattr("faultsim.cluster.clusters.LOST_SECONDS", 0)
    caplog.set_level(logging.INFO, "faultsim")
    jobs = [Job(f"job {n}", SIZE, {"population": 100 + n, "margin": 0.1}) for n in range(9)]
    with start_workers(1) as workers:
        running = workers.run(give(jobs))
        done = [next(running)]
        os.kill(next(iter(workers.client.run(os.getpid).values())), signal.SIGKILL)
        done += running
    assert {one.job.name for one in done} == {f"job {n}" for n in range(9)}
    assert {one.failure for one in done} == {None}
    assert "no worker is there: waiting for one to join" in caplog.text


def test_a_result_that_dies_with_its_worker_is_computed_again(processes, monkeypatch):
    """The worker has told that a job ended, and is gone before the coordinator asks for what came of it."""
    drain, killed = faultsim.cluster.workers._drain, []

    def kill_between(ended):
        found = drain(ended)
        if found and not killed:
            ((address,),) = processes.who_has(found[:1]).values()
            killed.append(address)
            os.kill(processes.run(os.getpid, workers=[address])[address], signal.SIGKILL)
            deadline = time.monotonic() + 60
            while found[0].status == "finished" and time.monotonic() < deadline:
                time.sleep(0.001)
        return found

    monkeypatch.setattr("faultsim.cluster.workers._drain", kill_between)
    jobs = [Job(f"job {n}", SIZE, {"population": 100 + n, "margin": 0.1}) for n in range(5)]
    with Workers(processes) as workers:
        found = list(workers.run(give(jobs)))
    assert killed
    assert sorted(done.job.name for done in found) == [job.name for job in jobs]
    assert {done.failure for done in found} == {None}


def test_a_result_that_dies_and_kills_the_next_worker_is_computed_alone(processes, monkeypatch):
    """The coordinator asks for what came of a job; its worker dies just then, and the next one, too."""
    scheduler, gather, killed = processes.cluster.scheduler, Workers._gather, []

    def kill(address: str) -> None:
        killed.append(address)
        os.kill(scheduler.workers[address].pid, signal.SIGKILL)

    def kill_the_next(key: str) -> None:
        deadline = time.monotonic() + 60
        while (worker := scheduler.tasks[key].processing_on) is None and time.monotonic() < deadline:
            time.sleep(0.001)
        if worker is not None:
            kill(worker.address)

    def kill_and_gather(self, futures):
        if killed:
            return gather(self, futures)
        key = futures[0].key
        next_one = threading.Thread(target=kill_the_next, args=(key,))
        next_one.start()
        kill(next(iter(scheduler.tasks[key].who_has)).address)
        found = gather(self, futures)
        next_one.join()
        assert found[key] is None
        return found

    monkeypatch.setattr(Workers, "_gather", kill_and_gather)
    monkeypatch.setattr(scheduler, "allowed_failures", 0)
    jobs = [Job(f"job {n}", "subprocess:call", {"args": ["sleep", "0.5"]}) for n in range(3)]
    with Workers(processes) as workers:
        found = list(workers.run(give(jobs)))
    assert len(set(killed)) == 2
    assert sorted(done.job.name for done in found) == [job.name for job in jobs]
    assert {(done.failure, done.result) for done in found} == {(None, 0)}


def test_an_error_of_a_job_is_tried_again_and_then_told(in_process):
    with Workers(in_process) as workers:
        (done,) = workers.run(give([Job("odd", "math:no_such_function", {})]))
    assert done.failure == "AttributeError: module 'math' has no attribute 'no_such_function'"


def test_workers_of_another_version_get_no_jobs(in_process, caplog, monkeypatch):
    ours, asked = Version.here(), count()
    other = replace(ours, faultsim="0.0.9")
    # the coordinator asks first
    monkeypatch.setattr(Version, "here", classmethod(lambda cls: ours if next(asked) else other))
    lines = refusals(in_process, caplog)
    assert f"it has faultsim {ours.faultsim}, the coordinator has 0.0.9" in lines[0]


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"faultsim": "9"}, f"it has faultsim 9, the coordinator has {faultsim.__version__}"),
        ({"torch": "1.0"}, "it has torch 1.0, the coordinator has "),
        ({"known_answers": "0"}, "its compiled kernel gives other failing cells"),
        ({}, None),
    ],
)
def test_versions_are_told_apart(other, why):
    ours = Version.here()
    theirs = replace(ours, **other)
    found = ours.explain_difference(theirs)
    assert found is None if why is None else found.startswith(why)
    assert (theirs.resource == ours.resource) == (not other)


def test_another_processor_is_told(in_process, caplog):
    caplog.set_level(logging.INFO, "faultsim")
    with Workers(in_process) as workers:
        told = {
            "address": "tcp://127.0.0.2:1",  # what a worker there would tell
            "name": "7",
            "host": "far",
            "processor": "Other CPU, 1 threads",
            "refused": None,
        }
        lines, deadline = [], time.monotonic() + 60
        while not lines and time.monotonic() < deadline:  # Dask may not know yet that the coordinator listens
            in_process.log_event(workers._plugin, told)
            time.sleep(0.05)
            lines = [
                line for line in caplog.messages if line.startswith("workers on far compute on Other CPU")
            ]
    (line,) = lines
    assert line.endswith("numbers of a model may differ in their last digits")


def test_jobs_for_gpus_go_to_workers_with_the_resource(monkeypatch):
    """A worker without it gets none. torch is told that there is a GPU; these jobs do not use it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("faultsim.io.provenance.name_device", lambda device="cpu": "a GPU")
    options = {"nthreads": 1, "dashboard": False}
    with (
        distributed.SpecCluster(
            scheduler={
                "cls": distributed.Scheduler,
                "options": {"protocol": "inproc://", "dashboard_address": "127.0.0.1:0"},
            },
            workers={
                "plain": {"cls": distributed.Worker, "options": options},
                "gpu": {"cls": distributed.Worker, "options": options | {"resources": {"GPU": 1}}},
            },
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster) as client,
        Workers(client, "cuda") as workers,
    ):
        jobs = [Job(str(n), SIZE, {"population": 100, "margin": 0.1}) for n in range(12)]
        done = list(workers.run(give(jobs)))
        gpu = cluster.workers["gpu"].address
    assert [one.failure for one in done] == [None] * 12
    assert {one.worker for one in done} == {gpu}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_workers_without_a_gpu_get_no_jobs_for_one(in_process, caplog):
    lines = refusals(in_process, caplog, "cuda")
    assert lines[0].endswith("torch finds no GPU there, and the jobs need one")


def test_a_worker_that_joins_late_gets_jobs_that_wait():
    with (
        distributed.LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            processes=False,
            dashboard_address="127.0.0.1:0",
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster) as client,
        Workers(client) as workers,
    ):
        jobs = [Job(str(n), SIZE, {"population": 100, "margin": 0.1}) for n in range(5)]
        ticks = count()

        def join() -> None:
            if next(ticks) == 0:
                cluster.scale(1)

        assert len(list(workers.run(give(jobs), tick=join))) == 5


@pytest.mark.filterwarnings("ignore:without bit errors")  # the images are noise
def test_files_that_no_worker_sees_come_from_the_scheduler(in_process, subject, tmp_path, monkeypatch):
    """The folder has another name for the workers, as on a machine without it."""
    sent = []

    class Elsewhere(JobFiles):
        @property
        def where(self) -> str:
            return "/no/such/folder"

        def send(self, checksum, client):
            sent.append((checksum, super().send(checksum, client)))
            return sent[-1][1]

    monkeypatch.setattr("faultsim.cluster.spread.JobFiles", Elsewhere)
    generator = torch.Generator()
    generator.seed()  # images that no earlier run of this test has left there
    data = [(torch.rand(40, 3, 32, 32, generator=generator), torch.arange(40) % 10)]
    options = {"stored": subject.stored, "architecture": subject.architecture, **POINTS}
    found = faultsim.sweep(subject.model, data, range(6), **options, client=in_process)
    assert found.chip_rows() == faultsim.sweep(subject.model, data, range(6), **options).chip_rows()
    moved = {checksum: size for checksum, size in sent if size}
    assert len(moved) == 2  # the tensors and what they are for, each once
    assert max(moved.values()) > 40 * 3 * 32 * 32 * 4  # the images among them
    for checksum in moved:
        assert in_process.get_metadata(["faultsim-files", checksum]) is None  # the scheduler keeps nothing
    folder = in_process.submit(find_shared_folder, pure=False).result()
    # Dask puts the folder that holds it on the path of modules, where it must not be taken for one
    assert not folder.name.isidentifier()


def start_scheduler() -> tuple[subprocess.Popen, str]:
    """A scheduler with one worker, as `dask scheduler` and `dask worker` start them, and its address."""
    program = (
        "import distributed, sys\n"
        "cluster = distributed.LocalCluster(n_workers=1, threads_per_worker=1, host='127.0.0.1',"
        " dashboard_address='127.0.0.1:0', silence_logs=50)\n"
        "print(cluster.scheduler_address, flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", f"if __name__ == '__main__':\n    exec({program!r})"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    return process, process.stdout.readline().strip()


def test_a_scheduler_that_is_killed(subject, tmp_path, monkeypatch):
    monkeypatch.setattr("faultsim.cluster.clusters.CONNECT_SECONDS", 1.0)
    process, address = start_scheduler()
    rows = count()

    def kill_once(row) -> None:
        if next(rows) == 3:
            process.kill()

    options = {"chips": 40, **POINTS, "out": tmp_path / "run"}
    with connect(address) as workers:
        with pytest.raises(LostScheduler, match="start the same command again"):
            faultsim.sweep_subject(subject, **options, client=workers, progress=kill_once)
        process.wait()
        with pytest.raises(LostScheduler, match="start the same command again"):
            Workers(workers.client)  # as in a study that begins just when the scheduler dies
    done = [
        line for line in (tmp_path / "run" / "jobs.jsonl").read_text().splitlines() if '"correct"' in line
    ]
    assert done
    again = faultsim.sweep_subject(subject, **options)
    assert again.chip_rows() == faultsim.sweep_subject(subject, 40, **POINTS).chip_rows()


def test_no_scheduler_is_one_line(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("faultsim.cluster.clusters.CONNECT_SECONDS", 0.3)
    with pytest.raises(SystemExit) as end:
        main(
            [
                "sweep-voltage",
                "--scheduler",
                "tcp://127.0.0.1:9",
                "--images",
                "20",
                "--out",
                str(tmp_path / "out"),
            ]
        )
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(
        "faultsim: error: no scheduler answers at tcp://127.0.0.1:9: start one with `dask scheduler`"
    )
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("--workers 0", "0 workers: at least 1 is needed"),
        (
            "--workers 2 --scheduler tcp://x:1",
            "--workers cannot be combined with --scheduler, which has workers of its own",
        ),
    ],
)
def test_options_that_do_not_fit(capsys, words, line):
    with pytest.raises(SystemExit) as end:
        main(["sweep-voltage", "--images", "20", *words.split()])
    assert (end.value.code, capsys.readouterr().err) == (2, f"faultsim: error: {line}\n")
