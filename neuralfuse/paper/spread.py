"""Steps of a reproduction as jobs of workers: a step gets its input files, and its own come back.

The coordinator alone writes the run directory. A worker keeps a training's state in a folder that the workers of its
machine share, so that another one there continues if it dies.
"""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from faultsim.cluster.files import JobFiles, find_file, find_shared_folder
from faultsim.cluster.jobs import Job
from faultsim.cluster.workers import Workers
from faultsim.errors import FaultsimError
from faultsim.io.files import write_bytes
from faultsim.io.run_directory import RunDirectory

from .actions import Actions
from .plan import Kind, Step, locate_file
from .result import Cell, GeneratorSpec
from .settings import Settings

FOLDER = ".jobs"
"""Folder of the run directory, for files that workers take while the run lasts."""
_lock = threading.Lock()  # the seed of a training is that of a whole process
_STATE = ".state."  # in names of files that a finished training has no more


def spread_steps(
    todo: Sequence[Step],
    planned: int,
    settings: Settings,
    data_dir: Path | None,
    workers: Workers,
    run: RunDirectory,
    report: Callable[[str], None],
) -> None:
    """Do steps by workers, each as soon as its inputs are there.

    Parameters
    ----------
    todo
        Steps, each after those that it needs.
    planned
        Number of all steps, done or not.
    settings
        How everything is trained.
    data_dir
        Folder of the datasets on the workers; None: they download them.
    workers
        Who does the steps.
    run
        The open run directory.
    report
        Called with lines about the progress.

    Raises
    ------
    FaultsimError
        For steps that failed: all that do not need them are done then.
    """
    waiting, by_name = list(todo), {step.description: step for step in todo}
    failed: list[tuple[str, str]] = []
    number = 0

    def next_job() -> Job | None:
        for step in waiting:
            if all(path.exists() for path in step.inputs):
                waiting.remove(step)
                return _make_job(step, settings, data_dir, workers.device, files)
        return None

    def tell() -> None:
        running = [job.name for job in workers.in_flight]
        done = planned - len(todo) + number
        run.status.update(
            done, planned, unit="steps", running=running, failed=failed, workers=workers.describe()
        )

    with JobFiles(run.path / FOLDER) as files:
        for done in workers.run(next_job, files, tell):
            if done.failure is not None:
                failed.append((done.job.name, done.failure))
                report(f"failed: {done.job.name}: {done.failure}")
                continue
            run.check()
            step = by_name[done.job.name]
            # the step's own file last: where it is, the step is done
            for name in sorted(done.result["files"], key=lambda name: name == step.file.name):
                write_bytes(run.path / name, base64.b64decode(done.result["files"][name]))
            number += 1
            report(f"[{number}/{len(todo)}] {step.description}: {done.result['lines'][-1]}")
    if failed:
        more = f" and {len(failed) - 1} others" if len(failed) > 1 else ""
        raise FaultsimError(f"{failed[0][0]}{more} failed: {failed[0][1]}. The same command tries again")


def _make_job(step: Step, settings: Settings, data_dir: Path | None, device: str, files: JobFiles) -> Job:
    """Make the job of a step, with its inputs and what there is of itself, such as the state of a training."""
    begun = [path for path in step.file.parent.glob(f"{step.file.stem}.*") if path != step.file]
    sent = {path.name: files.add(path.read_bytes()) for path in {*step.inputs, *begun}}
    arguments = {
        "kind": step.kind.value,
        "cell": step.cell.describe(),
        "recipe": step.recipe,
        "settings": asdict(settings),
        "files": dict(sorted(sent.items())),
        "folder": files.where,
        "data_dir": None if data_dir is None else str(data_dir.absolute()),
        "device": device,
    }
    return Job(step.description, "neuralfuse.paper.spread:do_step", arguments)


def do_step(
    kind: str,
    cell: Mapping[str, Any],
    recipe: str,
    settings: Mapping[str, Any],
    files: Mapping[str, str],
    folder: str,
    data_dir: str | None,
    device: str,
) -> dict[str, Any]:
    """Do a step on this worker: the job of reproductions.

    Parameters
    ----------
    kind, cell, recipe
        The step.
    settings
        Fields of Settings.
    files
        Checksums of the files that it needs, by their names.
    folder
        Where the coordinator keeps files.
    data_dir
        Folder of the datasets; None: they are downloaded.
    device
        "cpu" or "cuda".

    Returns
    -------
    dict
        files, by their names in base64, and lines about the progress.
    """
    about = dict(cell)
    generator = about.pop("generator")
    found = Cell(**about, generator=generator and GeneratorSpec(**generator))
    paths = {name: find_file(checksum, folder) for name, checksum in files.items()}
    text = json.dumps([kind, cell, recipe, settings, files, device], sort_keys=True)
    place = find_shared_folder() / "steps" / hashlib.sha256(text.encode()).hexdigest()[:24]
    place.mkdir(parents=True, exist_ok=True)
    with _lock, FileLock(place.with_suffix(".lock")):  # another worker of this machine may have begun it
        for name, path in paths.items():
            if not (place / name).exists():
                write_bytes(place / name, path.read_bytes())
        lines: list[str] = []
        step = Step(Kind(kind), found, recipe, locate_file(Kind(kind), found, recipe, place))
        actions = Actions(
            Settings(**settings), Path(data_dir) if data_dir else None, torch.device(device), lines.append
        )
        if not step.file.exists():
            actions.carry_out(step)
        inputs = {path.name for path in step.inputs}
        made = {
            path.name: base64.b64encode(path.read_bytes()).decode()
            for path in place.iterdir()
            if path.name not in inputs and _STATE not in path.name and not path.name.startswith(".")
        }
        shutil.rmtree(place)
    return {"files": made, "lines": lines or ["done before"]}
