"""Do the numbers, commands and programs of the README and the site hold?"""

import ast
import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "results" / "README.md"]
TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in DOCUMENTS}
TEXTS |= {
    str(path.relative_to(ROOT)): re.sub(r"^# ?", "", path.read_text(encoding="utf-8"), flags=re.M)
    for path in sorted((ROOT / "docs" / "tutorials").glob("*.py"))
}
COMMANDS = [
    (name, line.replace("\\\n", " "))
    for name, text in TEXTS.items()
    for line in re.findall(r"^    (faultsim (?:\\\n|[^#\n])*)", text, re.M)
]
BLOCKS = [
    pytest.param(code, id=f"{name}-{number}")
    for name, text in TEXTS.items()
    for number, code in enumerate(re.findall(r"^```python\n(.*?)^```", text, re.M | re.S))
]


def test_saving_table():
    from energy.saving import compute_saving, count_weight_accesses
    from energy.trace import POLICIES
    from faultsim import VoltageCurve, models
    from neuralfuse import generators

    text = TEXTS["docs/results.md"].split("<!-- table saving")[1].split("<!-- end of table saving")[0]
    header = re.search(r"^\| \| (.*) \|$", text, re.M).group(1).split(" | ")
    rows = dict(re.findall(r"^\| (ResNet\d+|VGG\d+) \| (.*) \|$", text, re.M))
    assert set(rows) == set(models.BASE_MODELS)
    assert set(header) == set(generators.NAMES)
    curve = VoltageCurve.default()
    generator = POLICIES["paper-generator"]
    costs = {
        name: count_weight_accesses(generators.create(name), (3, 32, 32), policy=generator)
        for name in generators.NAMES
    }
    for name, cells in rows.items():
        accesses = count_weight_accesses(models.create(name), (3, 32, 32))
        computed = [f"{100 * compute_saving(accesses, curve, 0.83, costs[g]):.2f}" for g in header]
        assert cells.split(" | ") == computed, name


def test_there_are_commands_and_programs():
    assert len(COMMANDS) >= 25
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_commands_exist_with_their_options(document, line):
    import typer

    from faultsim.cli import app

    command = typer.main.get_command(app)
    _, *words = shlex.split(line)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"{line}: no such command"
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize(
    "line", [line for _, line in COMMANDS if re.search(r"train-generator --base|evaluate ", line)]
)
def test_commands_say_how_many_errors(line):
    """Which these commands cannot do without."""
    assert re.search(r"--(voltage|bit-error-rate|flips) ", line)


@pytest.mark.parametrize("code", BLOCKS)
def test_programs_import_what_there_is(code):
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in (
            "faultsim",
            "energy",
            "neuralfuse",
        ):
            exec(ast.unparse(node), {})


def test_the_readme_s_program_runs(tmp_path, monkeypatch, capsys):
    """With a network and data in the place of the user's."""
    (tmp_path / "my_project.py").write_text(
        "import torch\n\n\ndef net():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 32 * 32, 10))\n\n\n"
        "def validation():\n    return [(torch.randn(8, 3, 32, 32), torch.arange(8))]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    (code,) = re.findall(r"^```python\n(.*?)^```", TEXTS["README.md"], re.M | re.S)
    scope: dict = {}
    exec(code, scope)
    first, second = capsys.readouterr().out.splitlines()
    assert first == "0.01 0.694"
    mean, std, *_ = second.split()
    assert 0 <= float(mean) <= 1
    assert 0 <= float(std) <= 0.5
    assert scope["outputs"].shape == (1, 10)
