"""Generators trained on one GPU, the most valuable first, until the time is up: python3 tools/gpu_training.py

    python3 tools/gpu_training.py --packs DATA/*.npz --out RUN --budget 9m --archive kept.tar
    python3 tools/gpu_training.py --plan                        # the jobs in order, with what they may cost
    python3 tools/gpu_training.py --scale small --out RUN       # the same chain on digits, on a CPU

Needs what `make gpu-check` needs, and no network. Builds the CUDA kernels in place, unpacks containers of images
(tools/packed.py), and runs one job after the other by `faultsim train-base`, `train-generator` and `reproduce`,
two side by side: a base model, a generator by staged training with its evaluation, or, for comparison, one by plain
EOPM until it has converged or a share of the time is used. RUN/kept is small, and whole at any instant: results, logs,
int8 weights of generators, class patterns and summary.json; `reproduce table1 --show --out RUN/kept` shows it. Started
again, it goes on: what RUN/kept holds is not done again, and trainings that were cut off go on from RUN/work. Exit
status: 0 unless a job failed (1) or nothing could be run (2).
"""

import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]
import gpu_check  # noqa: E402
import packed  # noqa: E402

from faultsim.errors import FaultsimError  # noqa: E402
from faultsim.io.files import write_atomically, write_text  # noqa: E402
from neuralfuse.paper.budget import count_operations, format_duration  # noqa: E402
from neuralfuse.paper.cells import select_cells, trained_by  # noqa: E402
from neuralfuse.paper.plan import Kind, file_of, plan_steps  # noqa: E402
from neuralfuse.paper.result import Cell, read  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
MODELS = ROOT / "results/models"  # base models that come with the sources
TABLES = {0.01: "table1", 0.005: "table9"}
# The large ones first, and never two with the same encoder one after the other: the second takes over the classifier.
GENERATORS = ("UNetL", "ConvL", "UNetS", "DeConvL", "ConvS", "DeConvS")
TAKES_OVER = {"DeConvL": "ConvL", "DeConvS": "ConvS"}
STAGES = (".classifier.safetensors", ".patterns.safetensors")  # files that other generators can begin with
# How data sets are told in --data-dir, in any of the forms that faultsim reads.
FOLDERS = {"cifar10": "cifar-10-*", "cifar100": "cifar-100-*", "gtsrb": "[gG][tT][sS][rR][bB]*"}
MOST = 15 << 20  # bytes of RUN/kept: weights that don't fit are left out, and named in the summary
LINES = 20  # of the output of a job that failed
TIME_IS_UP = (
    "the time is up"  # how a training says that its budget is used (faultsim.training.loop.OutOfTime)
)


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    jobs: Callable[[str], list["Job"]]  #: by the recipe of base models that don't come with the sources
    common: tuple[str, ...] = ()  #: options of `reproduce`
    base: tuple[str, ...] = ()  #: of `train-base`
    staged: tuple[str, ...] = ()  #: of `train-generator` for staged jobs; none: `reproduce` trains
    eopm: tuple[str, ...] = ()  #: of `train-generator` for plain EOPM
    speed: float = 2e13  #: multiply-accumulate operations a second: a guess that finished jobs correct
    start: float = 15.0  #: seconds that a process takes before and after its work
    margin: float = 12.0  #: seconds between the end of the trainings and that of the budget


@dataclass(frozen=True)
class Job:
    """One file to obtain: a base model, or the accuracy behind one generator."""

    kind: Kind  #: BASE or RESULT
    cell: Cell
    recipe: str  #: of the base model

    def file(self, kind: Kind, folder: Path) -> Path:
        return file_of(kind, self.cell, self.recipe, folder)

    def target(self, folder: Path) -> Path:
        return self.file(self.kind, folder)

    @property
    def name(self) -> str:
        return self.target(Path()).stem

    @property
    def comparison(self) -> bool:
        """Whether it is plain EOPM."""
        return self.kind is Kind.RESULT and self.cell.spec.trainer is None

    def own(self) -> tuple[str, ...]:
        """How the names of its files begin."""
        kinds = (self.kind,) if self.kind is Kind.BASE else (Kind.UNPROTECTED, Kind.GENERATOR, self.kind)
        return tuple(f"{self.file(kind, Path()).stem}." for kind in kinds)


# -- which jobs there are ---------------------------------------------------------------------------------------


