"""What only a GPU can tell, in one file of results: make gpu-check

    python3 tools/gpu_check.py --parts kernel     # one part again; --help lists them

Builds the CUDA kernels in place for the card that is there, runs the GPU tests, the operators under compute-sanitizer,
and the benchmarks: offline, with nvcc, torch and the packages that the tests import. Every part is a command with a
time limit, and the file is written after each, so that neither a part that fails nor one that hangs costs the others'
results. Exit status: 0 if every part passed, 1 if not, 2 if nothing could be run.
"""

import argparse
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from faultsim.errors import FaultsimError  # noqa: E402
from faultsim.io.files import write_text  # noqa: E402
from faultsim.io.provenance import read_archived_commit  # noqa: E402
from tools.gpu_outputs import (  # noqa: E402
    Done,
    Failed,
    ended,
    eopm_speed,
    evaluation_speed,
    format_speed,
    junit_counts,
    kernel_speed,
    sanitized,
)

RESULTS = ROOT / "benchmarks/results/gpu-check.json"
NAMES = ("build", "tests", "memcheck", "racecheck", "kernel", "formats", "eopm", "evaluation")  # of all parts
WORK = Path("build/gpu-check")  # below ROOT
# In files with GPU tests: their mark, or a fixture of tests/conftest.py that stands for each device.
GPU_TEST = r"\bmark\.cuda\b|\bdef test_\w+\([^)]*\b(device|engine)\b"
SAME = ("device", "driver", "cuda", "nvcc", "versions", "commit")  # of parts that one file may hold
LINES = 40  # of the output of a part that failed

FACTS = """
import json, torch
from faultsim.io.provenance import list_versions
there = torch.cuda.is_available()
print(json.dumps({
    "device": torch.cuda.get_device_name() if there else None,
    "capability": torch.cuda.get_device_capability() if there else None,
    "cuda": torch.version.cuda,
    "versions": list_versions(),
}))
"""


class Refused(Exception):
    """Why nothing can be run, in one line."""


@dataclass(frozen=True)
class Part:
    """One command of the check.

    limit   seconds after which it is stopped
    read    its results from a command that ended: a dict that holds a "summary" in words, and may hold a "report",
            which stands by itself in the file; raises Failed
    needs   a part that must not have failed before
    absent  why it cannot be run here, if it cannot
    """

    name: str
    command: tuple[str, ...]
    limit: float
    read: Callable[[Done], dict]
    environment: Mapping[str, str] = field(default_factory=dict)
    needs: str = ""
    absent: str = ""

    @property
    def shown(self) -> str:
        """The command as one types it."""
        words = ["python3" if word == sys.executable else word for word in self.command]
        return " ".join([*(f"{name}={value}" for name, value in self.environment.items()), shlex.join(words)])


