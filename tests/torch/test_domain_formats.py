"""Voltage domains of some bits: does each bit of a weight of any format fail as its own supply says?"""

import csv
import json

import numpy as np
import pytest
import torch
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
    corrupt_stored,
    evaluate,
    vulnerability,
)
from faultsim.kernel import reference
from faultsim.mitigations import ProtectedWeights, RobustBits
from faultsim.stored import StoredLayer
from faultsim.studies.voltage_sweep import sweep
from faultsim.studies.vulnerability_result import Vulnerability

FORMATS = [
    "int8",
    "int4",
    "int3",
    "uint2",
    "int5-unpacked",
    "uint7-asymmetric",
    "bfloat16",
    "float8_e5m2-zero",
    "float32-clamp",
]
torch.manual_seed(0)
MODEL = nn.Sequential(nn.Linear(23, 9), nn.ReLU(), nn.Linear(9, 7)).eval()
DATA = [(torch.randn(4, 23), torch.arange(4))]


def patterns(layer: StoredLayer, image: np.ndarray) -> np.ndarray:
    """The bits of each weight as an integer, from bytes of whole words: weight k of a word begins at bit k * cells."""
    words = image.view(np.uint8).view("<u8")
    shifts = np.arange(layer.format.weights_per_word, dtype=np.uint64) * np.uint64(layer.format.cells)
    found = words[:, None] >> shifts & np.uint64(2**layer.format.width - 1)
    return found.reshape(-1)[: layer.values.numel()]


def image_of(layer: StoredLayer) -> np.ndarray:
    flat = layer.image.numpy().reshape(-1).view(np.uint8)
    return np.pad(flat, (0, -flat.size % 8))


