"""Kills sweeps, trainings and reproductions at random instants, and looks whether the same command ends in the same
bytes.

    TMPDIR=/dev/shm python tests/fuzz/kills.py --count 300 --seed 0

Each command (on 40 digits, with a state after every step) runs once undisturbed. Then it is started again and again in
another folder and killed with SIGKILL or SIGINT, during its imports too, until it has run to its end or has been killed
MOST times; its last run is let alone. Every file must then hold what the undisturbed run's holds, times and dates left
out. Prints one line for each finding and the figures, and ends with status 1 if there are findings.
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

from faultsim.checkpoint import read_file

MOST = 12  # kills of one run
SECONDS = 300  # for any run: a longer one hangs
# `faultsim` on a few digits, which keeps the state of a training after every step
PROGRAM = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import torch
from faultsim.data import digits
from faultsim.loop import Pace
whole = digits.load_digits
digits.load_digits = lambda split: whole(split).subset(torch.arange(40))
Pace.__init__.__defaults__ = (0.0, *Pace.__init__.__defaults__[1:])
from faultsim.cli import main
main()
"""
TIMES = {"date", "provenance", "seconds", "commit", "device", "versions", "threads"}


@dataclass(frozen=True)
class Scenario:
    """A command whose files lie in the folder OUT."""

    name: str
    arguments: tuple[str, ...]

    def start(self, out: Path) -> subprocess.Popen:
        words = [word.replace("OUT", str(out)) for word in self.arguments]
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )


SCENARIOS = (
    Scenario(
        "sweep-voltage",
        ("sweep-voltage", "--voltages", "0.78:0.88:0.005", "--chips", "8", "--device", "cpu", "--out", "OUT"),
    ),
    Scenario(
        "train-generator",
        (
            "train-generator", "--generator", "ConvXS", "--bit-error-rate", "0.02", "--n-models", "2", "--batch-size",
            "8", "--epochs", "12", "--device", "cpu", "--out", "OUT/g.safetensors",
        ),
    ),
    Scenario(
        "reproduce",
        (
            "reproduce", "table1", "--smoke", "--device", "cpu", "--base-epochs", "2", "--epochs", "2", "--n-models",
            "1", "--faults", "iid_flips", "--out", "OUT",
        ),
    ),
)  # fmt: skip


def timeless(value: object) -> object:
    """A JSON value without what says when and where it was computed."""
    if isinstance(value, dict):
        return {key: timeless(item) for key, item in value.items() if key not in TIMES}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def content(path: Path) -> object:
    """What a file says, to be compared."""
    if path.suffix == ".safetensors":
        tensors, metadata = read_file(path)
        return {name: (str(t.dtype), t.tolist()) for name, t in tensors.items()}, timeless(metadata)
    if path.suffix == ".jsonl":
        return [timeless(json.loads(line)) for line in path.read_text().splitlines()]
    return timeless(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()


def contents(folder: Path) -> dict[str, object]:
    """Of every file in a folder but locks."""
    return {p.name: content(p) for p in sorted(folder.iterdir()) if p.name != ".lock"}


def disturb(
    scenario: Scenario, out: Path, seconds: float, rng: random.Random, left: int
) -> tuple[int, list[str]]:
    """(kills, findings) of one run to its end."""
    kills, findings = 0, []
    while True:
        process = scenario.start(out)
        if kills < min(MOST, left):
            with_signal = rng.choice((signal.SIGKILL, signal.SIGINT))
            try:
                process.wait(rng.uniform(0, seconds))
            except subprocess.TimeoutExpired:
                process.send_signal(with_signal)
                kills += 1
        try:
            _, errors = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            findings.append(f"{scenario.name}: hangs after {kills} kills")
            return kills, findings
        if process.returncode == 0:
            return kills, findings
        # Ctrl-C before the command has begun is Python's own, with its traceback
        interrupted = (
            process.returncode in (-signal.SIGKILL, -signal.SIGINT, 130) or "KeyboardInterrupt" in errors
        )
        if not interrupted:
            findings.append(
                f"{scenario.name}: status {process.returncode} after {kills} kills: {errors.strip()[-600:]}"
            )
            if kills >= min(MOST, left):
                return kills, findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="kills in all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    began, kills, runs, findings = time.monotonic(), 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        expected = {}
        for scenario in SCENARIOS:
            out = Path(folder) / f"{scenario.name}-whole"
            started = time.monotonic()
            process = scenario.start(out)
            _, errors = process.communicate(timeout=SECONDS)
            if process.returncode:
                sys.exit(f"{scenario.name} fails undisturbed: {errors}")
            expected[scenario.name] = time.monotonic() - started, contents(out)
            print(f"{scenario.name}: {expected[scenario.name][0]:.1f} s undisturbed", flush=True)
        while kills < options.count:
            scenario = SCENARIOS[runs % len(SCENARIOS)]
            seconds, whole = expected[scenario.name]
            out = Path(folder) / f"{runs}"
            more, found = disturb(scenario, out, seconds, rng, options.count - kills)
            if not found:
                ours = contents(out)
                differ = [
                    name for name in sorted(whole.keys() | ours.keys()) if whole.get(name) != ours.get(name)
                ]
                found = [f"{scenario.name}: after {more} kills {', '.join(differ)} differ"] if differ else []
            kills, runs = kills + more, runs + 1
            findings += found
            for line in found:
                print(f"FINDING {line}", flush=True)
            print(f"{kills} kills, {runs} runs, {len(findings)} findings", flush=True)
    print(
        f"{kills} kills of {runs} runs in {time.monotonic() - began:.0f} s: {len(findings)} findings "
        f"(seed {options.seed})"
    )
    sys.exit(bool(findings))


if __name__ == "__main__":
    main()
