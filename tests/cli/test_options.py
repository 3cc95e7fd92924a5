"""What the words of the command line become."""

from decimal import Decimal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faultsim.cli.numerals import parse_numbers
from faultsim.cli.options import fault_model, load_curve
from faultsim.errors import FaultsimError
from faultsim.faults import FaultKind, FaultModel
from faultsim.kernel.devices import choose_device
from faultsim.sram import Placement


def test_ranges_are_inclusive_and_decimal():
    assert parse_numbers("0.78:1.00:0.02") == [
        0.78, 0.80, 0.82, 0.84, 0.86, 0.88, 0.90, 0.92, 0.94, 0.96, 0.98, 1.00,
    ]  # fmt: skip
    assert 0.83 in parse_numbers("0.5:1.5:0.01")
    assert parse_numbers("0.8:0.95:0.1") == [0.8, 0.9]
    assert parse_numbers("0.8:0.8:1") == [0.8]


def test_lists_keep_their_order():
    assert parse_numbers("0.9, 0.8,1e-3") == [0.9, 0.8, 0.001]


@given(first=st.integers(-10_000, 10_000), steps=st.integers(0, 300), step=st.integers(1, 500))
def test_every_point_of_a_range_is_the_float_of_its_decimal(first, steps, step):
    last = first + steps * step
    text = ":".join(f"{Decimal(n).scaleb(-3)}" for n in (first, last, step))
    assert parse_numbers(text) == [float(f"{Decimal(first + i * step).scaleb(-3)}") for i in range(steps + 1)]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not a finite number"),
        ("0.8,,0.9", "not a finite number"),
        ("0.8,nan", "'nan' is not a finite number"),
        ("inf", "not a finite number"),
        ("1e999", "not a finite number"),
        ("a:b:c", "'a' is not a finite number"),
        ("0.8:0.9", "first:last:step"),
        ("0.8:0.9:0.1:1", "first:last:step"),
        ("0.8:0.9:0", "step 0 must be above 0"),
        ("1.0:0.8:-0.1", "step -0.1 must be above 0"),
        ("0.9:0.8:0.1", "must not be above the last"),
        ("0.8:nan:0.1", "not a finite number"),
        ("0:1:1e-4", "more than 10,000"),
        ("0:1:1e-300", "more than 10,000"),
        ("0.8,0.9,0.80", "0.8 occurs more than once"),
        (",".join(map(str, range(10_001))), "10001 numbers"),
    ],
)
def test_bad_numbers_say_what_is_wrong(text, complaint):
    with pytest.raises(FaultsimError, match="--bit-error-rates") as error:
        parse_numbers(text, "--bit-error-rates")
    assert complaint in str(error.value)


def test_ten_thousand_points_are_allowed():
    assert len(parse_numbers("0:0.9999:1e-4")) == 10_000


def test_parts_change_the_preset():
    assert fault_model() == FaultModel()
    assert fault_model(preset="neuralfuse_2022") == FaultModel.preset("neuralfuse_2022")
    changed = fault_model(kind="flip", preset="neuralfuse_2022")
    assert (changed.kind, changed.memory.placement) == (FaultKind.FLIP, Placement.NEURALFUSE_2022)
    assert fault_model(placement="tiled").memory.placement is Placement.TILED


@pytest.mark.parametrize("words", [("flop", None, None), (None, "tilted", None), (None, None, "paper")])
def test_unknown_words(words):
    with pytest.raises(FaultsimError, match="it can be"):
        fault_model(*words)


def test_without_a_path_the_curve_is_the_papers():
    assert load_curve(None).bit_error_rate(0.83) == 1e-2


def test_cpu_is_always_there():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["gpu", "", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "cuda1"])
def test_unknown_devices(name):
    with pytest.raises(FaultsimError, match="auto, cpu, cuda or cuda:N"):
        choose_device(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_gpu_that_is_not_there(name):
    with pytest.raises(FaultsimError, match="finds no GPU"):
        choose_device(name)


def test_a_gpu_beyond_the_last(monkeypatch):
    import faultsim.kernel.devices

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(
        faultsim.kernel.devices, "native", lambda: type("Native", (), {"built_with_cuda": lambda: True})
    )
    assert choose_device("cuda") == choose_device("auto") == torch.device("cuda:0")
    with pytest.raises(FaultsimError, match=r"1 GPU\(s\)"):
        choose_device("cuda:1")
    monkeypatch.setattr(
        faultsim.kernel.devices, "native", lambda: type("Native", (), {"built_with_cuda": lambda: False})
    )
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(FaultsimError, match="built without CUDA"):
        choose_device("cuda")
