"""Does a table keep every digit and name at any width of the terminal?"""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

TABLES = {
    "sweep-voltage --voltages 0.79,0.83,1 --images 20 --chips 3 --device cpu": 60,
    "evaluate --bit-error-rate 1% --images 20 --chips 3 --device cpu": 60,
    "curve --voltages 0.83,0.9": 60,
    "chip 7 --voltage 0.8 --arrays 12": 60,
    "energy --model VGG11 --generator ConvL --voltage 0.83": 60,
    "bench kernel --weights 5000 --seconds 0 --device cpu": 60,
    "bench formats --weights 5000 --seconds 0 --device cpu": 80,
    "reproduce table8": 80,
    "reproduce table1 --show --dataset cifar10 --base VGG11": 80,
    "reproduce --status": 60,
}


@pytest.mark.parametrize("command", TABLES)
def test_tables_cut_no_digit_and_no_name(call, monkeypatch, command):
    """The same digits at every width (where time is not what is printed), no ellipsis, and lines that fit."""
    texts = {}
    for width in (60, 400) if command == "reproduce table8" else (40, 60, 80, 120, 400):
        monkeypatch.setenv("COLUMNS", str(width))
        status, texts[width], err = call(*command.split())
        assert status == 0, err
        assert "…" not in texts[width]
        of_tables = [
            line for line in texts[width].splitlines() if re.search(r"[│┃━─]|^ *[-+\d.,% ±]+$", line)
        ]
        if width >= TABLES[command]:
            assert max(map(len, of_tables)) <= width
    if not command.startswith("bench"):
        counts = [Counter(filter(str.isdigit, text)) for text in texts.values()]  # names may be folded
        assert counts == len(counts) * counts[:1]


@given(
    st.lists(
        st.lists(st.text("ab c", min_size=1, max_size=20), min_size=3, max_size=3), min_size=1, max_size=5
    ),
    st.integers(0, 10**12),
    st.integers(20, 120),
)
def test_any_table_keeps_its_letters_and_digits(rows, number, width):
    from faultsim.cli.tables import console

    table = Table()
    for heading in ("some name", "another", "third"):
        table.add_column(heading)
    table.add_column("a long heading", justify="right")
    for row in rows:
        table.add_row(*row, f"{number:,}")
    printer = console()
    printer.width = width
    with printer.capture() as captured:
        printer.print(table)
    text = captured.get()
    assert text.count(f"{number:,}") >= len(rows)
    for letter in "ab":
        named = sum(cell.count(letter) for row in rows for cell in row)
        headings = sum(word.count(letter) for word in ("some name", "another", "third", "a long heading"))
        assert text.count(letter) == named + headings
