"""Is the command line small: a command parses, calls the library and prints?

A command's own statements are those of its function without imports and docstring. FUNCTION of them are enough to check
which options go together, to call the library, and to print the result as JSON or as a table; what needs more computes
something that Python users miss. FILE lines are enough for a command with 25 options, each with its help.
"""

import ast
from pathlib import Path

from typer.testing import CliRunner

from faultsim.cli import app

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted((ROOT / "faultsim" / "cli").glob("*.py"))
FUNCTION, FILE, SHARE = 45, 300, 0.15


def statements(function: ast.FunctionDef) -> int:
    """Statements of a function, also within others, without imports and docstrings."""
    return sum(
        isinstance(node, ast.stmt)
        and not isinstance(node, ast.Import | ast.ImportFrom)
        and not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for part in function.body
        for node in ast.walk(part)
    )


def test_statements_are_counted():
    tree = ast.parse('def f(a):\n    "text"\n    import b\n    for c in a:\n        print(c)\n    return 1\n')
    assert statements(tree.body[0]) == 3


def test_commands_are_short():
    long = [
        f"{path.name}: {node.name} has {statements(node)} statements"
        for path in COMMANDS
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and statements(node) > FUNCTION
    ]
    assert not long


def test_files_are_short():
    lines = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in COMMANDS}
    assert not {name: count for name, count in lines.items() if count > FILE}


def test_the_command_line_is_a_small_part():
    def lines(paths):
        return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in paths)

    whole = lines(path for top in ("faultsim", "neuralfuse", "energy") for path in (ROOT / top).rglob("*.py"))
    assert lines(COMMANDS) <= SHARE * whole


def test_the_list_of_commands_cuts_no_sentence():
    """Each command says in one short sentence what it does, so that 80 columns show all of it."""
    done = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "80"})
    listed = done.output.partition("Commands:")[2].splitlines()
    assert len([line for line in listed if line]) == len(app.registered_commands) + len(app.registered_groups)
    assert not [line for line in listed if line.endswith("...")]
