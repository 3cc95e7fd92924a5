"""Range restriction: does each layer read what lies within its range, compiled or not, and is the model left alone?"""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from faultsim import (
    ActivationRanges,
    FaultsimError,
    StoredWeights,
    Subject,
    calibrate,
    compare,
    evaluate,
    perturbed,
)
from faultsim.activations.ranges import SiteRange
from faultsim.activations.restriction import RangeRestricted, restrict, restrict_ranges
from faultsim.data import OwnBatches

LINE = SiteRange(-1.0, 2.0, 4)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)).eval()


def test_what_is_outside_is_clamped_or_becomes_0():
    x = torch.tensor([-torch.inf, -1.5, -1.0, 0.5, 2.0, 2.5, torch.inf, torch.nan])
    assert restrict(x, LINE).tolist() == [-1, -1, -1, 0.5, 2, 2, 2, 0]
    assert restrict(x, LINE, "zero").tolist() == [0, 0, -1, 0.5, 2, 0, 0, 0]


@pytest.mark.parametrize("word", ["clamp", "zero"])
def test_each_layer_reads_restricted_inputs(word):
    """Against the same network in NumPy; a third of the numbers lies outside the ranges."""
    model, x = mlp(), torch.randn(64, 16)
    sites = {"0": SiteRange(-1.0, 1.0, 16), "2": SiteRange(0.0, 0.2, 32)}
    with torch.no_grad():
        found = RangeRestricted(model, ActivationRanges("input", sites), word)(x).numpy()

    def within(a, low, high):
        return np.clip(a, low, high) if word == "clamp" else np.where((a >= low) & (a <= high), a, 0)

    first, second = ([p.detach().numpy().astype(np.float64) for p in model[i].parameters()] for i in (0, 2))
    hidden = np.maximum(within(x.numpy(), -1, 1) @ first[0].T + first[1], 0)
    expected = within(hidden, 0, 0.2) @ second[0].T + second[1]
    assert np.abs(found - expected).max() < 1e-5
    with torch.no_grad():
        assert np.abs(model(x).numpy() - expected).max() > 0.1


def test_ranges_of_the_data_change_nothing_without_errors_and_the_model_is_given_back():
    model, x = mlp(), torch.randn(64, 16)
    restricted = restrict_ranges(model, [(x, None)])
    with torch.no_grad():
        before = model(x)
        assert torch.equal(restricted(x), before)
        with perturbed(model, 1, bit_error_rate=0.2):
            wrong, kept = model(x), restricted(x)
        assert not torch.equal(wrong, kept)
        assert torch.equal(model(x), before)
    assert not model[0]._forward_pre_hooks
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_models_read_the_same(backend):
    model, x = mlp(), torch.randn(8, 16)
    ranges = ActivationRanges("input", {"2": SiteRange(0.0, 0.2, 32)})
    inside = ActivationRanges("input", {"_orig_mod.2": SiteRange(0.0, 0.2, 32)})
    compiled = torch.compile(copy.deepcopy(model), backend=backend)
    outside = torch.compile(RangeRestricted(copy.deepcopy(model), ranges), backend=backend)
    with torch.no_grad():
        clean, expected = model(x), RangeRestricted(model, ranges)(x)
        assert not torch.allclose(clean, expected)
        for _ in range(2):
            torch.testing.assert_close(compiled(x), clean)
            torch.testing.assert_close(RangeRestricted(compiled, inside)(x), expected)
            torch.testing.assert_close(outside(x), expected)


def test_it_repairs_what_one_wrong_exponent_bit_does():
    """In bfloat16 a wrong exponent bit makes a weight of 1e38: the case that range restriction was made for."""
    torch.manual_seed(1)
    layers = [nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)]
    model, x = nn.Sequential(*layers), torch.randn(256, 16)
    data = [(x, model.eval()(x).argmax(1))]
    stored, chips = StoredWeights.of(model, format="bfloat16"), range(20)
    plain = evaluate(model, data, chips, bit_error_rate=1e-3, stored=stored)
    restricted = restrict_ranges(model, data)
    kept = evaluate(restricted, data, chips, bit_error_rate=1e-3, stored=stored)
    assert kept.mean > plain.mean + 0.1
    assert kept.wrong_numbers == 0


def test_a_comparison_has_it_as_an_entry():
    model, x = mlp(), torch.randn(64, 16)
    data = OwnBatches([(x, model(x).argmax(1))], "points")
    subject = Subject("mlp", model, StoredWeights.of(model), data)
    labels = ["range-restriction:clamp", "range-restriction:zero"]
    result = compare(subject, labels, 2, voltages=[0.8, 1.0])
    assert {row.variant for row in result} == {"unprotected", *labels}
    safe = {row.evaluation.correct for row in result if row.point.voltage == 1}
    assert len(safe) == 1, "without errors no activation is outside"
    by_hand = RangeRestricted(model, calibrate(model, subject.data), "zero")
    expected = evaluate(by_hand, subject.data, [0, 1], voltage=0.8, stored=subject.stored)
    (found,) = (row for row in result if row.variant == labels[1] and row.point.voltage == 0.8)
    assert found.evaluation.values == expected.values


def test_bad_words_and_ranges_are_one_line():
    with pytest.raises(FaultsimError, match="it can be clamp or zero"):
        RangeRestricted(mlp(), ActivationRanges("input", {"0": LINE}), "drop")
    with pytest.raises(FaultsimError, match="no layer 'features', of which there is a range"):
        RangeRestricted(mlp(), ActivationRanges("input", {"features": LINE}))
