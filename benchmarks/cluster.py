"""What do workers cost and bring? python benchmarks/cluster.py --json benchmarks/results/cluster-cpu.json

  overhead   jobs that only sleep, on many workers in this process: wall time and processor time of the engine (client,
             scheduler and workers together) for each job
  processes  jobs that do nothing on two worker processes: what a job moves over loopback, and the processor time of
             client and scheduler, which are in this process
  chip       processor time of a chip in a sweep, without an engine
  rate       chips per second of a sweep on one worker process and on two, in turns; each has one thread

From the second and the third it computes what a study of a million jobs costs on 1, 16 and 1,024 workers.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import torch
from distributed import Client, LocalCluster

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import faultsim  # noqa: E402
from faultsim.cluster.ahead import JOB_SECONDS, LEAST_SECONDS  # noqa: E402
from faultsim.cluster.clusters import start_workers  # noqa: E402
from faultsim.cluster.jobs import Job  # noqa: E402
from faultsim.cluster.workers import Workers  # noqa: E402
from faultsim.io.files import write_text  # noqa: E402
from faultsim.io.provenance import find_version, record_provenance  # noqa: E402

PAUSE = "benchmarks.cluster:pause"
STUDY = 1_000_000  # jobs
HOUSEKEEPING = {  # each of many workers in one process would look after the same process, many times a second
    "distributed.admin.tick.interval": "10 s",
    "distributed.admin.system-monitor.interval": "10 s",
    "distributed.admin.system-monitor.gil.enabled": False,
    "distributed.worker.profile.enabled": False,
}


def pause(seconds: float, number: int) -> dict[str, Any]:
    """The job that only sleeps. It takes and gives about as much as one that evaluates a chip."""
    time.sleep(seconds)
    return {"images": 359, "correct": [number]}


def pauses(count: int, seconds: float) -> Any:
    jobs: Iterator[Job] = (Job(f"pause {n}", PAUSE, {"seconds": seconds, "number": n}) for n in range(count))
    return lambda: next(jobs, None)


def measure_overhead(jobs: int, count: int, seconds: float) -> dict[str, Any]:
    """Run sleeping jobs on workers in this process."""
    with (
        dask.config.set(HOUSEKEEPING),
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=False,
            dashboard_address="127.0.0.1:0",
            memory_limit=None,
            silence_logs=50,
        ) as cluster,
        Client(cluster) as client,
        Workers(client) as workers,
    ):
        while len(workers.look()) < count:
            time.sleep(0.05)
        sum(1 for _ in workers.run(pauses(10 * count, 0.0)))  # everything is imported and connected
        wall, processor = time.perf_counter(), time.process_time()
        ended = {done.result["correct"][0] for done in workers.run(pauses(jobs, seconds))}
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
    return {
        "jobs": jobs,
        "workers": count,
        "sleep_seconds": seconds,
        "lost": jobs - len(ended),
        "wall_seconds": wall,
        "jobs_per_second": jobs / wall,
        "processor_ms_per_job": 1e3 * processor / jobs,
        "wall_ms_per_job": 1e3 * wall / jobs,
    }


def read_loopback() -> int:
    """Bytes that went over loopback so far."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        name, _, numbers = line.partition(":")
        if name.strip() == "lo":
            return int(numbers.split()[0])
    raise RuntimeError("there is no loopback")


def measure_processes(jobs: int, repeats: int) -> dict[str, Any]:
    """Run jobs on two worker processes; the least of several times: others use loopback and the processor too."""
    moved, taken = [], []
    with start_workers(2) as workers:
        while len(workers.look()) < 2:
            time.sleep(0.05)
        for _ in range(repeats):
            sum(1 for _ in workers.run(pauses(100, 0.0)))
            before, processor = read_loopback(), time.process_time()
            sum(1 for _ in workers.run(pauses(jobs, 0.0)))
            moved.append((read_loopback() - before) / jobs)
            taken.append(1e3 * (time.process_time() - processor) / jobs)
    return {
        "jobs": jobs,
        "bytes_per_job": min(moved),
        "processor_ms_per_job": min(taken),
        "all_bytes": moved,
        "all_processor_ms": taken,
    }