def of_table(
    recipe: str,
    dataset: str,
    base: str,
    faults: str = "neuralfuse_2022",
    rate: float = 0.01,
    generators: Sequence[str] = GENERATORS,
    trainer: str = "staged",
) -> list[Job]:
    """The cells of a base model that the paper's table has, in the order of `generators`."""
    found = select_cells(TABLES[rate], [dataset], [base], faults=[faults])
    by_name = {cell.spec.name: trained_by(cell, trainer) for cell in found}
    return [Job(Kind.RESULT, by_name[name], recipe) for name in generators if name in by_name]


def with_bases(jobs: Sequence[Job]) -> list[Job]:
    """Each base model before the first job that needs it."""
    found: dict[Job, None] = {}
    for job in jobs:
        found.setdefault(
            Job(Kind.BASE, replace(job.cell, generator=None, faults="", bit_error_rate=0), job.recipe)
        )
        found.setdefault(job)
    return list(found)


def full_jobs(recipe: str) -> list[Job]:
    """In order of value."""

    def of(dataset: str, base: str, *options: object, **more: object) -> list[Job]:
        return of_table(
            "paper" if (dataset, base) == ("cifar10", "VGG11") else recipe, dataset, base, *options, **more
        )

    bases, other = ("VGG11", "ResNet18", "VGG16", "VGG19", "ResNet50"), "iid_flips"
    jobs = of("cifar10", "VGG11") + of("cifar10", "VGG11", generators=("UNetL", "ConvS"), trainer="eopm")
    for base in bases[1:]:
        jobs += of("cifar10", base)
    for base in bases:
        jobs += of("cifar10", base, other)
    for faults in ("neuralfuse_2022", other):
        for base in bases:
            jobs += of("cifar10", base, faults, 0.005)
    for rate in (0.01, 0.005):
        for base in bases:
            jobs += of("gtsrb", base, rate=rate) if has("gtsrb", base, rate) else []
    # ResNet18 first: the paper's gain is smallest there
    for rate in (0.01, 0.005):
        for base in ("ResNet18", "VGG11", "VGG16", "VGG19", "ResNet50"):
            jobs += of("cifar100", base, rate=rate) if has("cifar100", base, rate) else []
    return with_bases(jobs)


def has(dataset: str, base: str, rate: float) -> bool:
    return any((cell.dataset, cell.base) == (dataset, base) for cell in select_cells(TABLES[rate]))


def small_jobs(recipe: str) -> list[Job]:
    """A base model, and one generator by each trainer."""
    found = select_cells("table1", generators=["UNetS"], faults=["neuralfuse_2022"], smoke=True)[:1]
    return with_bases(
        [Job(Kind.RESULT, trained_by(found[0], trainer), recipe) for trainer in ("staged", "eopm")]
    )


SCALES = {
    "full": Scale(full_jobs, common=("--precision", "bfloat16"), eopm=("--precision", "bfloat16", "--epochs", "1000")),
    "small": Scale(
        small_jobs,
        common=("--smoke", "--base-epochs", "2"),
        base=("--epochs", "2"),
        staged=(
            "--classifier-epochs", "1", "--pattern-epochs", "1", "--drawing-epochs", "1", "--epochs", "1",
            "--n-models", "1",
        ),
        eopm=("--n-models", "1", "--epochs", "50"),
        speed=2e10,
        start=5.0,
        margin=1.0,
    ),
}  # fmt: skip


def estimate(job: Job, scale: Scale, share: float) -> float:
    """Seconds, where nothing is taken over from other jobs."""
    if job.comparison:
        return share + 2 * scale.start
    kinds = (Kind.BASE,) if job.kind is Kind.BASE else (Kind.GENERATOR, Kind.UNPROTECTED, Kind.RESULT)
    from faultsim.training.classifier import choose_recipe
    from neuralfuse.stages import EOPM_STAGE

    epochs = choose_recipe(job.recipe, job.cell.dataset).epochs
    planned = plan_steps([job.cell], job.recipe, Path(), (job.kind,))
    work = sum(
        count_operations(
            step, base_epochs=epochs, epochs=EOPM_STAGE["max_epochs"], n_models=EOPM_STAGE["n_models"]
        )
        for step in planned
        if step.kind in kinds
    )
    return work / scale.speed + scale.start


# -- what a job runs --------------------------------------------------------------------------------------------


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
        elif self.scale.staged and not made.exists():
            stages = ("--trainer", "staged", "--reuse", str(folder))
            yield Command((*train, *stages, *self.scale.staged, *budget(self.left())))
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
                env={**os.environ, "PYTHONPATH": str(ROOT)},
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
            same = TAKES_OVER.get(job.cell.spec.name)
            if plant.base(job) is None or (job.cell.dataset, same) in busy:
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


# -- the machine and its data -----------------------------------------------------------------------------------


