"""Feeds every reader with damaged and hostile files, for as long as one wants.

    make fuzz FUZZ="--seconds 600 --seed 1"        # or --count 10000, or --reader "fault map .npz"

Each input is a mutation of a valid file, drawn from (seed, reader, number) alone. It must be accepted or refused with
one FaultsimError of at most 300 characters: no other exception, at most SECONDS of processor time and MEMORY bytes,
and where the format has a sum or says a thing twice, nothing accepted that isn't what it was. Inputs are read in a
process of their own that can be killed. Prints the figures for each reader and a line for each finding, and ends
with status 1 if there are findings.
"""

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from energy.errors import EnergyError
from faultsim.errors import FaultsimError
from tests.fuzz import mutations
from tests.fuzz.readers import Reader, readers

SECONDS = 5.0
MEMORY = 1 << 30
LONGEST = 300  # characters of a message
PATIENCE = 60.0  # of the clock, before a process is killed


@dataclass(frozen=True)
class Verdict:
    """What became of one input."""

    accepted: bool
    finding: str = ""


def judge(reader: Reader, number: int, seed: int, folder: Path, before: int) -> Verdict:
    """Reads one mutation, in this process. before: bytes of memory that it had."""
    rng = random.Random(f"{seed}/{reader.name}/{number}")
    name = rng.choice(list(reader.samples))
    whole = reader.samples[name]
    within = bool(reader.inside) and rng.random() < 0.5
    content = rng.choice(reader.inside)(whole, rng) if within else mutations.mutate(whole, rng)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "work").mkdir(parents=True)
    path = folder / name
    path.write_bytes(content)
    began = time.process_time()
    accepted, finding = False, ""
    try:
        found = reader.read(path, folder / "work")
        accepted = True
        if reader.summed and not within:
            (folder / "whole").mkdir()
            (folder / "whole" / name).write_bytes(whole)
            (folder / "again").mkdir()
            if not reader.same(found, reader.read(folder / "whole" / name, folder / "again")):
                finding = "accepted, but not what it was"
    except (FaultsimError, EnergyError) as error:
        if len(str(error)) > LONGEST or not str(error).isprintable():
            finding = f"a message of {len(str(error))} characters: {str(error)[:80]!r}"
    except BaseException as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        finding = f"{type(error).__name__}: {str(error)[:200]} ({Path(at.filename).name}:{at.lineno})"
    if (taken := time.process_time() - began) > SECONDS:
        finding = finding or f"{taken:.1f} s"
    if (grown := resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before) > MEMORY:
        finding = finding or f"{grown >> 20} MiB"
    return Verdict(accepted, finding)


def _serve(connection: Connection, known: list[Reader], folder: Path) -> None:
    """A process that reads what it is told, with a little more memory than it has."""
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + 2 * MEMORY, size + 2 * MEMORY))
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115 what libraries say about damaged files
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    while (task := connection.recv()) is not None:
        reader, number, seed = task
        connection.send(judge(known[reader], number, seed, folder, before))


class Judge:
    """The process that reads, started again where it was killed."""

    def __init__(self, known: list[Reader], folder: Path) -> None:
        self._known, self._folder = known, folder
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._known, self._folder), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, reader: int, number: int, seed: int) -> Verdict:
        self._connection.send((reader, number, seed))
        try:
            if self._connection.poll(PATIENCE):
                return self._connection.recv()
            finding = "hangs"
        except EOFError:
            finding = "the process died"
        self._process.kill()
        self._process.join()
        self._start()
        return Verdict(False, finding)

    def end(self) -> None:
        self._connection.send(None)
        self._process.join()


def check_samples(known: list[Reader], folder: Path) -> None:
    """Every valid file is accepted: a reader that refuses everything would never have a finding."""
    for reader in known:
        for name, content in reader.samples.items():
            shutil.rmtree(folder, ignore_errors=True)
            (folder / "work").mkdir(parents=True)
            (folder / name).write_bytes(content)
            reader.read(folder / name, folder / "work")


def fuzz(
    count: int, seconds: float, seed: int, only: str | None = None
) -> tuple[Counter, Counter, list[str]]:
    """(inputs, accepted ones) of each reader, and findings, after `count` inputs in all or so many seconds."""
    inputs, accepted, findings = Counter(), Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        known = [r for r in readers(Path(folder)) if only in (None, r.name)]
        if not known:
            raise SystemExit(f"no reader {only!r}")
        check_samples(known, Path(folder) / "input")
        began = time.monotonic()
        court = Judge(known, Path(folder) / "input")
        number = 0
        while sum(inputs.values()) < count and time.monotonic() - began < seconds:
            for index, reader in enumerate(known):
                verdict = court.ask(index, number, seed)
                inputs[reader.name] += 1
                accepted[reader.name] += verdict.accepted
                if verdict.finding:
                    findings.append(f"{reader.name}, seed {seed}, number {number}: {verdict.finding}")
            number += 1
        court.end()
    return inputs, accepted, findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument(
        "--count", type=int, default=None, help="inputs in all [default: 10,000; no end with --seconds]"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", help="only this one")
    options = parser.parse_args()
    count = options.count or (10_000 if options.seconds == float("inf") else sys.maxsize)
    began = time.monotonic()
    inputs, accepted, findings = fuzz(count, options.seconds, options.seed, options.reader)
    for line in findings:
        print(f"FINDING {line}")
    for name, many in inputs.items():
        print(f"{name}: {many:,} inputs, {accepted[name]:,} accepted")
    total = sum(inputs.values())
    print(
        f"{total:,} inputs in {time.monotonic() - began:.0f} s, {len(findings)} findings (seed {options.seed})"
    )
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
