"""Does the table of fewer bits say what its data files say?"""

import json
import shutil
from pathlib import Path

import pytest

from faultsim.errors import FaultsimError
from tools.tables.accuracy import base_models
from tools.tables.precision import precision

RESULTS = Path(__file__).parents[2] / "results"
RESULT = "result-UNetL-VGG11-cifar10-paper-neuralfuse_2022-0.01-staged.json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One network with 8 and 3 bits, a result of the paper's Table 1, and the same with 4 bits at half the rate."""
    (tmp_path / "results" / "precision").mkdir(parents=True)
    for bits in (3, 8):
        shutil.copy(RESULTS / "precision" / f"DigitsVGG-{bits}.json", tmp_path / "results" / "precision")
    content = json.loads((RESULTS / RESULT).read_text())
    shutil.copy(RESULTS / RESULT, tmp_path / "results")
    content["cell"] |= {"bits": 4, "bit_error_rate": 0.005}
    content["correct"]["perturbed"] = [1000] * 10
    (tmp_path / "results" / "result-4bits.json").write_text(json.dumps(content))
    return tmp_path


def rows(root: Path) -> list[list[str]]:
    lines = [line for line in precision(root).splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_each_network_has_a_row_for_each_number_of_bits(root: Path) -> None:
    wide, narrow, paper = rows(root)
    assert [row[1] for row in (wide, narrow, paper)] == ["8", "3", "4"]
    assert wide[0].startswith("digits, DigitsVGG, ConvQS, 2 % flip")
    assert narrow[0] == ""  # the same network
    assert paper[0].startswith("cifar10, VGG11, UNetL, 0.5 % neuralfuse_2022")
    assert paper[3] == "10.00 ± 0.00"
    report = json.loads((RESULTS / "precision" / "DigitsVGG-3.json").read_text())
    mean = {row["name"]: row["mean"] for row in report["accuracy"]}
    assert narrow[2] == f"{100 * mean['C.A.']:.2f}"
    assert narrow[5].split()[0] == f"{100 * mean['P.A.+N.F.']:.2f}"
    assert narrow[6] == f"{100 * mean['IP']:+.2f}"


def test_base_models_of_fewer_bits_are_no_other_base_models(root: Path) -> None:
    lines = [line for line in base_models(root).splitlines() if line.startswith("| cifar10")]
    assert len(lines) == 1


def test_damaged_data_are_named(root: Path) -> None:
    (root / "results" / "precision" / "DigitsVGG-3.json").write_text('{"accuracy": []}')
    with pytest.raises(FaultsimError, match=r"DigitsVGG-3\.json: damaged"):
        precision(root)