@dataclass
class Unpacking:
    """Containers of images that become folders, each data set by a process of its own."""

    plant: Plant
    processes: dict[str, subprocess.Popen] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def begin(self, packs: Sequence[Path]) -> None:
        by_dataset: dict[str, list[str]] = {}
        for path in packs:
            by_dataset.setdefault(dataset_of(path), []).append(str(path.resolve()))
        for dataset, paths in by_dataset.items():
            if self._folder(dataset).exists():
                self.plant.data[dataset] = self._folder(dataset)
                continue
            part = self._folder(dataset).with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.parent.mkdir(parents=True, exist_ok=True)
            words = [sys.executable, str(ROOT / "tools/packed.py"), *paths, "--out", str(part)]
            self.processes[dataset] = subprocess.Popen(
                words,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                preexec_fn=die_with_parent,
            )

    def poll(self) -> bool:
        for dataset, process in list(self.processes.items()):
            if process.poll() is None:
                continue
            del self.processes[dataset]
            folder = self._folder(dataset)
            if process.returncode:
                self.failed[dataset] = (process.stderr.read().strip().splitlines() or ["no output"])[-1]
                print(f"{dataset} cannot be unpacked: {self.failed[dataset]}", flush=True)
                continue
            folder.with_suffix(".part").rename(folder)
            self.plant.data[dataset] = folder
        return bool(self.processes)

    def _folder(self, dataset: str) -> Path:
        return self.plant.out / "data" / dataset


def dataset_of(path: Path) -> str:
    """What a container says it holds; whether it does, its unpacking finds out."""
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(str(packed.Arrays(path, archive).get("meta", "U", (), 1 << 20)))["dataset"]
    except (OSError, zipfile.BadZipFile, ValueError, LookupError, TypeError) as error:
        raise gpu_check.Refused(f"{path} is no container of images: {error}") from None


def prepare(asked: str, build: bool) -> tuple[dict, str]:
    """(what the summary says of the machine, the device of the jobs); builds for a GPU. Raises Refused."""
    if asked == "cpu":
        told = subprocess.run(
            [sys.executable, "-c", gpu_check.FACTS], cwd=ROOT, capture_output=True, text=True
        )
        if told.returncode:
            raise gpu_check.Refused(f"torch cannot be used: {told.stderr.strip().splitlines()[-1:]}")
        return json.loads(told.stdout.splitlines()[-1]) | {"device": "cpu"}, "cpu"
    about, architecture, environment = gpu_check.machine()
    if build:
        part = gpu_check.parts(architecture, environment)[0]
        record = gpu_check.run(part, environment)
        print(f"build    {record['outcome']}, {record['seconds']:.0f} s", flush=True)
        if record["outcome"] != "passed":
            raise gpu_check.Refused("\n".join(["the kernels cannot be built:", *record["output"]]))
    for name in ("check", "command"):
        about.pop(name)
    return about, "cuda"