@pytest.mark.parametrize("kind", ["flip", "stuck_at_1"])
@pytest.mark.parametrize("name", FORMATS)
def test_bits_of_each_format_fail_at_their_own_rates_as_the_reference_says(name: str, kind: str) -> None:
    """The top bit never fails, the lowest fails at 0.4, all others at 0.1; in the second layer the lowest as well."""
    stored = StoredWeights.of(MODEL, format=name)
    width = stored.format.width
    faults = FaultModel(kind, domains=(Domain.top_bits(1), Domain("low", ("0.*",), (0,), bit_error_rate=0.4)))
    read = stored.read_chips([Chip(3), Chip(5)], 0.1, None, faults)
    found = corrupt_stored(stored, Chip(5), bit_error_rate=0.1, faults=faults)
    for layer, base, weights, corrupted in zip(
        stored.layers, stored.bases(faults), read, found.layers, strict=True
    ):
        own = image_of(layer)
        at = {
            rate: reference.corrupt(
                own.view(np.int8), [5], rate, "flip" if kind == "flip" else "stuck", ones=1.0, base=base
            )[0]
            for rate in (0.1, 0.4)
        }
        first, low, top = layer is stored.layers[0], 1, 1 << width - 1
        want = patterns(layer, own) & np.uint64(top)
        want |= patterns(layer, at[0.4 if first else 0.1]) & np.uint64(low)
        want |= patterns(layer, at[0.1]) & np.uint64(2**width - 1 - top - low)
        assert not np.array_equal(want, patterns(layer, own))
        assert np.array_equal(patterns(layer, image_of(corrupted)), want)
        torch.testing.assert_close(weights[1], corrupted.decode(), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", FORMATS)
def test_robust_bits_are_a_domain_of_any_format(name: str) -> None:
    stored = StoredWeights.of(MODEL, format=name)
    protected = ProtectedWeights(stored, RobustBits(2))
    robust = protected.read_chips([Chip(1), Chip(5)], 0.1, None, FaultModel())
    domain = stored.read_chips([Chip(1), Chip(5)], 0.1, None, FaultModel(domains=(Domain.top_bits(2),)))
    for one, other in zip(robust, domain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0, equal_nan=True)


def test_a_measured_chip_reads_the_bits_of_packed_weights_at_their_voltages() -> None:
    """Columns 0 to 11 fail at 0.9 and below: all bits of the three int4 weights 7, 7, 7."""
    columns = np.arange(12, dtype=np.int32)
    zeros = np.zeros(12, np.int32)
    chip = MeasuredChip(
        FaultMap(zeros, zeros, columns, np.full(12, -1, np.int8), np.full(12, 0.9), 1, lowest_voltage=0.5)
    )
    model = nn.Linear(3, 1, bias=False)
    model.weight.data.fill_(7.0)
    stored = StoredWeights.of(model, format="int4")

    def read(*domains: Domain) -> list[int]:
        found = corrupt_stored(stored, chip, voltage=0.8, faults=FaultModel(domains=domains))
        return found.layers[0].values.flatten().tolist()

    assert read() == [-8, -8, -8]  # 0111 -> 1000
    assert read(Domain("x", bits=(3,))) == [0, 0, 0]
    assert read(Domain("x", bits=(-2, 0), voltage=0.95)) == [-3, -3, -3]  # 1101


@pytest.mark.parametrize(
    ("name", "bits", "share"),
    [("int4", 2, 1 / 2), ("int3", 1, 1 / 3), ("int4-unpacked", 1, 1 / 4), ("bfloat16", 9, 9 / 16)],
)
def test_the_energy_of_some_bits_is_their_share_of_an_access(name: str, bits: int, share: float) -> None:
    result = sweep(
        MODEL, DATA, [1], voltages=[0.9], faults=FaultModel(domains=(Domain.top_bits(bits),)), format=name
    )
    top, others = result.supplies.rows(VoltageCurve.default().energy_per_access(0.9))
    assert top["accesses"] == pytest.approx(share * result.supplies.total, rel=1e-12)
    assert result[0].energy_per_inference == pytest.approx(top["energy"] + others["energy"], rel=1e-12)


def test_bits_that_a_weight_does_not_have_get_one_line() -> None:
    for name, domain, message in (
        (
            "int4",
            Domain.top_bits(5),
            "has bit -5, and the bits of these weights are 0 to 3, or -1 to -4 from the top",
        ),
        ("int8", Domain("x", bits=(3, 9)), "domain 'x' has bit 9, and the bits of these weights are 0 to 7"),
        ("bfloat16", Domain("x", bits=(16,)), "has bit 16"),
    ):
        with pytest.raises(FaultsimError, match=message):
            evaluate(MODEL, DATA, [1], bit_error_rate=0.1, faults=FaultModel(domains=(domain,)), format=name)
    with pytest.raises(FaultsimError, match="domain 'top 4 bits' has bit -4"):
        ProtectedWeights(StoredWeights.of(MODEL, format="int3"), RobustBits(4))


@pytest.mark.parametrize(
    ("name", "top"),
    [("int3", "2: sign"), ("uint3", "2: the most significant"), ("bfloat16-zero", "15: sign, 14 to 7")],
)
def test_a_study_has_a_part_for_each_bit_of_the_format(name: str, top: str) -> None:
    """Where only the top bit fails, at a rate of 1, a weight reads as what its other bits say, by hand."""
    stored = StoredWeights.of(MODEL, format=name)
    width = stored.format.width
    found = vulnerability(MODEL, DATA, [1], bit_error_rate=1.0, format=name, by=["bit"])
    assert [part.name for part in found.of("bit")] == [str(bit) for bit in reversed(range(width))]
    assert {part.weights for part in found.parts} == {23 * 9 + 9 * 7}
    assert top in make_picture_titles(found)
    by_hand = {  # of a code q: the sign of a float; 4 more or 4 less of integers
        "int3": lambda layer: (layer.values - torch.where(layer.values < 0, -4, 4)).float() * layer.scale,
        "uint3": lambda layer: ((layer.values.int() ^ 4) - 4).clamp(min=-3).float() * layer.scale,
        "bfloat16-zero": lambda layer: -layer.decode(),
    }[name]
    with torch.no_grad(), stored.replaced([by_hand(layer) for layer in stored.layers]):
        right = float((MODEL(DATA[0][0]).argmax(1) == DATA[0][1]).float().mean())
    assert found.of("bit")[0].evaluation.mean == right


def test_a_study_takes_a_format_from_the_command_line(tmp_path, capsys) -> None:
    from faultsim.cli import main

    options = ["--bits", "4", "--bit-error-rate", "5%", "--chips", "2", "--images", "40", "--by", "bit"]
    with pytest.raises(SystemExit):
        main(["vulnerability", *options, "--out", str(tmp_path / "study")])
    assert "int4 weights" in capsys.readouterr().out
    rows = list(csv.DictReader((tmp_path / "study" / "vulnerability.csv").open()))
    assert [(row["part"], row["format"]) for row in rows] == [
        (part, "int4") for part in ("everything", "3", "2", "1", "0")
    ]


def make_picture_titles(found: Vulnerability) -> str:
    return found.plot().axes[0].get_title()


def test_a_sweep_protects_bits_of_four_bit_weights_from_the_command_line(capsys) -> None:
    from faultsim.cli import main

    options = ["--voltages", "0.78", "--chips", "2", "--images", "20", "--json", "--bits", "4"]
    with pytest.raises(SystemExit):
        main(["sweep-voltage", *options, "--protect-bits", "4"])
    found = json.loads(capsys.readouterr().out)
    clean = found["summary"][0]
    assert (clean["std"], clean["energy_saving"]) == (0, 0)  # nothing fails and nothing is saved
    assert found["configuration"]["faults"]["domains"][0]["bits"] == [0, 1, 2, 3]
