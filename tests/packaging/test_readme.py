"""Do the numbers and commands of the README hold?"""

import re
import shlex
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def test_saving_table():
    from energy.saving import energy_saving, weight_memory
    from energy.trace import POLICIES
    from faultsim import VoltageCurve, models
    from neuralfuse import generators

    text = README.read_text(encoding="utf-8").split("## Energy\n")[1]
    header = re.search(r"^\| \| (.*) \|$", text, re.M).group(1).split(" | ")
    rows = dict(re.findall(r"^\| (ResNet\d+|VGG\d+) \| (.*) \|$", text, re.M))
    assert set(rows) == set(models.BASE_MODELS)
    assert set(header) == set(generators.NAMES)
    curve = VoltageCurve.default()
    generator = POLICIES["paper-generator"]
    costs = {
        name: weight_memory(generators.create(name), (3, 32, 32), policy=generator)
        for name in generators.NAMES
    }
    for name, cells in rows.items():
        accesses = weight_memory(models.create(name), (3, 32, 32))
        computed = [f"{100 * energy_saving(accesses, curve, 0.83, costs[g]):.2f}" for g in header]
        assert cells.split(" | ") == computed, name


COMMANDS = re.findall(r"^    (faultsim [^#\n]*)", README.read_text(encoding="utf-8"), re.M)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_exist_with_their_options(line):
    import typer

    from faultsim.cli import app

    command = typer.main.get_command(app)
    _, *words = shlex.split(line)
    while words and words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    assert not hasattr(command, "commands"), f"{line}: no such command"
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= known


@pytest.mark.parametrize("line", [line for line in COMMANDS if re.search(r"train-generator|evaluate ", line)])
def test_commands_say_how_many_errors(line):
    """Which these commands cannot do without."""
    assert re.search(r"--(voltage|bit-error-rate|flips) ", line)
