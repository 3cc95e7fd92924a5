"""How tools/gpu_training.py runs a job: its commands, their processes, and the files that are kept."""

import contextlib
import ctypes
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gpu_jobs import TABLES, Job, Scale

from faultsim.io.files import write_atomically
from faultsim.show.units import format_duration
from neuralfuse.paper.plan import Kind
from neuralfuse.paper.result import read

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "results/models"  # base models that come with the sources
TAKES_OVER = {"DeConvL": "ConvL", "DeConvS": "ConvS"}
STAGES = (".classifier.safetensors", ".patterns.safetensors")  # files that other generators can begin with
MOST = 15 << 20  # bytes of RUN/kept: weights that don't fit are left out, and named in the summary
LINES = 20  # of the output of a job that failed
TIME_IS_UP = (
    "the time is up"  # how a training says that its budget is used (faultsim.training.loop.OutOfTime)
)


@dataclass(frozen=True)
class Command:
    words: tuple[str, ...]
    may_stop: bool = False  #: whether the job goes on where its own budget, a share of all, is used


@dataclass
class Plant:
    """Where jobs run, and with what."""

    out: Path
    scale: Scale
    device: str
    share: float  #: seconds of plain EOPM
    deadline: float  #: of all, as time.monotonic() counts
    data: dict[str, Path | None] = field(default_factory=dict)  #: folder of each data set that is there
    keep_bases: bool = False

    @property
    def kept(self) -> Path:
        return self.out / "kept"

    def left(self) -> float:
        """Seconds for training and evaluation."""
        return self.deadline - self.scale.margin - time.monotonic()

    def base(self, job: Job) -> Path | None:
        """The base model's file, where there is one."""
        name = job.file(Kind.BASE, Path()).name
        places = (MODELS, self.out / "bases", self.kept)
        return next((place / name for place in places if (place / name).exists()), None)

    def is_done(self, job: Job) -> bool:
        return self.base(job) is not None if job.kind is Kind.BASE else job.target(self.kept).exists()

    def folder(self, job: Job) -> Path:
        """The job's run directory, made once with what other jobs left that it can use: a training that goes on finds
        what it began with."""
        folder = self.out / "work" / job.name
        if folder.exists():
            return folder
        fresh = folder.with_name(f"{folder.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        if job.kind is Kind.RESULT:
            shutil.copy2(self.base(job), job.file(Kind.BASE, fresh))
            for path in self.kept.glob("*"):
                stage = path.name.endswith(STAGES) and f"-{job.cell.dataset}-" in path.name
                if path.name.startswith(job.own()) or stage:
                    shutil.copy2(path, fresh / path.name)
        fresh.rename(folder)
        return folder

    def commands(self, job: Job, folder: Path) -> Iterator[Command]:
        """One after the other; each is asked for when the one before has ended."""
        data = self.data[job.cell.dataset]
        where = ("--device", self.device, *(("--data-dir", str(data)) if data else ()))

        def budget(seconds: float) -> tuple[str, str]:
            return "--budget", f"{max(seconds, 1):.0f}s"

        if job.kind is Kind.BASE:
            words = (
                "train-base", "--model", job.cell.base, "--dataset", job.cell.dataset, "--recipe", job.recipe,
                *self.scale.base, "--out", str(job.target(folder)), *where, *budget(self.left()),
            )  # fmt: skip
            yield Command(words)
            return
        cell, made = job.cell, job.file(Kind.GENERATOR, folder)
        train = (
            "train-generator", "--generator", cell.spec.name, "--out", str(made),
            "--base", str(job.file(Kind.BASE, folder)), "--dataset", cell.dataset, "--preset", cell.faults,
            "--bit-error-rate", f"{cell.bit_error_rate:g}", *where,
        )  # fmt: skip
        if job.comparison:
            if not made.exists():
                yield Command(
                    (*train, *self.scale.eopm, *budget(min(self.share, self.left()))), may_stop=True
                )
            if not made.exists():  # the epoch that has begun is the last one
                log = made.with_suffix(".log.jsonl")
                done = len(log.read_text(encoding="utf-8").splitlines()) if log.exists() else 0
                last = ("--epochs", str(done + 1))
                yield Command((*train, *self.scale.eopm, *last, *budget(self.left())))
        elif self.scale.stages and not made.exists():
            more = self.scale.staged if cell.spec.trainer == "staged" else ()
            stages = ("--trainer", cell.spec.trainer, "--reuse", str(folder), *self.scale.stages, *more)
            yield Command((*train, *stages, *budget(self.left())))
        rows = ("--dataset", cell.dataset, "--base", cell.base) if "--smoke" not in self.scale.common else ()
        yield Command((
            "reproduce", TABLES[cell.bit_error_rate], *rows, "--generator", cell.spec.name,
            "--faults", cell.faults, "--recipe", job.recipe, "--trainer", cell.spec.trainer or "eopm",
            *self.scale.common, "--out", str(folder), *where, *budget(self.left()),
        ))  # fmt: skip

    def keep(self, job: Job, folder: Path) -> list[str]:
        """Copies what is worth keeping of a job, as far as it is there; the names of what would be too large."""
        left_out = []
        for path in sorted(folder.glob("*")):
            if not path.name.startswith(job.own()) or ".state." in path.name or path.suffix == ".lock":
                continue
            weights = path.suffix == ".safetensors"
            if job.kind is Kind.BASE and weights:
                put(path, self.out / "bases" / path.name)
                if not self.keep_bases:
                    continue
            there = self.kept / path.name
            if there.exists() and there.stat().st_mtime >= path.stat().st_mtime:
                continue
            if path.name.endswith(STAGES) and content(path) in map(
                content, self.kept.glob(f"*{path.suffixes[-2]}*")
            ):
                continue  # taken over from another job
            size = sum(each.stat().st_size for each in self.kept.glob("*") if each != there)
            if weights and size + path.stat().st_size > MOST:
                left_out.append(path.name)
                continue
            put(path, there)
        return left_out


def content(path: Path) -> str:
    """SHA-256 (hex) of the tensors of a safetensors file, whatever its metadata say."""
    data = path.read_bytes()
    return hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()


def put(path: Path, there: Path) -> None:
    """A copy, whole at any instant."""
    there.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(there, lambda temporary: shutil.copy2(path, temporary))


# -- running ----------------------------------------------------------------------------------------------------


@dataclass
class Running:
    """A job that runs now."""

    job: Job
    folder: Path
    commands: Iterator[Command]
    output: Path
    record: dict
    began: float
    command: Command | None = None
    process: subprocess.Popen | None = None

    def next(self) -> bool:
        """Starts the next command; False where there is none."""
        self.command = next(self.commands, None)
        if self.command is None:
            return False
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "faultsim", *self.command.words],
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        return True

    def said(self) -> list[str]:
        return self.output.read_text(encoding="utf-8", errors="replace").splitlines()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def die_with_parent() -> None:
    """A job holds its run directory: none may outlive this program, however that ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def perform(
    jobs: Sequence[Job],
    plant: Plant,
    lanes: int,
    summary: dict,
    save: Callable[[], None],
    poll: Callable[[], bool],
) -> None:
    """Runs jobs, `lanes` at a time, until all are done or the time is up. `summary` holds a record of each, `save` is
    called where one has changed; `poll` makes data ready, and says whether more may come."""
    records = summary["jobs"]
    running: list[Running] = []
    expected = taken = 0.0
    looked = time.monotonic()
    try:
        while True:
            more = poll()
            for run in [run for run in running if run.process.poll() is not None]:
                outcome = ended(run, plant)
                if outcome is None:
                    continue
                running.remove(run)
                seconds = time.monotonic() - run.began
                if outcome == "done" and not run.job.comparison:
                    expected, taken = expected + run.record["estimated_s"], taken + seconds
                close(run, plant, outcome, summary)
                save()
            now = time.monotonic()
            if now > plant.deadline:
                return
            correction = taken / expected if expected > 2 * plant.scale.start else 1.0
            while len(running) < lanes and plant.left() > plant.scale.margin:
                job = choose(jobs, records, running, plant, correction)
                if job is None:
                    break
                running.append(begin(job, plant, records[job.name]))
                save()
            if not running and not (more and plant.left() > plant.scale.margin):
                return
            if now - looked > 5:  # a kill loses little
                looked = now
                for run in running:
                    plant.keep(run.job, run.folder)
            time.sleep(0.1)
    finally:
        for run in running:
            run.stop()
            close(run, plant, "cut off", summary)
        save()


def choose(
    jobs: Sequence[Job], records: dict, running: Sequence[Running], plant: Plant, correction: float
) -> Job | None:
    """The next job: the first in order that is ready and fits; where none fits, the first that is ready, which goes on
    another time."""
    busy = {(run.job.cell.dataset, run.job.cell.spec.name) for run in running if run.job.cell.generator}
    ready = []
    for job in jobs:
        if records[job.name]["outcome"] != "waiting" or job.cell.dataset not in plant.data:
            continue
        if job.kind is Kind.RESULT:
            same = {TAKES_OVER.get(job.cell.spec.name)}
            if job.cell.spec.in_stages:
                same.add(job.cell.spec.name)  # its look-up
            if plant.base(job) is None or any((job.cell.dataset, name) in busy for name in same):
                continue
        ready.append(job)
    fitting = (job for job in ready if records[job.name]["estimated_s"] * correction <= plant.left())
    return next(fitting, ready[0] if ready else None)


def begin(job: Job, plant: Plant, record: dict) -> Running:
    folder = plant.folder(job)
    output = plant.out / "work" / f"{job.name}.out"
    run = Running(job, folder, plant.commands(job, folder), output, record, time.monotonic())
    record["outcome"] = "running"
    run.next()
    print(f"begun    {job.name} (about {format_duration(record['estimated_s'])})", flush=True)
    return run


def ended(run: Running, plant: Plant) -> str | None:
    """What came of a job whose command has ended; None where another command was begun."""
    plant.keep(run.job, run.folder)
    stopped = any(TIME_IS_UP in line for line in run.said())
    if run.process.returncode and not stopped:
        return "failed"
    if stopped and not run.command.may_stop:
        return "cut off"
    if run.next():
        return None
    return "done" if run.job.target(run.folder).exists() else "cut off"


def close(run: Running, plant: Plant, outcome: str, summary: dict) -> None:
    """Keeps what there is, and writes the record."""
    left_out = plant.keep(run.job, run.folder)
    summary["left_out"] = sorted({*summary["left_out"], *left_out})
    seconds = time.monotonic() - run.began
    run.record |= {"outcome": outcome, "seconds": round(run.record.get("seconds", 0) + seconds, 1)}
    run.record.pop("output", None)
    if outcome == "failed":
        run.record["output"] = run.said()[-LINES:]
    elif outcome == "done" and run.job.kind is Kind.RESULT:
        run.record |= accuracies(run.job.target(run.folder))
    if outcome == "done":
        shutil.rmtree(run.folder, ignore_errors=True)
    said = run.record.get("accuracy") or run.said()[-1:] or ""
    print(f"{outcome:<8} {run.job.name} {seconds:.0f} s {said}", flush=True)


def accuracies(path: Path) -> dict:
    """Of a result: in percent, and what the training of its generator took."""
    result = read(path)
    parts = {"C.A.": "clean", "P.A.": "perturbed", "C.A.+N.F.": "clean_fused", "P.A.+N.F.": "perturbed_fused"}
    return {
        "accuracy": {name: round(result.mean(part), 2) for name, part in parts.items()},
        "base_passes": result.base_passes,
    }