def measure_chip(model: str, chips: int, repeats: int) -> dict[str, Any]:
    """Sweep in this process, on one thread; the first sweep warms up and is not counted."""
    subject = faultsim.load_subject(model)
    taken = []
    for turn in range(repeats + 1):
        began = time.process_time()
        faultsim.sweep_subject(subject, chips, bit_error_rates=[0.01], seed=turn)
        taken.append((time.process_time() - began) / chips)
    return {
        "model": model,
        "images": len(subject.dataset),
        "chips": chips,
        "processor_seconds_per_chip": min(taken[1:]),
        "all": taken[1:],
    }


def measure_rate(model: str, chips: int, repeats: int) -> dict[str, Any]:
    """Sweep on one worker and on two, in turns; the first sweep of each opens the model and is not counted."""
    subject = faultsim.load_subject(model)
    rates: dict[int, list[float]] = {1: [], 2: []}
    seconds: list[float] = []
    with start_workers(1) as one, start_workers(2) as two:
        for turn in range(repeats + 1):
            for count, workers in ((1, one), (2, two)):
                began, jobs = time.perf_counter(), workers.done.total()
                faultsim.sweep_subject(subject, chips, bit_error_rates=[0.01], seed=turn, client=workers)
                taken = time.perf_counter() - began
                if turn:
                    rates[count].append(chips / taken)
                    seconds.append(taken * count / (workers.done.total() - jobs))
    best = {count: max(found) for count, found in rates.items()}
    return {
        "model": model,
        "images": len(subject.dataset),
        "chips": chips,
        "repeats": repeats,
        "chips_per_second": {str(count): found for count, found in rates.items()},
        "ratio_of_best": best[2] / best[1],
        "ratio_of_medians": statistics.median(rates[2]) / statistics.median(rates[1]),
        "seconds_per_job": statistics.median(seconds),
    }


def compute_scale(chip: float, engine_ms: float, job_bytes: float) -> list[dict[str, Any]]:
    """What a study costs: the workers share the jobs, and client and scheduler take all of them.

    A job is one chip, or as many chips as take the least and the longest time that jobs are meant to take.
    """
    engine = engine_ms / 1e3
    return [
        {
            "jobs": STUDY,
            "seconds_per_job": job,
            "workers": count,
            "hours": STUDY * max(job / count, engine) / 3600,
            "share_of_ideal": min(1.0, job / count / engine),
            "most_workers": job / engine,
            "gigabytes": STUDY * job_bytes / 1e9,
        }
        for job in (chip, LEAST_SECONDS, JOB_SECONDS)
        for count in (1, 16, 1024)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=["overhead", "processes", "chip", "rate"])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=50)
    parser.add_argument("--sleep", type=float, default=0.01)
    parser.add_argument("--model", default="DigitsVGG")
    parser.add_argument("--chips", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--json", type=Path, help="write the results into this file; parts that are there stay"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    content = json.loads(args.json.read_text()) if args.json and args.json.exists() else {}
    content |= {
        "benchmark": "cluster",
        "distributed": find_version("distributed"),
        **record_provenance("cpu"),
    }
    measures = {
        "overhead": lambda: measure_overhead(args.jobs, args.workers, args.sleep),
        "processes": lambda: measure_processes(1000, args.repeats),
        "chip": lambda: measure_chip(args.model, args.chips, args.repeats),
        "rate": lambda: measure_rate(args.model, args.chips, args.repeats),
    }
    for part in args.parts:
        content[part] = measures[part]()
        print(part, json.dumps(content[part], indent=1), flush=True)
        if {"processes", "chip"} <= content.keys():
            content["scale"] = compute_scale(
                content["chip"]["processor_seconds_per_chip"],
                content["processes"]["processor_ms_per_job"],
                content["processes"]["bytes_per_job"],
            )
        if args.json:
            write_text(args.json, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
