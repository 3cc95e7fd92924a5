"""Weights that are written for one known chip: is what it reads the nearest that its stuck cells allow?"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from faultsim import (
    FaultKind,
    FaultMap,
    FaultModel,
    FaultsimError,
    MeasuredChip,
    StoredWeights,
    Subject,
    corrupt_stored,
    evaluate,
)
from faultsim.data import OwnBatches
from faultsim.fault_aware import FaultAwareWeights, choose_codes, fit_to_chip
from faultsim.studies.comparison import compare

STUCK = FaultModel(FaultKind.STUCK_AT_RANDOM)


def layer_of(weight: Tensor, format: str = "int8"):
    layer = nn.Linear(*reversed(weight.shape), bias=False)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return StoredWeights.of(layer, format=format).layers[0]


def test_every_code_under_every_mask_of_a_byte_is_the_nearest_that_can_be_read():
    """Exhaustive: 256 wanted numbers for each of the 3**8 ways in which the cells of a byte can be stuck or not."""
    codes = np.arange(-128, 128)
    layer = layer_of(torch.tensor([[-127.0, 127.0]]))  # the scale is 1
    assert float(layer.scale) == 1
    stuck, ones = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    stuck, ones = (masks[(ones & ~stuck) == 0] for masks in (stuck, ones))  # what is stuck at 1 is stuck
    assert len(stuck) == 3**8
    wanted = torch.from_numpy(np.tile(codes, (len(stuck), 1))).float()
    shaped = replace(layer, values=wanted.to(torch.int8))
    chosen = choose_codes(wanted, shaped, as_int8(ones), as_int8(ones | (255 & ~stuck))).numpy()
    read = ((chosen.view(np.uint8) & ~stuck[:, None]) | ones[:, None]).astype(np.uint8).view(np.int8)
    distance = np.abs(read.astype(int) - codes)
    for mask, one, found in zip(stuck, ones, distance, strict=True):
        allowed = codes[(codes & 255 & mask) == one]
        best = np.abs(allowed[:, None] - codes).min(0)
        assert np.array_equal(found, best), f"stuck {mask:08b} at {one:08b}"


def as_int8(patterns: np.ndarray) -> Tensor:
    """Return bit patterns of bytes as int8, each for 256 weights."""
    return torch.from_numpy(np.repeat(patterns[:, None], 256, 1).astype(np.uint8)).view(torch.int8)


def nearest_by_trying(layer, wanted: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the least distance to each wanted number that any code comes to; low and high: reads of 0 and of 1."""
    bits, dtype = layer.format.bits, layer.values.dtype
    best = np.full(wanted.shape, np.inf)
    for pattern in range(1 << bits):
        read = (low & ~pattern) | (high & pattern)
        signed = read if layer.format.offset else (read ^ layer.format.zero) - layer.format.zero
        numbers = layer.format.decode(torch.from_numpy(signed).to(dtype), layer.grid).numpy()
        best = np.minimum(best, np.abs(numbers - wanted))
    return best


@given(
    st.integers(2, 8),
    st.booleans(),
    st.booleans(),
    st.sampled_from([FaultKind.STUCK_AT_RANDOM, FaultKind.STUCK_AT_0, FaultKind.STUCK_AT_1, FaultKind.FLIP]),
    st.sampled_from([0.01, 0.1, 0.5]),
    st.booleans(),
    st.integers(0, 2**32),
)
def test_any_integer_format_and_kind_of_fault_is_read_as_well_as_it_can_be(
    bits, offset, asymmetric, kind, rate, per_channel, seed
):
    torch.manual_seed(seed % 1000)
    name = f"{'u' * offset}int{bits}{'-asymmetric' * asymmetric}"
    net, faults = nn.Linear(23, 5), FaultModel(kind)
    stored = StoredWeights.of(net, per_channel, format=name)
    fitted = fit_to_chip(stored, seed, bit_error_rate=rate, faults=faults)
    layer = stored.layers[0]
    zeros = torch.zeros_like(layer.image)
    patterns = []
    for image in (zeros, ~zeros):
        filled = stored.with_layers([layer.with_image(image)])
        read = corrupt_stored(filled, seed, bit_error_rate=rate, faults=faults).layers[0].values
        patterns.append(read.numpy().astype(np.int64) & ((1 << bits) - 1))
    found = corrupt_stored(fitted, seed, bit_error_rate=rate, faults=faults).layers[0].decode()
    wanted, (low, high) = net.weight.detach().numpy(), patterns
    distance = np.abs(found.numpy() - wanted)
    touched = ((low ^ high) & ((1 << bits) - 1)) != (1 << bits) - 1  # a cell of it is stuck
    assert np.array_equal(distance[touched], nearest_by_trying(layer, wanted, low, high)[touched])
    assert torch.equal(found[~torch.from_numpy(touched)], layer.decode()[~torch.from_numpy(touched)])