def earlier(path: Path) -> dict:
    """The summary of a run that goes on."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise gpu_check.Refused(f"{path} cannot be read ({error}): move it away") from None


def seconds_of(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match or float(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: write a time like 90s, 9m or 2h")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]]


def archive(kept: Path, path: Path) -> None:
    """RUN/kept as one file: unpacked into another RUN, that goes on from it."""

    def write(temporary: Path) -> None:
        with tarfile.open(temporary, "w") as tar:
            tar.add(kept, "kept")

    write_atomically(path, write)


def show(jobs: Sequence[Job], plant: Plant, estimates: dict[str, float]) -> None:
    """The plan."""
    total = 0.0
    for number, job in enumerate(jobs, 1):
        done = plant.is_done(job)
        total += 0 if done else estimates[job.name]
        cost = "there" if done else f"{format_duration(estimates[job.name])}, {format_duration(total)} in all"
        print(f"{number:4}. {job.name}: {cost}")
    print(
        "Seconds of one process by itself, roughly guessed for an H100; what is taken over from others costs nothing."
    )


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add = found.add_argument
    add(
        "--packs",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE.npz",
        help="data sets, see tools/packed.py",
    )
    add("--data-dir", type=Path, help="or: the folder that holds the data sets")
    add(
        "--out",
        type=Path,
        default=Path("runs/gpu-training"),
        metavar="RUN",
        help="goes on where there is something",
    )
    add("--archive", type=Path, metavar="FILE.tar", help="RUN/kept as one file, written anew after each job")
    add(
        "--budget",
        type=seconds_of,
        default=600.0,
        metavar="TIME",
        help="for all, like 90s or 9m [default: 10m]",
    )
    add(
        "--eopm-share",
        type=float,
        default=0.25,
        help="of the budget, for each training by plain EOPM [default: 0.25]",
    )
    add("--lanes", type=int, default=2, help="jobs side by side [default: 2]")
    add(
        "--scale",
        choices=SCALES,
        default="full",
        help="small: the same chain on digits and tiny networks, on a CPU",
    )
    add("--device", choices=("cuda", "cpu"), help="[default: cuda; small: cpu]")
    add(
        "--recipe", default="modern", help="of base models that don't come with the sources [default: modern]"
    )
    add(
        "--jobs",
        default="",
        metavar="PATTERN",
        help="only those whose name this regular expression finds, and bases",
    )
    add(
        "--keep-bases",
        action="store_true",
        help="keeps the weights of base models too, as far as there is room",
    )
    add("--no-build", action="store_true", help="the kernels are built already")
    add("--plan", action="store_true", help="say the jobs in order with what they may cost, and do none")
    add("--commit", default=gpu_check.archived(), help="of the sources, where git does not know them")
    return found


def chosen(jobs: Sequence[Job], pattern: str) -> list[Job]:
    results = [job for job in jobs if job.kind is Kind.RESULT and re.search(pattern, job.name)]
    wanted = set(with_bases(results))
    return [job for job in jobs if job in wanted]


def run(options: argparse.Namespace, began: float) -> int:
    scale, small = SCALES[options.scale], options.scale == "small"
    share = options.eopm_share * options.budget
    if not 0 < options.eopm_share <= 1 or options.lanes < 1:
        raise gpu_check.Refused("--eopm-share must be above 0 and at most 1, --lanes at least 1")
    out = options.out.resolve()
    plant = Plant(out, scale, "", share, began + options.budget, keep_bases=options.keep_bases)
    jobs = chosen(scale.jobs(options.recipe), options.jobs)
    if not jobs:
        raise gpu_check.Refused(f"--jobs {options.jobs!r} finds none")
    estimates = {job.name: round(estimate(job, scale, share), 1) for job in jobs}
    if options.plan:
        show(jobs, plant, estimates)
        return 0
    before = earlier(plant.kept / "summary.json")
    unpacking = Unpacking(plant)
    unpacking.begin(options.packs)  # while the kernels are built
    plant.data["digits"] = None
    if options.data_dir is not None:
        found = [name for name, pattern in FOLDERS.items() if any(options.data_dir.glob(pattern))]
        plant.data |= dict.fromkeys(found, options.data_dir.resolve())
    if not {job.cell.dataset for job in jobs} & {*plant.data, *unpacking.processes}:
        raise gpu_check.Refused("none of the data sets is there: give --packs or --data-dir")
    about, plant.device = prepare(options.device or ("cpu" if small else "cuda"), not options.no_build)
    records = before.get("jobs", {})
    # a base model is trained for those who need it
    open_results = [job for job in jobs if job.kind is Kind.RESULT and not plant.is_done(job)]
    needed = set(with_bases(open_results))
    for job in jobs:
        record = records.setdefault(job.name, {})
        done = plant.is_done(job) or (job.kind is Kind.BASE and job not in needed)
        record |= {"outcome": "done" if done else "waiting", "estimated_s": estimates[job.name]}
    sessions = before.get("sessions", [])
    session = {**about, "commit": gpu_check.commit() or options.commit, "date": gpu_check.now()}
    summary = {
        "benchmark": "gpu-training", "scale": options.scale, "lanes": options.lanes, "budget_s": options.budget,
        "sessions": [*sessions, session], "jobs": records, "left_out": before.get("left_out", []),
    }  # fmt: skip

    def save() -> None:
        session["seconds"] = round(time.monotonic() - began, 1)
        write_text(plant.kept / "summary.json", json.dumps(summary, indent=2) + "\n")
        if options.archive is not None:
            archive(plant.kept, options.archive)

    plant.kept.mkdir(parents=True, exist_ok=True)
    for half in plant.kept.glob(".*"):  # a run that was killed in the middle of writing left it
        half.unlink()
    save()
    perform(jobs, plant, options.lanes, summary, save, unpacking.poll)
    outcomes = [records[job.name]["outcome"] for job in jobs]
    counts = ", ".join(f"{outcomes.count(word)} {word}" for word in dict.fromkeys(outcomes))
    print(f"{counts} after {session['seconds']:.0f} s: {plant.kept}")
    return 1 if "failed" in outcomes or unpacking.failed else 0


def main() -> int:
    began = time.monotonic()
    gpu_check.signal_handlers()
    try:
        return run(parser().parse_args(), began)
    except (gpu_check.Refused, FaultsimError) as error:
        print(f"gpu-training: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ngpu-training: interrupted; what was finished is kept", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
