"""Does tools/gpu_training.py train and evaluate what it plans, lose little when it is killed, and go on?

By real processes at small scale on a CPU: a GPU runs the same commands, on larger networks and data.
"""

import importlib.util
import json
import os
import signal
import sys
import tarfile
import time
from pathlib import Path

import pytest

from neuralfuse.paper.plan import Kind
from neuralfuse.paper.result import read_results
from tests.forked import Forked

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tools" / "gpu_training.py"
spec = importlib.util.spec_from_file_location("gpu_training", SCRIPT)
gpu_training = importlib.util.module_from_spec(spec)
sys.modules["gpu_training"] = gpu_training
spec.loader.exec_module(gpu_training)
gpu_jobs, gpu_runs = sys.modules["gpu_jobs"], sys.modules["gpu_runs"]  # which it imports

BASE = "base-DigitsNet-digits-modern"
LOOKUP = "result-UNetS-DigitsNet-digits-modern-neuralfuse_2022-0.01-lookup"
STAGED = "result-UNetS-DigitsNet-digits-modern-neuralfuse_2022-0.01-staged"
EOPM = "result-UNetS-DigitsNet-digits-modern-neuralfuse_2022-0.01"
SMALL = [
    str(SCRIPT), "--scale", "small", "--budget", "1h", "--eopm-share", "0.0003", "--lanes", "1",
]  # fmt: skip


# Each process knows a tenth of the digits only.
FEW_DIGITS = """
import sys
from importlib.machinery import PathFinder


class Few(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target)
        if name == "faultsim.data.digits":
            execute = spec.loader.exec_module

            def exec_module(module):
                execute(module)
                read = module.read_digits
                module.read_digits = lambda: tuple(part[::10] for part in read())

            spec.loader.exec_module = exec_module
        return spec


sys.meta_path[sys.meta_path.index(PathFinder)] = Few
"""
IMAGES = (145, 35)
"""To train on and to test on."""


@pytest.fixture
def started(tmp_path):
    """Starts the script with few digits; none of its processes outlives the test."""
    processes: list[Forked] = []
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "sitecustomize.py").write_text(FEW_DIGITS)
    path = os.pathsep.join([str(tmp_path / "few"), *filter(None, [os.environ.get("PYTHONPATH")])])

    def start(*options: object) -> Forked:
        program = f"import runpy; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
        processes.append(Forked(program, [*SMALL[1:], *options], cwd=ROOT, env={"PYTHONPATH": path}))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


