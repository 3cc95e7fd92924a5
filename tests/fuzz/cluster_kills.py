"""Kills workers, schedulers and coordinators of sweeps at random instants, and looks whether the same command ends in
the same bytes.

    TMPDIR=/dev/shm python tests/fuzz/cluster_kills.py --workers 200 --schedulers 20 --coordinators 100 --seed 0

A cluster of two workers lives in a process of its own; the sweep (on 10 digits) is a fork of this process, with the
cluster's scheduler. It runs once in one process, undisturbed. Then it is started again and again in other folders, and
in each run workers, the scheduler (with all that hangs on it) or the sweep itself are killed at random instants, until
it has come to its end; what it wrote must hold the same bytes, but for the journal of who computed what. Prints one
line for each finding and the figures, and ends with status 1 if there are findings.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch comes: forks have no threads
sys.path.insert(0, str(Path(__file__).parent))

import kills

SWEEP = ("sweep-voltage", "--bit-error-rates", "0,0.01,0.03", "--chips", "40", "--images", "10", "--device",
         "cpu", "--out", "OUT")  # fmt: skip
LONGEST = 5.0  # seconds from one kill to the next, at most
MOST = {"worker": 12, "scheduler": 2, "coordinator": 12}  # kills of one run
CLUSTER = """
import json, multiprocessing, sys
import dask, distributed
from distributed.utils import get_mp_context
if __name__ == "__main__":
    # workers are forks of a process that has done their imports
    get_mp_context().set_forkserver_preload(["distributed", "matplotlib", "torch", "faultsim.cluster.study"])
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", silence_logs=50
    )
    print(cluster.scheduler_address, flush=True)
    for line in sys.stdin:
        cluster.scale(2)  # Dask gives a worker up that dies before it joined: another one in its place
        # those that joined
        print(json.dumps([worker.pid for worker in list(cluster.scheduler.workers.values())]), flush=True)
"""


class Cluster:
    """A scheduler and two workers, in a process of its own."""

    def __init__(self) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as file:
            file.write(CLUSTER)
        self.program = Path(file.name)
        environment = os.environ | {"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver"}
        self.process = subprocess.Popen(
            [sys.executable, file.name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            text=True, env=environment,
        )  # fmt: skip
        self.address = self.process.stdout.readline().strip()

    def workers(self) -> list[int]:
        self.process.stdin.write("pids\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def kill(self) -> None:
        """At once, with its workers: none of them is asked."""
        for pid in [*self.workers(), self.process.pid]:
            kill(pid, signal.SIGKILL)
        self.process.wait()
        self.program.unlink()


def kill(pid: int, by: signal.Signals) -> bool:
    try:
        os.kill(pid, by)
    except ProcessLookupError:
        return False
    return True


@dataclass
class Count:
    """What was killed."""

    worker: int = 0
    scheduler: int = 0
    coordinator: int = 0


def disturb(
    what: str, out: Path, cluster: Cluster, rng: random.Random, left: int, seconds: float
) -> tuple[Cluster, int, list[str]]:
    """One sweep to its end, in which `what` is killed, and (the cluster that lives, kills, findings)."""
    done = 0
    while True:
        words = [*(word.replace("OUT", str(out)) for word in SWEEP), "--scheduler", cluster.address]
        run, told = kills.Fork(words), False
        while run._process.exitcode is None and done < min(MOST[what], left):
            run._process.join(rng.uniform(0, min(seconds, LONGEST)))
            if run._process.exitcode is not None:
                break
            if what == "worker":
                alive = cluster.workers()
                done += bool(alive) and kill(rng.choice(alive), signal.SIGKILL)
            elif what == "scheduler":
                cluster.kill()
                done, told = done + 1, True
                cluster = Cluster()
                break
            else:
                done += kill(run._process.pid, rng.choice((signal.SIGKILL, signal.SIGINT)))
                told = True
                break
        status, errors = run.end()
        if status == 0:
            return cluster, done, []
        if what == "worker":  # several deaths of one job in a row
            fine = status == 2 and "the same command tries again" in errors
        elif what == "scheduler":
            fine = (
                told and status == 2 and "start the same command again, with a scheduler that runs" in errors
            )
        else:
            fine = told and (
                status in (-signal.SIGKILL, -signal.SIGINT, 130) or "KeyboardInterrupt" in errors
            )
        if not fine:
            what_then = "hangs" if status is None else f"status {status}"
            return cluster, done, [f"{what}: {what_then} after {done} kills: {errors.strip()[-900:]}"]
        if what == "scheduler" and errors.count("\n") - errors.count("s left") > 1:
            print(f"a lost scheduler is told as {errors.strip()[-600:]}", flush=True)


def contents(folder: Path) -> dict[str, Any]:
    return kills.contents(folder, but=("jobs.jsonl",))


def prepare(out: Path) -> float:
    """Sweep undisturbed in a fork, and return how long that took."""
    began = time.monotonic()
    status, errors = kills.Fork([word.replace("OUT", str(out)) for word in SWEEP]).end()
    if status:
        sys.exit(f"it fails undisturbed: {errors}")
    return time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for what in ("worker", "scheduler", "coordinator"):
        parser.add_argument(f"--{what}s", type=int, default=0, help=f"kills of {what}s")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    kills.import_all()
    import distributed  # noqa: F401

    import faultsim.cluster.spread  # noqa: F401

    began, count, runs, findings = time.monotonic(), Count(), 0, []
    with tempfile.TemporaryDirectory() as folder:
        seconds = prepare(Path(folder) / "whole")
        whole = contents(Path(folder) / "whole")
        print(f"undisturbed: {seconds:.1f} s", flush=True)
        cluster = Cluster()
        for what in ("worker", "scheduler", "coordinator"):
            wanted = getattr(options, f"{what}s")
            while getattr(count, what) < wanted:
                out = Path(folder) / str(runs)
                left = wanted - getattr(count, what)
                cluster, done, found = disturb(what, out, cluster, rng, left, seconds)
                if not found:
                    ours = contents(out)
                    differ = [n for n in sorted(whole.keys() | ours.keys()) if whole.get(n) != ours.get(n)]
                    found = [f"{what}: after {done} kills {', '.join(differ)} differ"] if differ else []
                setattr(count, what, getattr(count, what) + done)
                runs += 1
                findings += found
                for line in found:
                    print(f"FINDING {line}", flush=True)
                print(f"{runs} runs, {count}, {time.monotonic() - began:.0f} s", flush=True)
        cluster.kill()
    print(f"{runs} runs, {count}: {len(findings)} findings in {time.monotonic() - began:.0f} s")
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
