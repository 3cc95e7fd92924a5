"""Two engines, one answer: the closed form and SCALE-Sim on random layers and on the paper's networks."""

import dataclasses
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energy import ENGINES, Accelerator, EnergyError, Layer, closed_form, count, find_differences, scalesim


@st.composite
def layers(draw: st.DrawFn) -> Layer:
    kernel_height, kernel_width = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    return Layer(
        draw(st.sampled_from(["conv", "DP", "a,b", ""])),
        kernel_height + draw(st.integers(0, 10)),
        kernel_width + draw(st.integers(0, 10)),
        kernel_height,
        kernel_width,
        draw(st.integers(1, 24)),
        draw(st.integers(1, 80)),
        draw(st.integers(1, 6)),
        draw(st.integers(1, 6)),
        draw(st.integers(1, 3)),
    )


@settings(max_examples=400, deadline=None)
@given(layers(), st.integers(4, 64), st.integers(4, 64), st.sampled_from(["os", "ws", "is"]))
def test_engines_agree_on_random_layers(layer: Layer, rows: int, columns: int, flow: str) -> None:
    accelerator = Accelerator(rows, columns, flow)
    assert find_differences(count([layer], accelerator), count([layer], accelerator, "scalesim")) == []


NETWORK = [
    Layer("3x3", 34, 34, 3, 3, 16, 40),
    Layer("1x1 stride 2", 32, 32, 1, 1, 16, 40, 2, 2),
    Layer("depthwise", 10, 10, 3, 3, 1, 1, repeats=24),
    Layer("row", 1, 50, 1, 7, 5, 9, 3, 3),
    Layer("fully connected", 1, 1, 1, 1, 200, 10),
]


@pytest.mark.parametrize("flow", ["os", "ws", "is"])
def test_engines_agree_on_a_network(flow: str) -> None:
    accelerator = Accelerator(8, 16, flow)
    results = [count(NETWORK, accelerator, engine) for engine in ENGINES]
    assert find_differences(*results) == []
    assert results[0].total == results[1].total
    assert [r.engine for r in results] == list(ENGINES)


def test_differences_are_found_and_named() -> None:
    counts = count(NETWORK)
    wrong = dataclasses.replace(counts.counts[1], cycles=7)
    other = dataclasses.replace(counts, counts=(counts.counts[0], wrong, *counts.counts[2:]))
    assert find_differences(counts, other) == [("1x1 stride 2", "cycles", counts.counts[1].cycles, 7)]
    with pytest.raises(EnergyError, match="different layers"):
        find_differences(counts, count(NETWORK[1:]))


def test_unknown_engine() -> None:
    with pytest.raises(EnergyError, match="unknown engine 'maestro': it can be closed-form, scalesim"):
        count(NETWORK, engine="maestro")


def test_order_and_number_of_workers_change_nothing() -> None:
    one = scalesim.count(NETWORK, workers=1)
    assert scalesim.count(NETWORK, workers=3) == one
    assert scalesim.count(NETWORK[::-1]).counts == one.counts[::-1]


def test_closed_form_is_a_thousand_times_faster() -> None:
    network = [Layer(f"3x3 {n}", 18, 18, 3, 3, 128, 128 + n) for n in range(8)]

    def seconds(engine) -> float:
        start = time.perf_counter()
        engine.count(network)
        return time.perf_counter() - start

    fastest = min(seconds(closed_form) for _ in range(20))
    assert seconds(scalesim) > 1000 * fastest
