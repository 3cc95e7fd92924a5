"""Does a small run of table 1 from nothing go on where it was killed, and refuse what is not its own?"""

import io
import json
import shutil
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from filelock import FileLock

import faultsim.training.loop
import faultsim.training.to_file
import neuralfuse.paper.actions
import neuralfuse.to_file
from faultsim import FaultsimError, bundled
from faultsim.cli import main
from faultsim.data import digits
from neuralfuse.paper.cells import FAULTS
from neuralfuse.paper.result import read, read_results
from neuralfuse.paper.settings import Settings
from tests.forked import Forked

TINY = ["table1", "--smoke", "--generator", "ConvS", "--device", "cpu"]
TINY += ["--base-epochs", "2", "--epochs", "2", "--n-models", "1"]


@pytest.fixture
def few_digits(monkeypatch: pytest.MonkeyPatch, threads: Callable[[int], None]) -> None:
    """40 digits to train on and 40 to test on, and arithmetic that is the same every time."""
    threads(1)
    shrink(monkeypatch)


def shrink(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {split: digits.load_digits(split).subset(torch.arange(40)) for split in ("train", "test")}
    monkeypatch.setattr(digits, "load_digits", few.__getitem__)


def outcome(directory: Path) -> list[tuple]:
    """What must be equal however a run got there: everything but provenance."""
    return [
        (found.cell, found.images, found.correct, found.configuration) for found in read_results(directory)
    ]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run that nobody disturbed."""
    directory, out, err = tmp_path_factory.mktemp("undisturbed"), io.StringIO(), io.StringIO()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setenv("COLUMNS", "80")
        shrink(patch)
        with pytest.raises(SystemExit) as end:
            main(["reproduce", *TINY, "--out", str(directory)])
    torch.set_num_threads(threads)
    assert not end.value.code, err.getvalue()
    assert "0 of 7 steps are done, 7 are missing" in err.getvalue()
    assert "1. train DigitsNet on digits, recipe modern (" in err.getvalue()
    assert ") -> base-DigitsNet-digits-modern.safetensors" in err.getvalue()
    assert "not in the paper" in out.getvalue()
    assert "2 of 2 results are there" in out.getvalue()
    return directory


@pytest.fixture
def whole(undisturbed: Path, tmp_path: Path, few_digits: None) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(undisturbed, tmp_path / "whole"))


def test_a_killed_run_goes_on_to_the_same_results(
    run: Callable, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Interrupted once in the middle of every kind of step."""

    def dies(module: object, name: str, call: int) -> None:
        """Makes a function die, once, when it is called for the `call`-th time."""
        original, calls = getattr(module, name), []

        def dying(*arguments: object, **options: object) -> object:
            calls.append(name)
            if len(calls) == call:
                raise KeyboardInterrupt
            return original(*arguments, **options)

        monkeypatch.setattr(module, name, dying)

    dies(faultsim.training.loop, "save_state", 2)  # the base model's second epoch
    dies(
        faultsim.training.loop, "save_state", 5
    )  # and, after a third call for it, the second one of the first generator
    dies(neuralfuse.to_file, "save_weights", 2)  # the second generator is trained, but not written
    dies(neuralfuse.paper.actions, "evaluate", 4)  # between clean and perturbed, behind the first generator
    directory = tmp_path / "killed"
    statuses = [run(*TINY, "--out", directory).status for _ in range(5)]
    assert statuses == [130, 130, 130, 130, 0]
    assert outcome(directory) == outcome(whole)
    assert len(outcome(whole)) == 2


def test_a_run_that_was_killed_outright_goes_on(run: Callable, whole: Path, tmp_path: Path):
    directory = tmp_path / "killed"
    program = (
        "import torch; from faultsim.data import digits; from faultsim.cli import main\n"
        "torch.set_num_threads(1); whole = digits.load_digits\n"
        "digits.load_digits = lambda split: whole(split).subset(torch.arange(40)); main()"
    )
    process = Forked(program, ["reproduce", *TINY, "--out", directory])
    deadline = time.monotonic() + 120
    while not list(directory.glob("generator-*.state.safetensors")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.communicate()
    left = directory / ".generator-killed.safetensors"
    left.touch()
    assert run(*TINY, "--out", directory).status == 0
    assert outcome(directory) == outcome(whole)
    assert not left.exists()


def test_what_is_done_is_not_done_again(run: Callable, whole: Path, monkeypatch: pytest.MonkeyPatch):
    before = {file: file.stat().st_mtime_ns for file in whole.iterdir()}
    files = [file.name for file in whole.glob("generator-ConvS-*-iid_flips-0.01.safetensors")]
    assert files == ["generator-ConvS-DigitsNet-digits-modern-iid_flips-0.01.safetensors"]

    def never(*arguments: object, **options: object) -> None:
        pytest.fail("this was done already")

    for module, name in (
        (faultsim.training.to_file, "train_classifier"),
        (neuralfuse.to_file, "train_generator"),
        (neuralfuse.paper.actions, "evaluate"),
    ):
        monkeypatch.setattr(module, name, never)
    again = run(*TINY, "--out", whole)
    assert again.status == 0
    assert "7 of 7 steps are done, 0 are missing" in again.err
    assert {file: file.stat().st_mtime_ns for file in whole.iterdir()} == before
    assert run(*TINY, "--out", whole, "--json").out.startswith("{")
    settings = Settings.choose(smoke=True, base_epochs=2, epochs=2, n_models=1)
    options = {"generators": ["ConvS"], "settings": settings, "smoke": True, "device": "cpu"}
    told: list[str] = []
    lines = neuralfuse.reproduce("table1", whole, **options, report=told.append)
    assert told == ["7 of 7 steps are done, 0 are missing"]
    shown = sorted(found.text() for line in lines for found in line.results)
    assert shown == sorted(found.text() for found in read_results(whole))
    with pytest.raises(FaultsimError, match="a run of another configuration"):
        neuralfuse.reproduce("table1", whole, **options | {"settings": replace(settings, epochs=3)})

    monkeypatch.undo()
    lost = whole / "result-ConvS-DigitsNet-digits-modern-iid_flips-0.01.json"
    counts = read(lost).correct
    lost.unlink()
    monkeypatch.setattr(faultsim.training.to_file, "train_classifier", never)
    monkeypatch.setattr(neuralfuse.to_file, "train_generator", never)
    shrink(monkeypatch)
    assert "1 are missing" in run(*TINY, "--out", whole).err
    assert read(lost).correct == counts


def test_counts_are_those_of_evaluate(run: Callable, whole: Path, capsys: pytest.CaptureFixture):
    """The other command that measures the same thing, on the same chips."""
    for found in read_results(whole):
        stem = f"DigitsNet-digits-modern-{found.cell.faults}-0.01.safetensors"
        with pytest.raises(SystemExit):
            main(
                [
                    *("evaluate", "--weights", str(whole / "base-DigitsNet-digits-modern.safetensors")),
                    *("--generator", str(whole / f"generator-ConvS-{stem}"), "--bit-error-rate", "0.01"),
                    *("--preset", found.cell.faults, "--device", "cpu", "--json"),
                ]
            )
        rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)["accuracy"]}
        for name, part in (
            ("C.A.", "clean"),
            ("P.A.", "perturbed"),
            ("C.A.+N.F.", "clean_fused"),
            ("P.A.+N.F.", "perturbed_fused"),
        ):
            assert 100 * rows[name]["mean"] == pytest.approx(found.mean(part))
        assert 100 * rows["P.A.+N.F."]["std"] == pytest.approx(found.std("perturbed_fused"))
        assert 100 * rows["IP"]["mean"] == pytest.approx(found.improvement)


def test_models_that_do_not_belong_together_are_refused(run: Callable, whole: Path):
    """A base model or generator that was put there in place of the right one."""
    base = whole / "base-DigitsNet-digits-modern.safetensors"
    first, second = (whole / f"generator-ConvS-DigitsNet-digits-modern-{f}-0.01.safetensors" for f in FAULTS)
    (whole / "result-ConvS-DigitsNet-digits-modern-iid_flips-0.01.json").unlink()
    right = second.read_bytes()
    second.write_bytes(first.read_bytes())
    end = run(*TINY, "--out", whole)
    assert (end.status, end.out) == (2, "")
    assert "was trained with another fault model: delete or rename it" in end.err
    second.write_bytes(right)
    base.write_bytes(bundled.WEIGHTS.read_bytes())
    assert "recipe digits, where DigitsNet on digits, recipe modern" in run(*TINY, "--out", whole).err


def test_a_directory_of_other_settings_or_in_use_is_refused(run: Callable, whole: Path):
    other = run(*TINY, "--n-models", 2, "--out", whole)
    assert other.status == 2
    assert "holds a run of another configuration (n_models is 1 there, 2 here)" in other.err
    with FileLock(whole / ".lock"):
        assert "in use by another run" in run(*TINY, "--out", whole).err
