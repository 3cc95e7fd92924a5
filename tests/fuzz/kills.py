"""Kills sweeps, trainings and reproductions at random instants, and looks whether the same command ends in the same
bytes.

    TMPDIR=/dev/shm python tests/fuzz/kills.py --count 300 --seed 0

Each command (on 40 digits, with a state after every step) runs once undisturbed. Then it is started again and again in
another folder and killed with SIGKILL or SIGINT until it has run to its end or has been killed MOST times; its last run
is let alone. Every fourth time it is a whole program, which is killed during its imports too; otherwise a fork of this
process, which has done them: most of those are killed while they compute or write. Every file must then hold what the
undisturbed run's holds, times and dates left out. Prints one line for each finding and the figures, and ends with
status 1 if there are findings.
"""

import argparse
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch comes: forks have no threads

MOST = 12  # kills of one run
SECONDS = 600  # for any run: a longer one hangs
PROGRAM = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import kills; kills.command(sys.argv[1:])"
TIMES = {"date", "provenance", "seconds", "commit", "device", "versions", "threads"}


@dataclass(frozen=True)
class Scenario:
    """A command whose files lie in the folder OUT."""

    name: str
    arguments: tuple[str, ...]

    def start(self, out: Path, whole: bool) -> "Run":
        return (Program if whole else Fork)([word.replace("OUT", str(out)) for word in self.arguments])


def command(words: list[str]) -> None:
    """`faultsim` on a few digits, which keeps the state of a training after every step."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import torch

    from faultsim.cli import main
    from faultsim.data import digits
    from faultsim.training.loop import Pace

    all_digits = digits.load_digits
    digits.load_digits = lambda split: all_digits(split).subset(torch.arange(40))
    Pace.__init__.__defaults__ = (0.0, *Pace.__init__.__defaults__[1:])
    main(words)


class Program:
    """The command in an interpreter of its own."""

    def __init__(self, words: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def kill(self, after: float, by: signal.Signals) -> bool:
        """Whether it ran as long as that, and so was killed."""
        try:
            self._process.wait(after)
        except subprocess.TimeoutExpired:
            self._process.send_signal(by)
            return True
        return False

    def end(self) -> tuple[int | None, str]:
        """(status, or None where it hangs; what it said on stderr)."""
        try:
            errors = self._process.communicate(timeout=SECONDS)[1]
        except subprocess.TimeoutExpired:
            self._process.kill()
            return None, self._process.communicate()[1]
        return self._process.returncode, errors


class Fork:
    """The command in a copy of this process, whose imports are done."""

    def __init__(self, words: list[str]) -> None:
        handle, self._errors = tempfile.mkstemp()
        os.close(handle)
        context = multiprocessing.get_context("fork")
        self._process = context.Process(target=self._run, args=(words, self._errors))
        self._process.start()

    @staticmethod
    def _run(words: list[str], errors: str) -> None:
        with open(errors, "w") as said, open(os.devnull, "w") as nothing:
            os.dup2(said.fileno(), 2)
            os.dup2(nothing.fileno(), 1)
            command(words)

    def kill(self, after: float, by: signal.Signals) -> bool:
        self._process.join(after)
        if self._process.exitcode is not None:
            return False
        os.kill(self._process.pid, by)
        return True

    def end(self) -> tuple[int | None, str]:
        self._process.join(SECONDS)
        status = self._process.exitcode
        if status is None:
            self._process.kill()
            self._process.join()
        errors = Path(self._errors).read_text()
        os.unlink(self._errors)
        return status, errors


Run = Program | Fork


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
        from faultsim.checkpoint import read_file

        tensors, metadata = read_file(path)
        return {name: (str(t.dtype), t.tolist()) for name, t in tensors.items()}, timeless(metadata)
    if path.suffix == ".jsonl":
        return [timeless(json.loads(line)) for line in path.read_text().splitlines()]
    return timeless(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()


def contents(folder: Path, but: tuple[str, ...] = ()) -> dict[str, object]:
    """Of every file in a folder but locks and those named."""
    return {p.name: content(p) for p in sorted(folder.iterdir()) if p.name not in (".lock", *but)}


def disturb(
    scenario: Scenario, out: Path, seconds: dict[bool, float], rng: random.Random, left: int
) -> tuple[int, list[str]]:
    """(kills, findings) of one run to its end. seconds: that it takes undisturbed, as a whole program or not."""
    kills = 0
    while True:
        whole = rng.random() < 0.25
        run, killed, by = scenario.start(out, whole), False, rng.choice((signal.SIGKILL, signal.SIGINT))
        if kills < min(MOST, left):
            killed = run.kill(rng.uniform(0, seconds[whole]), by)
            kills += killed
        status, errors = run.end()
        if status == 0:
            return kills, []
        # Ctrl-C before the command has begun is Python's own, with its traceback
        interrupted = status in (-signal.SIGKILL, -signal.SIGINT, 130) or "KeyboardInterrupt" in errors
        if killed and by == signal.SIGINT and status == 2:
            # a library that was interrupted may fail in its own words; what counts is that the command goes on
            print(f"{scenario.name}: Ctrl-C is told as {errors.strip()[-300:]}", flush=True)
        elif not (killed and interrupted):
            what = "hangs" if status is None else f"status {status}"
            return kills, [f"{scenario.name}: {what} after {kills} kills: {errors.strip()[-600:]}"]


def import_all() -> None:
    """What the commands import when they run."""

    import neuralfuse.paper.rows
    import neuralfuse.training  # noqa: F401


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=300, help="kills in all")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    import_all()
    began, kills, runs, findings = time.monotonic(), 0, 0, []
    with tempfile.TemporaryDirectory() as folder:
        expected = {}
        for scenario in SCENARIOS:
            seconds = {}
            for whole in (True, False):
                out = Path(folder) / f"{scenario.name}-{whole}"
                started = time.monotonic()
                status, errors = scenario.start(out, whole).end()
                if status:
                    sys.exit(f"{scenario.name} fails undisturbed: {errors}")
                seconds[whole] = time.monotonic() - started
            expected[scenario.name] = seconds, contents(out)
            print(
                f"{scenario.name}: {seconds[True]:.1f} s undisturbed, {seconds[False]:.1f} s forked",
                flush=True,
            )
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
