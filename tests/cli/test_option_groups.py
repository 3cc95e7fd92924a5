"""Does a group of options become the same options as if each were declared by itself?"""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from faultsim.cli.option_groups import expand_options


@dataclass(frozen=True)
class Colors:
    """Two options."""

    red: Annotated[int, typer.Option(help="How red.")] = 1
    blue: Annotated[str | None, typer.Option("--blue-ish")] = None


def run(command, *words):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, words)


def test_a_group_arrives_as_an_instance():
    seen = []

    @expand_options
    def paint(*, name: Annotated[str, typer.Argument()], colors: Colors, size: int = 3) -> None:
        seen.append((name, colors, size))

    assert run(paint, "wall").exit_code == 0
    assert run(paint, "door", "--blue-ish", "sky", "--size", "5", "--red", "9").exit_code == 0
    assert seen == [("wall", Colors(), 3), ("door", Colors(9, "sky"), 5)]
    assert run(paint, "wall", "--red", "very").exit_code == 2
    assert run(paint, "wall", "--colors", "1").exit_code == 2


def test_options_are_listed_at_the_place_of_their_group():
    @expand_options
    def paint(*, first: int = 0, colors: Colors, last: int = 0) -> None:
        pass

    text = run(paint, "--help").output
    assert text.index("--first") < text.index("--red") < text.index("--blue-ish") < text.index("--last")
    assert "How red." in text


def test_one_option_in_two_groups_is_an_error_when_the_program_starts():
    with pytest.raises(ValueError, match="red"):

        @expand_options
        def paint(*, colors: Colors, red: int = 0) -> None:
            pass
