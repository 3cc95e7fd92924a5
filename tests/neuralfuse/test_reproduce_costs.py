"""Tables 6, 7 and 8, computed again; and that a wrong value would be noticed."""

import pytest

import neuralfuse
from faultsim.errors import FaultsimError
from neuralfuse import published
from neuralfuse.paper import computed


def test_table_6_from_both_engines() -> None:
    result = neuralfuse.reproduce("table6")
    assert [row.quantity for row in result.rows] == ["closed-form", "scalesim"] * 11
    assert all(row.ours == row.published for row in result.rows)
    assert result.agrees


def test_table_7_to_the_printed_digit() -> None:
    result = neuralfuse.reproduce("table7")
    assert len(result.rows) == 2 * 30
    assert all(round(row.ours, 2) == row.published for row in result.rows)
    assert result.agrees


def test_table_8() -> None:
    result = neuralfuse.reproduce("table8")
    by_quantity = {"parameters": [], "MACs": []}
    for row in result.rows:
        by_quantity[row.quantity].append(row)
    assert len(by_quantity["parameters"]) == len(by_quantity["MACs"]) == 11
    assert all(row.difference == 0 for row in by_quantity["parameters"])
    assert all(abs(row.ours / row.published - 1) < 0.005 for row in by_quantity["MACs"])
    assert result.agrees


def test_macs_agree_to_the_printed_digit_but_for_resnet18() -> None:
    def printed(macs: float) -> str:
        return f"{macs / 1e9:.2f}G" if macs >= 1e9 else f"{macs / 1e6:.2f}M"

    rows = [row for row in computed.compute_table8().rows if row.quantity == "MACs"]
    assert [row.subject for row in rows if printed(row.ours) != printed(row.published)] == ["ResNet18"]


@pytest.mark.parametrize(
    ("name", "file", "column", "factor"),
    [
        ("table6", "model_costs", "weight_memory_accesses", 1),
        ("table7", "energy_saving", "energy_saving_percent", 1),
        ("table8", "model_costs", "parameters", 1),
        ("table8", "model_costs", "macs", 1_000_000),
    ],
)
def test_a_wrong_value_is_noticed(
    monkeypatch: pytest.MonkeyPatch, name: str, file: str, column: str, factor: int
) -> None:
    rows = [dict(row) for row in published.read_table(file)][:7]
    rows[6][column] = str(float(rows[6][column]) + factor).removesuffix(".0")
    monkeypatch.setattr(published, "read_table", lambda _: rows[6:])
    result = neuralfuse.reproduce(name)
    assert not result.agrees
    assert any(not row.agrees for row in result.rows)


def test_unknown_table() -> None:
    with pytest.raises(
        FaultsimError,
        match="unknown table or figure 'table99': it can be figure2, table6, table7, table8, table1",
    ):
        neuralfuse.reproduce("table99")
