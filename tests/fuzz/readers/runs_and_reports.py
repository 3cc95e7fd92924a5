"""Readers of run directories, reports and results of the paper."""

import contextlib
import csv
import hashlib
import io
import json
import shutil
from pathlib import Path

from faultsim import evaluation_chips
from faultsim.cli import main
from faultsim.io import run_directory
from faultsim.metrics.metric import ACCURACY
from faultsim.show.report.collect import OWN, collect
from faultsim.show.report.page import render_page
from faultsim.studies.conditions import COLUMNS
from faultsim.studies.sweep_directory import read_known
from faultsim.studies.sweep_result import OPTIONAL, Variant, list_columns
from faultsim.studies.voltage_sweep import plan_points
from faultsim.voltage import VoltageCurve
from neuralfuse.paper import result as results
from neuralfuse.paper.report import READER
from tests.fuzz.readers.reader import JSON, Reader


def _run(folder: Path) -> Path:
    """The directory of a small sweep."""
    made = folder / "sweep"
    if not made.exists():
        words = (
            "--images",
            "5",
            "--chips",
            "3",
            "--voltages",
            "0.8,0.83,0.9",
            "--device",
            "cpu",
            "--out",
            str(made),
        )
        told = io.StringIO()
        with (
            contextlib.redirect_stdout(told),
            contextlib.redirect_stderr(told),
            contextlib.suppress(SystemExit),
        ):
            main(["sweep-voltage", *words])
    return made


def _copied(source: Path, work: Path, changed: Path) -> Path:
    shutil.copytree(source, work / "run", ignore=shutil.ignore_patterns(".*"))
    shutil.copy(changed, work / "run" / changed.name)
    return work / "run"


def make_runs(folder: Path) -> list[Reader]:
    source = _run(folder)
    configuration = json.loads((source / "sweep.json").read_text())["configuration"]
    plan = plan_points(VoltageCurve.default(), [0.8, 0.83, 0.9], None)
    labels = [str(chip.seed) for chip in evaluation_chips(0, 3)]

    first = next(csv.DictReader((source / "results.csv").read_text().splitlines()))
    shared = {name: first[name] for name in COLUMNS}

    def read(path: Path, work: Path) -> object:
        folder = _copied(source, work, path)
        with run_directory.RunDirectory(
            folder, "sweep", configuration, list_columns(ACCURACY), OPTIONAL, shared
        ) as run:
            read_known(run, plan, (Variant(), Variant("with ConvXS")), labels, ACCURACY)
            return list(run.rows)

    samples = {name: (source / name).read_bytes() for name in ("sweep.json", "results.csv")}
    # a run that goes on may find fewer rows than there were, and computes the others again
    return [
        Reader(
            "run directory",
            samples,
            read,
            summed=True,
            inside=JSON,
            same=lambda found, whole: found == whole[: len(found)],
        )
    ]


def make_reports(folder: Path) -> list[Reader]:
    source = _run(folder)
    result = next(results.KEPT.glob("result-*.json"))
    reproduced = folder / "reproduced"
    reproduced.mkdir(exist_ok=True)
    shutil.copy(result, reproduced / result.name)
    (reproduced / "reproduce.json").write_text(
        json.dumps({"configuration": {"seed": 0}, "date": "2026-01-01"})
    )
    (reproduced / "figure2.csv").write_text("voltage,rate\n0.8,0.1\n0.9,0.01\n")
    log = [
        {"epoch": n, "loss": 1 / n, "clean": 0.5, "perturbed": 0.25, "seconds": 1.5 * n} for n in range(1, 6)
    ]
    (reproduced / "g.log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))

    def read(path: Path, work: Path) -> object:
        of = source if (source / path.name).exists() else reproduced
        sections = collect([_copied(of, work, path)], (READER, *OWN))
        if hashlib.sha256(path.read_bytes()).digest()[0] < 8:  # drawing takes a second
            render_page(sections)
        return len(sections)

    def unfinished(path: Path, work: Path) -> object:
        run = _copied(source, work, path)
        (run / "summary.csv").unlink()
        return len(collect([run], (READER, *OWN)))

    def one(path: Path, _: Path) -> object:
        return results.read(path).cell

    files = ("sweep.json", "summary.csv")
    samples = {name: (source / name).read_bytes() for name in files}
    samples |= {path.name: path.read_bytes() for path in sorted(reproduced.iterdir())}
    rows = {name: (source / name).read_bytes() for name in ("sweep.json", "results.csv")}
    return [
        Reader("report", samples, read, inside=JSON),
        Reader("report of an unfinished sweep", rows, unfinished, inside=JSON),
        Reader("result", {result.name: result.read_bytes()}, one, inside=JSON),
    ]
