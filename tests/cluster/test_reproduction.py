"""Does a reproduction by workers come to the results of one process, and go on where it stopped?"""

from pathlib import Path

import pytest
import torch

from faultsim import FaultsimError
from faultsim.cli import main
from faultsim.data import digits
from neuralfuse.paper.cells import select_cells
from neuralfuse.paper.result import read_results
from neuralfuse.paper.run import Plan, carry_out
from neuralfuse.paper.settings import Settings

SETTINGS = Settings.choose(smoke=True, base_epochs=1, epochs=1, n_models=1)


@pytest.fixture(autouse=True)
def few_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """In workers of this process, too."""
    whole = digits.load_digits
    monkeypatch.setattr(digits, "load_digits", lambda split: whole(split).subset(torch.arange(24)))


def plan(directory: Path) -> Plan:
    cells = select_cells("table1", generators=["ConvS"], faults=["iid_flips"], smoke=True)
    return Plan.of({"table1": cells}, directory, SETTINGS)


def test_the_same_results_and_files(in_process, tmp_path):
    lines: list[str] = []
    carry_out(plan(tmp_path / "here"), tmp_path / "here", device="cpu")
    carry_out(
        plan(tmp_path / "workers"), tmp_path / "workers", device="cpu", client=in_process, report=lines.append
    )
    found = [
        [(one.cell, one.images, one.correct, one.configuration) for one in read_results(tmp_path / name)]
        for name in ("here", "workers")
    ]
    assert found[0] == found[1] != []
    here, by_workers = (
        {path.name for path in (tmp_path / name).iterdir() if ".state." not in path.name}
        for name in ("here", "workers")
    )
    assert here == by_workers  # the states of trainings stay with the workers
    assert lines[-1].startswith(f"[{len(plan(tmp_path).steps)}/")

    result = next((tmp_path / "workers").glob("result-*.json"))
    before = result.read_bytes()
    result.unlink()  # as if the coordinator had been killed before it wrote it
    carry_out(
        plan(tmp_path / "workers"), tmp_path / "workers", device="cpu", client=in_process, report=lines.append
    )
    assert lines[-1].startswith("[1/1] evaluate")
    assert len(result.read_bytes()) == pytest.approx(len(before), abs=10)  # seconds and dates differ


def test_a_budget_and_workers_are_refused(capsys, tmp_path):
    with pytest.raises(FaultsimError, match="a budget cannot be combined with workers"):
        carry_out(plan(tmp_path), tmp_path, device="cpu", budget=5.0, client=object())
    with pytest.raises(SystemExit):
        main(["reproduce", "table1", "--smoke", "--show", "--workers", "2"])
    assert "--workers cannot be combined with --show" in capsys.readouterr().err
