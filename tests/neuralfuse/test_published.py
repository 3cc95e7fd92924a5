"""The paper's tables as data: complete, readable, and consistent in themselves."""

from importlib.resources import files

import pytest

from faultsim.errors import FaultsimError
from neuralfuse import published


def test_every_file_has_a_name() -> None:
    there = {p.name.removesuffix(".csv") for p in files(published).iterdir() if p.name.endswith(".csv")}
    assert there == set(published.NAMES)
    for name in published.NAMES:
        rows = published.read_table(name)
        assert rows
        assert all(None not in row and None not in row.values() for row in rows), name


def test_sizes() -> None:
    assert len(published.read_table("model_costs")) == 11
    assert len(published.read_table("energy_saving")) == 5 * 6


def test_improvement_is_the_difference() -> None:
    without = {
        (row["dataset"], row["base_model"], row["bit_error_rate"]): row["perturbed_acc"]
        for row in published.read_table("base_models")
    }
    compared = 0
    for row in published.read_table("relaxed_access"):
        base = without[row["dataset"], row["base_model"], row["bit_error_rate"]]
        if base and row["perturbed_acc_nf"] and row["improvement"]:
            difference = float(row["perturbed_acc_nf"]) - float(base)
            assert difference == pytest.approx(float(row["improvement"]), abs=0.11), row
            compared += 1
    assert compared > 150


def test_unknown_table() -> None:
    with pytest.raises(
        FaultsimError, match="unknown published table 'table99': it can be adversarial_training"
    ):
        published.read_table("table99")
