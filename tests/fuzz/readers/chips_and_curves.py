"""Readers of what describes chips: fault maps, curves, activation ranges, voltage domains, topologies."""

import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from energy import count, read_topology
from faultsim.activations.ranges import ActivationRanges, SiteRange
from faultsim.chips.chip_map import map_chip
from faultsim.chips.fault_map import FaultMap
from faultsim.domains import MOST_BITS, load_domains, split_bits
from faultsim.errors import FaultsimError
from faultsim.faults import Chip
from faultsim.voltage import VoltageCurve
from tests.fuzz import mutations
from tests.fuzz.readers.reader import JSON, Reader, digest, keep_sample


def make_maps(folder: Path) -> list[Reader]:
    found = map_chip(Chip(7), [0.83, 0.8], arrays=2)
    found = replace(found, lowest_voltage=0.79)

    def read(path: Path, _: Path) -> object:
        loaded = FaultMap.load(path)
        loaded.at(0.83).masks()
        return digest(
            loaded.array, loaded.row, loaded.column, loaded.stuck_at, loaded.voltage
        ), loaded.lowest_voltage

    inside = (mutations.inside_zip, mutations.inside_zip, mutations.flip_in_other_ways)
    return [
        Reader("fault map .npz", keep_sample(folder, "a.npz", found.save), read, summed=True, inside=inside),
        Reader("fault map .csv", keep_sample(folder, "a.csv", found.in_array(0).save), read),
    ]


def make_curves(folder: Path) -> list[Reader]:
    def read(path: Path, _: Path) -> object:
        curve = VoltageCurve.from_csv(path)
        found = []
        for voltage in (curve.v_high, curve.v_low, (curve.v_high + curve.v_low) / 2):
            found += [curve.bit_error_rate(voltage), curve.energy_per_access(voltage)]
        if not np.isfinite(found).all():
            raise AssertionError(f"a curve with {found}")
        with contextlib.suppress(FaultsimError):
            curve.voltage(0.01)
        return found

    return [Reader("voltage curve", keep_sample(folder, "curve.csv", VoltageCurve.default().to_csv), read)]


def make_activation_ranges(folder: Path) -> list[Reader]:
    def read(path: Path, _: Path) -> object:
        return ActivationRanges.load(path)

    ranges = ActivationRanges(
        "input", {"conv1": SiteRange(-1.5, 2.0, 3072), "blocks.0.attention:2": SiteRange(0.0, 6.25e-3, 64)}
    )
    return [Reader("activation ranges", keep_sample(folder, "ranges.json", ranges.save), read, inside=JSON)]


def make_domains(folder: Path) -> list[Reader]:
    def read(path: Path, _: Path) -> object:
        found = load_domains(path)
        split_bits(found, ("encoder.weight",), MOST_BITS)
        return [(domain.describe(), domain.positions(MOST_BITS), str(domain)) for domain in found]

    toml = b'[[domain]]\nname = "head"\nlayers = ["2.*"]\nvoltage = 0.9\n[[domain]]\nbits = [7, -2]\n'
    table = b'{"domain": [{"layers": ["a", "b"], "bit_error_rate": 0.01}, {"top_bits": 2, "energy_per_access": 1.3}]}'
    samples = {"domains.toml": toml, "domains.json": table}
    return [Reader("voltage domains", samples, read, inside=JSON)]


def make_topologies(folder: Path) -> list[Reader]:
    def read(path: Path, _: Path) -> object:
        return count(read_topology(path)).total

    conv = b"Layer, H, W, R, S, C, F, Stride,\na, 34, 34, 3, 3, 3, 64, 1,\nb_DP, 10, 10, 3, 3, 8, 1, 2, 1:1,# dw\n"
    gemm = b"Layer, M, N, K,\nqkv, 128, 1536, 512,\nout, 128, 512, 512, 1:1,\n"
    return [Reader("topology", {"conv.csv": conv, "gemm.csv": gemm}, read)]
