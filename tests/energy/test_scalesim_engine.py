"""SCALE-Sim inside of this process: silent, without files, bounded in memory, and unable to end the process."""

import os
import sys
import tracemalloc
from pathlib import Path

import pytest

from energy import EnergyError, Layer, scalesim
from energy.accelerator import Accelerator

LAYER = Layer("conv", 18, 18, 3, 3, 32, 64)


def test_nothing_is_printed_or_written(
    capfd: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    scalesim.count([LAYER])
    assert capfd.readouterr() == ("", "")
    assert os.listdir(tmp_path) == []


def test_prints_of_scalesim_are_dropped(
    capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scalesim.compute.systolic_compute_os import systolic_compute_os as systolic

    original = systolic.create_demand_matrices

    def noisy(self) -> None:
        print("noise")
        print("more noise", file=sys.stderr)
        original(self)

    monkeypatch.setattr(systolic, "create_demand_matrices", noisy)
    scalesim.count([LAYER])
    assert capfd.readouterr() == ("", "")
    print("afterwards, printing works again")
    assert "again" in capfd.readouterr().out


def test_exit_becomes_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from scalesim.compute.operand_matrix import operand_matrix

    monkeypatch.setattr(operand_matrix, "get_ifmap_matrix", lambda self: sys.exit(0))
    with pytest.raises(EnergyError, match=r"SCALE-Sim stopped at .*'conv'.* with exit status 0"):
        scalesim.count([LAYER])


def test_missing_scalesim_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scalesim.scale_config", None)
    with pytest.raises(EnergyError, match=r"pip install \"faultsim\[energy\]\""):
        scalesim.count([LAYER])


@pytest.mark.parametrize("flow", ["os", "ws", "is"])
def test_memory_stays_below_the_estimate(flow: str) -> None:
    accelerator = Accelerator(dataflow=flow)
    scalesim.count([Layer("warm up", 1, 1, 1, 1, 1, 1)], accelerator)
    tracemalloc.start()
    try:
        scalesim.count([LAYER], accelerator)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < scalesim.memory_of(LAYER, accelerator)


def test_layers_wait_for_memory() -> None:
    network = [Layer(f"conv {n}", 18, 18, 3, 3, 32, 64 + n) for n in range(6)]
    accelerator = Accelerator()
    limit = int(1.5 * max(scalesim.memory_of(layer, accelerator) for layer in network))
    scalesim.count(network[:1])
    tracemalloc.start()
    try:
        scalesim.count(network, workers=6, memory_limit=limit)  # there is room for one at a time
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < limit


def test_a_layer_over_the_limit_is_refused_before_anything_runs() -> None:
    with pytest.raises(
        EnergyError, match=r"layer 'conv' would take .* MiB in SCALE-Sim, over the limit of 1 MiB"
    ):
        scalesim.count([LAYER], memory_limit=1 << 20)
