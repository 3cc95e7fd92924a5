"""What a user's type checker says about calls of the public names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".mypy_cache"  # that of `make lint`: torch's types take 20 s to read
SAMPLE = """\
import faultsim
import torch
from faultsim import Chip, FaultModel, StoredWeights, VoltageCurve
from faultsim.energy import PAPER, Layer, count

reveal_type(faultsim.evaluate)
reveal_type(VoltageCurve.default().bit_error_rate(0.83))
reveal_type(StoredWeights.of(torch.nn.Linear(2, 2)).layers[0].values)
reveal_type(count([Layer("fc", 1, 1, 1, 1, 512, 10)], PAPER).weight_memory_accesses)
Chip("nonsense")
FaultModel("transient", polarity="often")
faultsim.perturb(torch.nn.Linear(2, 2), Chip(7), voltage="low")
faultsim.surely_not_there(1)
with faultsim.perturbed(torch.nn.Linear(2, 2), 7, bit_error_rate=0.01) as model:
    reveal_type(model)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """What mypy says, by the line of SAMPLE."""
    sample = tmp_path_factory.mktemp("user") / "sample.py"
    sample.write_text(SAMPLE, encoding="utf-8")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--config-file",
            ROOT / "pyproject.toml",
            "--cache-dir",
            CACHE,
            sample,
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        cwd=sample.parent,
        timeout=280,
    )
    assert done.returncode == 1, done.stdout + done.stderr  # 1: it found errors, 2: it failed
    found = re.findall(r"sample\.py:(\d+): (.*)", done.stdout)
    return {int(line): text for line, text in found}


def said(answers: dict[int, str], code: str) -> str:
    """What mypy says of the line of SAMPLE that begins with `code`."""
    lines = [line.strip() for line in SAMPLE.splitlines()]
    return answers[1 + next(i for i, line in enumerate(lines) if line.startswith(code))]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("reveal_type(faultsim.evaluate)", r"-> faultsim\.evaluation\.Evaluation"),
        ("reveal_type(VoltageCurve", r'"(builtins\.)?float"'),
        ("reveal_type(StoredWeights", r'"torch\._tensor\.Tensor"'),
        ("reveal_type(count", r'"(builtins\.)?int"'),
        ("reveal_type(model)", r'"torch\.nn\.modules\.module\.Module"'),
    ],
)
def test_public_names_have_types(answers, code, kind):
    assert re.search(kind, said(answers, code))


@pytest.mark.parametrize(
    ("code", "complaint"),
    [
        ("Chip(", 'Argument 1 to "Chip" has incompatible type "str"'),
        ("FaultModel(", 'Argument "polarity" to "FaultModel" has incompatible type "str"'),
        ("faultsim.perturb(", 'Argument "voltage" to "perturb" has incompatible type "str"'),
    ],
)
def test_wrong_arguments_are_refused(answers, code, complaint):
    assert complaint in said(answers, code)