def processes_in(folder: Path) -> list[int]:
    """Those whose command line names a file in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes()
        except OSError:  # ended meanwhile
            continue
        if str(folder).encode() in words:
            found.append(int(path.parent.name))
    return found


def until(what, seconds: float = 900) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.timeout(1800)  # a machine that is busy
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_run_that_is_killed_goes_on_to_every_result(started, tmp_path, monkeypatch, capsys):
    out, archive = tmp_path / "run", tmp_path / "kept.tar"
    kept = out / "kept"
    log = (
        out
        / "work"
        / LOOKUP
        / "generator-UNetS-DigitsNet-digits-modern-neuralfuse_2022-0.01-lookup.log.jsonl"
    )
    first = started("--out", out, "--archive", archive)
    until(lambda: log.exists() or first.poll() is not None)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    until(lambda: not processes_in(out), 10)  # none goes on by itself
    summary = json.loads((kept / "summary.json").read_text())
    assert summary["jobs"][BASE]["outcome"] == "done"
    assert summary["jobs"][LOOKUP]["outcome"] == "running"
    assert not read_results(kept)
    base = out / "bases" / f"{BASE}.safetensors"
    trained = base.stat().st_mtime_ns

    second = started("--out", out, "--archive", archive)
    said, err = second.communicate()
    assert (second.returncode, err) == (0, "")
    assert "4 done" in said
    assert base.stat().st_mtime_ns == trained
    results = read_results(kept)
    assert sorted(result.trainer for result in results) == ["eopm", "lookup", "staged"]
    for result in results:
        assert result.images == IMAGES[1]
        assert len(result.correct["perturbed_fused"]) == 10
        assert result.base_passes > 0
        assert result.configuration["device"] == "cpu"
    # plain EOPM had a share of a second: the epoch that it was in is the last, and is counted
    (plain,) = [result for result in results if result.trainer == "eopm"]
    assert plain.base_passes == 2 * IMAGES[0] * plain.configuration["generator"]["epochs"]
    summary = json.loads((kept / "summary.json").read_text())
    records = {name: record["outcome"] for name, record in summary["jobs"].items()}
    assert records == {BASE: "done", LOOKUP: "done", STAGED: "done", EOPM: "done"}
    assert summary["jobs"][STAGED]["accuracy"]["P.A.+N.F."] > 0
    assert [session["device"] for session in summary["sessions"]] == ["cpu", "cpu"]
    # small, and without what only a training that goes on needs
    names = sorted(path.name for path in kept.iterdir())
    assert not [
        name
        for name in names
        if ".state." in name or name.startswith((".", "base-DigitsNet-digits-modern.s"))
    ]
    endings = ("-lookup.log.jsonl", "-staged.log.jsonl", "-0.01.log.jsonl")
    for end in (".patterns.safetensors", ".classifier.safetensors", *endings):
        assert [name for name in names if name.endswith(end)], end
    assert len([name for name in names if name.startswith("unprotected-")]) == 1
    assert sum(path.stat().st_size for path in kept.iterdir()) < 20 << 20
    # the archive is the folder, and another run goes on from it: nothing is left to do
    again = tmp_path / "again"
    with tarfile.open(archive) as tar:
        assert sorted(name.removeprefix("kept/") for name in tar.getnames()[1:]) == names
        tar.extractall(again, filter="data")
    monkeypatch.setattr(sys, "argv", [*SMALL, "--out", str(again), "--plan"])
    monkeypatch.setattr(gpu_training.gpu_check, "signal_handlers", lambda: None)
    assert gpu_training.main() == 0
    assert capsys.readouterr().out.count(": there") == 3


def test_the_most_valuable_comes_first():
    """VGG11 by the base model that is kept, with the comparison; other base models before other errors and data."""
    jobs = gpu_jobs.full_jobs("modern")
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    first = "-VGG11-cifar10-paper-neuralfuse_2022-0.01"
    assert set(names[1:5]) == {f"result-{g}{first}-lookup" for g in gpu_jobs.LOOKED_UP}
    assert set(names[5:11]) == {f"result-{g}{first}-staged" for g in gpu_jobs.GENERATORS}
    assert names[11:13] == [f"result-UNetL{first}", f"result-ConvS{first}"]
    order = [
        "ResNet18-cifar10-modern-neuralfuse_2022-0.01",
        "VGG16-cifar10",
        "iid_flips",
        "0.005",
        "gtsrb",
        "cifar100",
    ]
    places = [
        next(i for i, name in enumerate(names) if name.startswith("result") and word in name)
        for word in order
    ]
    assert places == sorted(places)
    done = set()
    for job in jobs:  # no generator before its base model
        if job.kind is Kind.BASE:
            done.add((job.cell.dataset, job.cell.base, job.recipe))
        assert (job.cell.dataset, job.cell.base, job.recipe) in done
    # of base models only the one that comes with the sources is by another recipe
    assert {job.cell.base for job in jobs if job.recipe == "paper"} == {"VGG11"}


def test_the_next_job_is_the_first_that_fits(tmp_path):
    jobs = [job for job in gpu_jobs.full_jobs("modern") if job.kind is Kind.RESULT][4:10]
    plant = gpu_runs.Plant(tmp_path, gpu_jobs.SCALES["full"], "cpu", 10, time.monotonic() + 100)
    records = {
        job.name: {"outcome": "waiting", "estimated_s": 1000 if i == 0 else 20} for i, job in enumerate(jobs)
    }

    def next_of(**more):
        return gpu_runs.choose(jobs, records, more.get("running", []), plant, more.get("correction", 1.0))

    assert next_of() is None  # no data yet
    plant.data["cifar10"] = tmp_path
    assert next_of() is jobs[1]
    assert next_of(correction=10) is jobs[0]  # nothing fits: the first goes on another time
    records[jobs[1].name]["outcome"] = records[jobs[2].name]["outcome"] = "running"
    running = [gpu_runs.Running(job, tmp_path, iter(()), tmp_path, {}, 0.0) for job in jobs[1:3]]
    assert jobs[3].cell.generator.name == "DeConvL"  # waits for ConvL, whose classifier it takes over
    assert next_of(running=running) is jobs[4]


def test_what_is_too_large_is_left_out_and_named(tmp_path, monkeypatch):
    """Results and logs are kept whatever they weigh; files with the same tensors once."""
    job = gpu_jobs.full_jobs("modern")[1]
    plant = gpu_runs.Plant(tmp_path, gpu_jobs.SCALES["full"], "cpu", 10, 0)
    stem = job.file(Kind.GENERATOR, Path()).stem
    folder = tmp_path / "work" / job.name
    folder.mkdir(parents=True)
    plant.kept.mkdir()

    def weights(metadata: bytes, tensors: bytes) -> bytes:
        return len(metadata).to_bytes(8, "little") + metadata + tensors

    (plant.kept / "generator-Other.patterns.safetensors").write_bytes(weights(b"{}", b"same"))
    (folder / f"{stem}.patterns.safetensors").write_bytes(weights(b"{1}", b"same"))
    (folder / f"{stem}.classifier.safetensors").write_bytes(weights(b"{}", b"other"))
    (folder / f"{stem}.safetensors").write_bytes(bytes(2000))
    (folder / f"{stem}.state.safetensors").write_bytes(b"state")
    (folder / f"{stem}.log.jsonl").write_bytes(bytes(3000))
    (folder / "generator-Foreign.log.jsonl").write_bytes(b"not its own")
    monkeypatch.setattr(gpu_runs, "MOST", 1000)
    assert plant.keep(job, folder) == [f"{stem}.safetensors"]
    assert {path.name for path in plant.kept.iterdir()} == {
        "generator-Other.patterns.safetensors", f"{stem}.classifier.safetensors", f"{stem}.log.jsonl",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--recipe", "none"], "unknown recipe 'none'"),
        (["--jobs", "ConvXL"], "--jobs 'ConvXL' finds none"),
        (["--eopm-share", "2"], "--eopm-share must be above 0 and at most 1"),
        (
            ["--scale", "full", "--device", "cpu"],
            "none of the data sets is there: give --packs or --data-dir",
        ),
        (["--packs", str(SCRIPT)], "gpu_training.py is no container of images"),
        (["--packs", "nowhere.npz"], "nowhere.npz is no container of images"),
    ],
)
def test_bad_input_gets_one_line(options, words, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        sys, "argv", ["gpu_training.py", "--scale", "small", "--out", str(tmp_path / "run"), *options]
    )
    monkeypatch.setattr(gpu_training.gpu_check, "signal_handlers", lambda: None)
    assert gpu_training.main() == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1
