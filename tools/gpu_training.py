"""Generators trained on one GPU, the most valuable first, until the time is up: python3 tools/gpu_training.py

    python3 tools/gpu_training.py --packs DATA/*.npz --out RUN --budget 9m --archive kept.tar
    python3 tools/gpu_training.py --plan                        # the jobs in order, with what they may cost
    python3 tools/gpu_training.py --scale small --out RUN       # the same chain on digits, on a CPU

Needs what `make gpu-check` needs, and no network. Builds the CUDA kernels in place, unpacks containers of images
(tools/packed.py), and runs one job after the other by `faultsim train-base`, `train-generator` and `reproduce`,
two side by side: a base model, a look-up or a generator by staged training with its evaluation, or, for comparison, one
by plain EOPM until it has converged or a share of the time is used. RUN/kept is small, and whole at any instant:
results, logs, int8 weights of generators, class patterns and summary.json; `reproduce table1 --show --out RUN/kept`
shows it. Started again, it goes on: what RUN/kept holds is not done again, and trainings that were cut off go on from
RUN/work. Exit status: 0 unless a job failed (1) or nothing could be run (2).
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]
import gpu_check  # noqa: E402
import packed  # noqa: E402
from gpu_jobs import SCALES, Job, estimate, with_bases  # noqa: E402
from gpu_runs import Plant, die_with_parent, perform  # noqa: E402

from faultsim.errors import FaultsimError  # noqa: E402
from faultsim.io.files import write_atomically, write_text  # noqa: E402
from faultsim.show.units import format_duration  # noqa: E402
from neuralfuse.paper.plan import Kind  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
# How data sets are told in --data-dir, in any of the forms that faultsim reads.
FOLDERS = {"cifar10": "cifar-10-*", "cifar100": "cifar-100-*", "gtsrb": "[gG][tT][sS][rR][bB]*"}


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
    add(
        "--commit",
        default=gpu_check.read_archived_commit(),
        help="of the sources, where git does not know them",
    )
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