def gpu_tests() -> list[str]:
    """The files with GPU tests: others import packages that a GPU machine need not have."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [
        str(path.relative_to(ROOT)) for path in files if re.search(GPU_TEST, path.read_text(encoding="utf-8"))
    ]


# -- the parts --------------------------------------------------------------------------------------------------


def parts(architecture: str, environment: Mapping[str, str]) -> list[Part]:
    """All of them, in order. `architecture`: of the card, as CMake names it; `environment`: where tools are looked
    for."""
    python, report = sys.executable, WORK / "tests.xml"
    operators, on_gpu = (python, "tests/sanitize/operators.py"), ("--device", "cuda", "--json")
    sanitizer = shutil.which("compute-sanitizer", path=environment["PATH"])
    return [
        Part(
            "build",
            (python, "setup.py", "build_ext", "--inplace", "--build-temp", str(WORK)),
            300,
            ended,
            {"FAULTSIM_CUDA": "ON", "CUDAARCHS": architecture},
        ),
        Part(
            "tests",
            (python, "-m", "pytest", "-q", "-m", "cuda", f"--junitxml={report}", *gpu_tests()),
            240,
            junit_counts(ROOT / report),
            {"FAULTSIM_REQUIRE_CUDA": "1"},
            needs="build",
        ),
        *(
            Part(
                options[0],
                ("compute-sanitizer", "--tool", *options, "--error-exitcode", "9", *operators),
                150,
                sanitized,
                {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"},
                needs="build",
                absent="" if sanitizer else "compute-sanitizer is not on the PATH or beside nvcc",
            )
            # Errors of API calls become exceptions in torch, which also probes with calls that may fail.
            for options in (("memcheck", "--report-api-errors", "no"), ("racecheck",))
        ),
        Part(
            "kernel",
            (python, "-m", "faultsim", "bench", "kernel", *on_gpu),
            120,
            kernel_speed,
            needs="build",
        ),
        Part(
            "formats",
            (python, "-m", "faultsim", "bench", "formats", *on_gpu),
            60,
            format_speed,
            needs="build",
        ),
        Part(
            "eopm",
            (python, "-m", "faultsim", "bench", "eopm", *on_gpu, "--precision", "bfloat16"),
            150,
            eopm_speed,
            needs="build",
        ),
        Part(
            "evaluation",
            (python, "-m", "faultsim", "bench", "evaluation", *on_gpu),
            60,
            evaluation_speed,
            needs="build",
        ),
    ]


def run(part: Part, environment: Mapping[str, str] = os.environ) -> dict:
    """Runs a part; what the file holds of it. A part that is stopped takes its own children with it."""
    record = {"outcome": "failed", "command": part.shown, "limit_s": part.limit, "date": now()}
    begin = time.monotonic()
    process = None
    # files, not pipes: a grandchild that is left behind would keep those open
    with TemporaryFile() as out, TemporaryFile() as err:
        try:
            process = subprocess.Popen(
                part.command,
                cwd=ROOT,
                env={**environment, **part.environment},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            status = process.wait(part.limit)
            record |= {"outcome": "passed", **part.read(Done(status, text(out), text(err)))}
        except subprocess.TimeoutExpired:
            record |= {"summary": f"stopped after its limit of {part.limit:g} s"}
        except Failed as error:
            record |= {"summary": str(error)}
        except OSError as error:
            record |= {"summary": f"cannot be run: {error.strerror or error}"}
        except (ValueError, LookupError, TypeError, ElementTree.ParseError) as error:
            record |= {"summary": f"unexpected output: {error!r}"}
        finally:
            if process is not None and process.poll() is None:  # late, or this program was interrupted
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        record["seconds"] = round(time.monotonic() - begin, 2)
        if record["outcome"] == "failed":
            record["output"] = (text(out) + text(err)).splitlines()[-LINES:]
    return record


def text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")


def perform(
    chosen: Sequence[Part],
    report: dict,
    path: Path,
    *,
    environment: Mapping[str, str] = os.environ,
    names: Sequence[str] = NAMES,
) -> bool:
    """Runs the parts one after the other and writes `report` after each: with "parts", "outcome", "seconds", and the
    benchmarks' reports by the names of their parts. `names`: all parts of a whole check. True if every chosen one
    passed."""
    records = report.setdefault("parts", {})
    for part in chosen:
        records.pop(part.name, None)
        report.pop(part.name, None)
    for part in chosen:
        print(f"{part.name:<10}", end="", flush=True)
        if records.get(part.needs, {}).get("outcome") == "failed":
            record = {"outcome": "not run", "command": part.shown, "summary": f"{part.needs} failed"}
        elif part.absent:
            record = {"outcome": "not run", "command": part.shown, "summary": part.absent}
        else:
            record = run(part, environment)
        if found := record.pop("report", None):
            # The command itself takes a new file of results for a change of the sources.
            report[part.name] = {**found, "commit": report.get("commit")}
        records[part.name] = record
        report["outcome"] = outcome(records, names)
        report["seconds"] = round(sum(each.get("seconds", 0) for each in records.values()), 2)
        write_text(path, json.dumps(report, indent=2) + "\n")
        print(f"{record['outcome']:<8}{record.get('seconds', 0):>7.1f} s  {record['summary']}", flush=True)
    return all(records[part.name]["outcome"] == "passed" for part in chosen)


def outcome(records: Mapping[str, dict], names: Sequence[str]) -> str:
    """Of the whole check: "failed", "incomplete" (parts are missing or could not be run) or "passed"."""
    found = [records.get(name, {}).get("outcome", "not run") for name in names]
    return "failed" if "failed" in found else "incomplete" if "not run" in found else "passed"


# -- the machine ------------------------------------------------------------------------------------------------


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def asked(*command: str) -> str | None:
    """What a command prints, None where it fails."""
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def commit() -> str | None:
    """Of this checkout, "-dirty" where anything but results was changed; None for a copy that git does not know."""
    if asked("git", "ls-files", "--error-unmatch", "tools/gpu_check.py") is None:
        return None
    changed = asked("git", "status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return f"{asked('git', 'rev-parse', '--short=12', 'HEAD')}{'-dirty' if changed else ''}"


def find_nvcc(environment: Mapping[str, str]) -> str | None:
    """Where CMake looks for it, and where the toolkit lies."""
    homes = [environment.get("CUDA_HOME"), environment.get("CUDA_PATH"), "/usr/local/cuda"]
    places = [environment.get("CUDACXX"), "nvcc", *(f"{home}/bin/nvcc" for home in homes if home)]
    found = (shutil.which(place, path=environment.get("PATH")) for place in places if place)
    return next(filter(None, found), None)


def machine() -> tuple[dict, str, dict[str, str]]:
    """(what the file says of it, the card's architecture, the environment of the parts). Raises Refused."""
    told = subprocess.run([sys.executable, "-c", FACTS], cwd=ROOT, capture_output=True, text=True)
    if told.returncode:
        last = (told.stderr.strip().splitlines() or ["no output"])[-1]
        raise Refused(f"torch cannot be used: {last}")
    facts = json.loads(told.stdout.splitlines()[-1])
    if facts["device"] is None:
        raise Refused("torch finds no GPU here")
    nvcc = find_nvcc(os.environ)
    if nvcc is None:
        raise Refused("no nvcc was found: put it on the PATH or set CUDACXX")
    major, minor = facts.pop("capability")
    driver = asked("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    release = re.search(r"release .*", asked(nvcc, "--version") or "")
    about = {
        "check": "gpu-check",
        "command": "make gpu-check",
        **facts,
        "driver": driver.splitlines()[0] if driver else None,
        "nvcc": release[0] if release else None,
    }
    # pip puts cmake and ninja beside python; compute-sanitizer lies beside nvcc
    folders = [sysconfig.get_path("scripts"), str(Path(nvcc).parent), os.environ.get("PATH", os.defpath)]
    return about, f"{major}{minor}-real", {**os.environ, "CUDACXX": nvcc, "PATH": os.pathsep.join(folders)}


def kept(path: Path, about: dict) -> dict:
    """What an earlier run found, where it is of the same machine and commit."""
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        alike = all(earlier[key] == about[key] for key in SAME) and not str(about["commit"]).endswith("dirty")
        return {key: earlier[key] for key in ("parts", *NAMES) if key in earlier} if alike else {}
    except (OSError, ValueError, LookupError, TypeError):
        return {}


def signal_handlers() -> None:
    """Both ways to end this program unwind it, so that no part outlives it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have told it to ignore Ctrl-C


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=NAMES, default=NAMES, metavar="PART", help=str(NAMES))
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    parser.add_argument(
        "--commit",
        default=read_archived_commit(),
        help="of the sources, where they are a copy that git does not know; one by git archive knows its own",
    )
    options = parser.parse_args()
    signal_handlers()
    try:
        about, architecture, environment = machine()
        report = {**about, "commit": commit() or options.commit, "date": now()}
        report |= kept(options.out, report)
        chosen = [part for part in parts(architecture, environment) if part.name in options.parts]
        if "build" in options.parts:
            shutil.rmtree(ROOT / WORK, ignore_errors=True)
        print(f"{report['device']}, driver {report['driver']}, commit {report['commit']}")
        good = perform(chosen, report, options.out, environment=environment)
    except (Refused, FaultsimError) as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\ngpu-check: interrupted; what was finished is kept", file=sys.stderr)
        return 130
    print(f"{report['outcome']} after {report['seconds']:.0f} s: {options.out}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