def test_a_chip_whose_cells_invert_reads_every_weight_right():
    stored = StoredWeights.of(nn.Linear(100, 30))
    fitted = fit_to_chip(stored, 3, bit_error_rate=0.2)
    assert not torch.equal(fitted.layers[0].values, stored.layers[0].values)
    read = corrupt_stored(fitted, 3, bit_error_rate=0.2)
    assert torch.equal(read.layers[0].values, stored.layers[0].values)


def test_a_measured_chip_by_hand():
    """Weight 0 has its sign stuck at 1 and wants 100: -1 is the nearest; weight 1 has 64 stuck at 0: it reads 63."""
    cells = {"array": [0, 0], "row": [0, 0], "column": [7, 14], "stuck_at": [1, 0], "voltage": [0.9, 0.9]}
    chip = MeasuredChip(FaultMap(**{name: np.array(values) for name, values in cells.items()}, arrays=1))
    layer = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[100.0, 70.0, 127.0]]))
    stored = StoredWeights.of(layer)
    fitted = fit_to_chip(stored, chip, voltage=0.9)
    read = corrupt_stored(fitted, chip, voltage=0.9).layers[0].values
    assert read.tolist() == [[-1, 63, 127]]
    assert torch.equal(fit_to_chip(stored, chip, voltage=0.95).layers[0].values, stored.layers[0].values)
    assert torch.equal(stored.layers[0].values, torch.tensor([[100, 70, 127]], dtype=torch.int8))


def quadrants() -> Subject:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4)).eval()
    inputs = torch.randn(256, 16)
    data = OwnBatches([(inputs, net(inputs).argmax(1))], "points")
    return Subject("quadrants", net, StoredWeights.of(net), data)


def test_each_chip_reads_weights_that_were_written_for_it():
    subject = quadrants()
    aware, chips = FaultAwareWeights(subject.stored), [1, 2, 3]
    found = evaluate(subject.model, subject.data, chips, bit_error_rate=0.3, faults=STUCK, stored=aware)
    for chip, value in zip(chips, found.values, strict=True):
        fitted = fit_to_chip(subject.stored, chip, bit_error_rate=0.3, faults=STUCK)
        alone = evaluate(subject.model, subject.data, [chip], bit_error_rate=0.3, faults=STUCK, stored=fitted)
        assert alone.values == (value,)
    other = evaluate(subject.model, subject.data, [9], bit_error_rate=0.3, faults=STUCK, stored=fitted)
    plain = evaluate(
        subject.model, subject.data, chips, bit_error_rate=0.3, faults=STUCK, stored=subject.stored
    )
    assert found.mean > plain.mean + 0.05
    assert other.mean < found.mean - 0.05, "what was written for chip 3 does not fit chip 9"


def test_a_comparison_has_it_as_an_entry_and_says_what_it_leaves_out():
    result = compare(quadrants(), ["fault-aware"], 3, voltages=[0.8], faults=STUCK)
    plain, aware = result
    assert aware.evaluation.mean > plain.evaluation.mean
    assert aware.energy_per_inference == plain.energy_per_inference
    assert "test of each chip" in aware.uncounted


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FaultAwareWeights(StoredWeights.of(nn.Linear(4, 4), format="bfloat16")), "for integers"),
        (
            lambda: fit_to_chip(
                StoredWeights.of(nn.Linear(4, 4)),
                1,
                bit_error_rate=0.1,
                faults=FaultModel(FaultKind.TRANSIENT),
            ),
            "transient faults are new at every read",
        ),
        (
            lambda: compare(quadrants(), ["fault-aware"], 2, faults=FaultModel(FaultKind.TRANSIENT)),
            "transient faults are new at every read",
        ),
        (lambda: compare(quadrants(), ["fault-aware:all"], 2), "unknown mitigation 'fault-aware:all'"),
        (lambda: FaultAwareWeights(StoredWeights.of(nn.Linear(4, 4))).read(), "plain stored weights"),
    ],
)
def test_what_cannot_be_is_one_line(call, message):
    with pytest.raises(FaultsimError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
