"""Voltage domains: does each cell fail as its own supply says, and is its energy counted where it belongs?"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from faultsim import (
    Chip,
    Domain,
    FaultMap,
    FaultModel,
    FaultsimError,
    MeasuredChip,
    StoredWeights,
    VoltageCurve,
    corrupt,
    corrupt_stored,
    evaluate,
    load_domains,
    perturb,
)
from faultsim.domains import split_bits
from faultsim.kernel import reference
from faultsim.studies.voltage_sweep import sweep

KINDS = {
    "flip": ("flip", 0.5),
    "stuck_at_random": ("stuck", 0.25),
    "stuck_at_1": ("stuck", 1.0),
    "transient": ("transient", 0.5),
}
MODEL = nn.Sequential(nn.Linear(24, 20), nn.ReLU(), nn.Linear(20, 7)).eval()


def expected(stored: StoredWeights, kind: str, rates: dict[int, float]) -> list[np.ndarray]:
    """What the reference reads on chip 5, where the bits of each mask fail at a rate of their own."""
    base, found = 0, []
    name, ones = KINDS[kind]
    for layer in stored.layers:
        values = layer.values.numpy()
        parts = [
            reference.corrupt(values, [5], rate, name, ones=ones, base=base)[0].view(np.uint8)
            & np.uint8(mask)
            for mask, rate in rates.items()
        ]
        found.append(sum(parts[1:], parts[0]).view(np.int8))
        base += -(-values.size // 8) * 8
    return found


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_bits_fail_at_their_own_rates_as_the_reference_says(kind: str, per_channel: bool):
    domains = (Domain.top_bits(2), Domain("middle", bits=(3, 4), bit_error_rate=0.3))
    faults = FaultModel(kind, polarity=0.25 if kind == "stuck_at_random" else 0.5, domains=domains)
    stored = StoredWeights.of(MODEL, per_channel)
    want = expected(stored, kind, {0b11000000: 0.0, 0b00011000: 0.3, 0b00100111: 0.1})
    found = corrupt_stored(stored, Chip(5), bit_error_rate=0.1, faults=faults)
    for layer, values in zip(found.layers, want, strict=True):
        assert np.array_equal(layer.values.numpy(), values)
    for layer, read in zip(
        stored.layers, stored.read_chips([Chip(3), Chip(5)], 0.1, None, faults), strict=True
    ):
        values = want[stored.layers.index(layer)]
        product = reference.dequantize(values, layer.scale.numpy(), 0 if per_channel else None, "float32")
        assert np.array_equal(read[1].numpy(), product)


def test_a_layer_fails_at_its_own_rate_and_a_protected_one_never():
    faults = FaultModel(domains=(Domain("first", ("0.*",)), Domain("last", ("2.*",), bit_error_rate=0.2)))
    stored = StoredWeights.of(MODEL)
    first, last = corrupt_stored(stored, 9, bit_error_rate=0.5, faults=faults).layers
    assert torch.equal(first.values, stored.layers[0].values)
    base = stored.bases(faults)[1]
    assert torch.equal(last.values, corrupt(stored.layers[1].values, 9, bit_error_rate=0.2, base=base))
    copied = perturb(MODEL, 9, bit_error_rate=0.5, faults=faults)
    assert torch.equal(copied[2].weight, last.values * last.scale)


@given(st.lists(st.tuples(st.sets(st.integers(-8, 7), min_size=1), st.booleans()), max_size=4))
def test_every_bit_belongs_to_the_first_domain_that_takes_it(drawn: list[tuple[set[int], bool]]):
    domains = tuple(
        Domain(str(i), ("a.*" if ours else "b.*",), tuple(bits)) for i, (bits, ours) in enumerate(drawn)
    )
    parts = split_bits(domains, ("a.weight",), 8)
    assert sum(mask for mask, _ in parts) == 255
    for bit in range(8):
        owners = [d for d in domains if d.layers == ("a.*",) and {bit, bit - 8} & set(d.bits)]
        (found,) = (domain for mask, domain in parts if mask >> bit & 1)
        assert found == (owners[0] if owners else None)


def test_a_voltage_means_the_rate_of_the_curve():
    curve = VoltageCurve.default()
    at = FaultModel(domains=(Domain("low", ("0.*",), voltage=0.8),))
    same = FaultModel(domains=(Domain("low", ("0.*",), bit_error_rate=curve.bit_error_rate(0.8)),))
    stored = StoredWeights.of(MODEL)
    one, two = (corrupt_stored(stored, 2, voltage=1.0, faults=faults) for faults in (at, same))
    assert torch.equal(one.layers[0].values, two.layers[0].values)
    assert not torch.equal(one.layers[0].values, stored.layers[0].values)
    assert torch.equal(one.layers[1].values, stored.layers[1].values)  # at Vmin
    with pytest.raises(FaultsimError, match="resolve"):
        stored.read_chips([Chip(1)], 0.1, None, at)


def test_a_measured_chip_reads_each_domain_at_its_voltage():
    # columns 0 to 3 fail at 0.9 and below, the others at 0.7 and below
    zeros, voltages = np.zeros(8, np.int32), np.repeat([0.9, 0.7], 4)
    found = FaultMap(
        zeros, zeros, np.arange(8, dtype=np.int32), np.full(8, -1, np.int8), voltages, 1, lowest_voltage=0.5
    )
    weights = torch.zeros(1, dtype=torch.int8)

    def read(**own: object) -> int:
        faults = FaultModel(domains=(Domain("x", bits=(0, 7), **own),))
        return int(corrupt(weights, MeasuredChip(found), voltage=0.8, faults=faults)[0]) & 255

    assert read() == 0b00001110
    assert read(voltage=0.6) == 0b10001111
    assert read(voltage=0.95) == 0b00001110
    with pytest.raises(FaultsimError, match="needs a voltage"):
        read(bit_error_rate=0.1)


def test_the_energy_is_that_of_each_domain_by_hand():
    """480 + 140 weights are read once each, 8 in a word: 77.5, so 78 accesses."""
    domains = (Domain("sign", ("0.*",), (7,)), Domain("low", ("2.*",), voltage=0.83))
    data = [(torch.randn(4, 24), torch.arange(4))]
    result = sweep(MODEL, data, [1, 2], voltages=[0.9], faults=FaultModel(domains=domains))
    per_read, curve = 78 / 620, VoltageCurve.default()
    sign, low, others = (row["accesses"] for row in result.supplies.rows())
    assert [sign, low, others] == pytest.approx([per_read * 60, per_read * 140, per_read * 420])
    energy = sign + low * 0.694 + others * curve.energy_per_access(0.9)
    assert result[0].energy_per_inference == pytest.approx(energy, rel=1e-12)
    assert result[0].energy_saving == pytest.approx(1 - energy / 78, rel=1e-12)
    assert "domain low: 22.6 % of the accesses; energy of an access 0.694" in repr(result)
    assert "no faults in domain sign" in repr(result)
    plain = sweep(MODEL, data, [1], voltages=[0.9])
    assert plain[0].energy_per_inference == 78 * curve.energy_per_access(0.9)


def test_without_domains_nothing_changes_for_old_results():
    assert "domains" not in FaultModel().describe()
    faults = FaultModel(domains=(Domain.top_bits(2),))
    described = faults.describe()["domains"]
    assert json.loads(json.dumps(described)) == described
    # of int8 weights as always: run directories name positions from the bottom
    assert faults.describe(8)["domains"][0]["bits"] == [6, 7]
    assert faults.describe(4)["domains"][0]["bits"] == [2, 3]


FILES = {
    "d.toml": '[[domain]]\nname = "head"\nlayers = ["2.*"]\nvoltage = 0.9\n[[domain]]\nname = "rest"\ntop_bits = 2\n',
    "d.json": '{"domain": [{"name": "head", "layers": ["2.*"], "voltage": 0.9}, {"name": "rest", "top_bits": 2}]}',
}


@pytest.mark.parametrize("name", FILES)
def test_files_say_the_same_as_python(name: str, tmp_path: Path):
    (tmp_path / name).write_text(FILES[name])
    assert load_domains(tmp_path / name) == (
        Domain("head", ("2.*",), voltage=0.9),
        Domain("rest", bits=(-1, -2)),
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"domain": []}', "a list named domain"),
        ('{"domain": [{"volts": 1}]}', "unknown key 'volts'"),
        ('{"domain": [{"bits": [32]}]}', "must be from -32 to 31"),
        ('{"domain": [{"bits": []}]}', "bits must be a list of positions"),
        ('{"domain": [{"bits": [1], "top_bits": 2}]}', "cannot be combined"),
        ('{"domain": [{"voltage": "low"}]}', "voltage must be a number"),
        ('{"domain": [{"bit_error_rate": 2}]}', "outside"),
        ('{"domain": [{"layers": "x"}]}', "layers must be a list"),
        ('{"domain": [{"layers": ["' + "*" * 1001 + '"]}]}', "a pattern may have 1000 characters, not 1001"),
        ("[", "cannot be read"),
    ],
)
def test_bad_files_get_one_line(text: str, message: str, tmp_path: Path):
    (tmp_path / "d.json").write_text(text)
    with pytest.raises(FaultsimError, match=message) as found:
        load_domains(tmp_path / "d.json")
    assert "\n" not in str(found.value)


def test_patterns_that_match_nothing_are_refused():
    for domains, message in (
        ((Domain(layers=("encoder.*",)),), "no tensor in the faulty memory matches 'encoder"),
        ((Domain(), Domain()), "same name"),
    ):
        with pytest.raises(FaultsimError, match=message):
            evaluate(
                MODEL,
                [(torch.zeros(1, 24), torch.zeros(1, dtype=torch.long))],
                [1],
                bit_error_rate=0.1,
                faults=FaultModel(domains=domains),
            )


def test_a_sweep_takes_domains_from_the_command_line(tmp_path: Path, capsys):
    """With all bits protected, nothing fails and nothing is saved."""
    from faultsim.cli import main

    (tmp_path / "d.toml").write_text('[[domain]]\nname = "sign"\nbits = [-1]\n[[domain]]\nname = "rest"\n')
    options = ["--voltages", "0.78", "--chips", "2", "--images", "20", "--json"]
    with pytest.raises(SystemExit):
        main(["sweep-voltage", *options, "--domains", str(tmp_path / "d.toml")])
    found = json.loads(capsys.readouterr().out)
    alone = found["summary"][0]
    assert (alone["mean"], alone["std"], alone["energy_saving"]) == (1, 0, 0)
    assert [row["domain"] for row in found["accesses_by_domain"]] == ["sign", "rest", "others"]
    assert [domain["name"] for domain in found["configuration"]["faults"]["domains"]] == ["sign", "rest"]
    with pytest.raises(SystemExit, match="2"):
        main(["sweep-voltage", *options, "--protect-bits", "9"])
    assert capsys.readouterr().err == (
        "faultsim: error: domain 'top 9 bits' has bit -9, and the bits of these weights are 0 to 7, or -1 to -8 from "
        "the top\n"
    )
