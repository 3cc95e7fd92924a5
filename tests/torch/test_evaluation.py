"""Accuracy over chips: hand counts, statistics, one pass over the data."""

import gc
import math
import statistics
import weakref
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from faultsim import (
    Chip,
    Evaluation,
    FaultKind,
    FaultModel,
    FaultsimError,
    MeasuredChip,
    StoredWeights,
    VoltageCurve,
    evaluate,
    evaluation_chips,
    find_failing_cells,
    perturb,
    prepare_qat,
)
from faultsim import evaluation as module

CHIPS = evaluation_chips(3, 5)


class Counted:
    """Batches that count how often they are read."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        self.batches = batches
        self.passes = self.read = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        for batch in self.batches:
            self.read += 1
            yield batch


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 30), nn.BatchNorm1d(30), nn.Dropout(0.5), nn.ReLU(), nn.Linear(30, 7))


@pytest.fixture
def data(model: nn.Module) -> Counted:
    """Three batches, the last of them smaller; labels are mostly what the clean model says."""
    torch.manual_seed(1)
    batches = []
    model.eval()
    for size in (40, 40, 13):
        x = torch.randn(size, 20)
        labels = model(x).argmax(1)
        labels[::5] = (labels[::5] + 1) % 7
        batches.append((x, labels.detach()))
    model.train()
    return Counted(batches)


def counts(model: nn.Module, data: Counted, chips: list[Chip], **where) -> tuple[int, ...]:
    """The slow way: one faulty copy a chip."""
    copies = [perturb(model, chip, **where).eval() for chip in chips]
    return tuple(
        sum(int((copied(x).argmax(1) == labels).sum()) for x, labels in data.batches) for copied in copies
    )


# -- what comes out of correct answers -------------------------------------------------------------------------------


def test_hand_computed_statistics():
    e = Evaluation((8, 6, 10, 8), 10)
    assert e.accuracies == (0.8, 0.6, 1.0, 0.8)
    assert e.mean == 0.8
    assert e.std == pytest.approx(math.sqrt(0.02))  # deviations 0, 0.2, 0.2, 0: squares 0.08 / 4
    assert e.sample_std == pytest.approx(math.sqrt(0.08 / 3))
    half = (
        3.182446305284263 * math.sqrt(0.08 / 3) / 2
    )  # 97.5 % quantile of Student's t with 3 degrees of freedom
    assert e.interval == pytest.approx((0.8 - half, 1.0))  # cut at 1
    assert (e.worst, e.best) == (0.6, 1.0)


@given(
    st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.lists(st.integers(0, n), min_size=2), st.just(n)))
)
def test_statistics_are_those_of_the_libraries(case):
    correct, images = case
    e = Evaluation(tuple(correct), images)
    accuracies = [c / images for c in correct]
    assert e.mean == pytest.approx(statistics.fmean(accuracies))
    assert e.std == pytest.approx(statistics.pstdev(accuracies), abs=1e-9)
    assert e.sample_std == pytest.approx(statistics.stdev(accuracies), abs=1e-9)
    low, high = e.interval
    if len(set(correct)) > 1:
        wanted = stats.t.interval(0.95, len(correct) - 1, loc=e.mean, scale=stats.sem(accuracies))
        assert (low, high) == pytest.approx((max(0, wanted[0]), min(1, wanted[1])), abs=1e-9)
    assert 0 <= low <= e.mean + 1e-12
    assert e.mean - 1e-12 <= high <= 1
    assert e.worst <= e.mean + 1e-12
    assert e.mean - 1e-12 <= e.best


def test_one_chip_has_no_spread():
    e = Evaluation((7,), 10)
    assert (e.mean, e.std, e.worst, e.best) == (0.7, 0, 0.7, 0.7)
    assert math.isnan(e.sample_std)
    assert all(math.isnan(end) for end in e.interval)


# -- evaluate --------------------------------------------------------------------------------------------------------


def test_hand_computed():
    """When every cell fails, weights are known without drawing: all equal (the biases decide), or all inverted."""
    layer = nn.Linear(1, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.27], [-1.27], [0.64]]))
        layer.bias.copy_(torch.tensor([0.1, 0.2, 0.3]))
    x = torch.tensor([[5.0], [-5.0], [0.0], [1.0]])
    labels = torch.tensor([0, 1, 2, 2])
    clean = evaluate(layer, [(x, labels)], CHIPS, voltage=1.0)
    assert clean == Evaluation((3,) * 5, 4)  # logits at 1: 1.37, -1.07, 0.94
    for kind in (FaultKind.STUCK_AT_0, FaultKind.STUCK_AT_1):  # equal weights in all rows: the biases decide
        stuck = evaluate(layer, [(x, labels)], CHIPS, bit_error_rate=1, faults=FaultModel(kind))
        assert stuck == Evaluation((2,) * 5, 4)
    flipped = evaluate(layer, [(x, labels)], CHIPS, bit_error_rate=1)  # ~127 = -128, ~-127 = 126, ~64 = -65
    assert flipped == Evaluation((1,) * 5, 4)  # 1, 0, 2, 1


@pytest.mark.parametrize("kind", [FaultKind.FLIP, FaultKind.STUCK_AT_RANDOM])
@pytest.mark.parametrize("qat", [False, True])
def test_as_one_copy_a_chip(model, data, kind, qat):
    if qat:
        prepare_qat(model)
    where = {"bit_error_rate": 0.02, "faults": FaultModel(kind)}
    found = evaluate(model, data, CHIPS, **where)
    assert found.images == 93
    assert found.correct == counts(model, data, CHIPS, **where)
    assert len(set(found.correct)) > 1
    assert (data.passes, data.read) == (1, 3)


def test_voltage_means_the_curves_rate(model, data):
    curve = VoltageCurve("steep", (2.0, 1.0), (0.0, 0.05), (4.0, 1.0))
    by_voltage = evaluate(model, data, CHIPS, voltage=1.0, curve=curve)
    assert by_voltage == evaluate(model, data, CHIPS, bit_error_rate=0.05)
    default = evaluate(model, data, CHIPS, voltage=0.83)
    assert default == evaluate(model, data, CHIPS, bit_error_rate=0.01)


def test_stored_weights_are_taken_as_they_are(model, data):
    by_channel = StoredWeights.of(model, per_channel=True)
    where = {"bit_error_rate": 0.02}
    found = evaluate(model, data, CHIPS, **where, stored=by_channel)
    assert found.correct == counts(model, data, CHIPS, **where, per_channel=True)
    assert found != evaluate(model, data, CHIPS, **where)


@pytest.mark.parametrize("kind", FaultKind)
@pytest.mark.parametrize("together", [1, 2, 4])
def test_several_passes_give_what_one_gives(model, data, monkeypatch, kind, together):
    where = {"bit_error_rate": 0.02, "faults": FaultModel(kind)}
    at_once = evaluate(model, data, CHIPS, **where)
    assert data.passes == 1
    monkeypatch.setattr(module, "WEIGHT_BYTES_AT_ONCE", together * StoredWeights.of(model).float_bytes)
    data.passes = 0
    assert evaluate(model, data, CHIPS, **where) == at_once
    assert data.passes == -(-5 // together)
    with pytest.raises(FaultsimError, match="several passes: give data that can be iterated again"):
        evaluate(model, iter(data), CHIPS, **where)
    assert evaluate(model, iter(data), CHIPS[:together], **where).correct == at_once.correct[:together]


def test_an_iterator_is_enough_for_one_pass(model, data):
    wanted = evaluate(model, data, CHIPS, bit_error_rate=0.02)
    assert evaluate(model, iter(data), CHIPS, bit_error_rate=0.02) == wanted
    assert evaluate(model, (batch for batch in data.batches), CHIPS, bit_error_rate=0.02) == wanted


def test_transform_runs_clean_once_a_batch(model, data):
    class Shift(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(20, 20)
            self.calls = 0

        def forward(self, x: Tensor) -> Tensor:
            assert not self.training
            self.calls += 1
            return x + self.layer(x)

    shift = Shift()
    found = evaluate(model, data, CHIPS, bit_error_rate=0.02, transform=shift)
    assert shift.calls == 3
    assert shift.training
    moved = Counted([(x + shift.layer(x), labels) for x, labels in data.batches])
    assert found == evaluate(model, moved, CHIPS, bit_error_rate=0.02)


@pytest.mark.parametrize("fails", [False, True])
def test_every_modules_mode_is_back(model, data, fails):
    model.train()
    model[1].eval()  # a frozen normalization in a model that is being trained
    before = {name: value.clone() for name, value in model.state_dict().items()}
    owned = [id(p) for p in model.parameters()]
    if fails:
        with pytest.raises(FaultsimError, match=r"the model fails on inputs float32 \[2, 21\]: mat1"):
            evaluate(model, [(torch.randn(2, 21), torch.zeros(2))], CHIPS, bit_error_rate=0.02)
    else:
        evaluate(model, data, CHIPS, bit_error_rate=0.02)
    assert [m.training for m in model.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [id(p) for p in model.parameters()] == owned


def test_measured_chips(model, data):
    maps = [MeasuredChip(find_failing_cells(chip, 1, 0.01), str(i)) for i, chip in enumerate(CHIPS)]
    found = evaluate(model, data, maps, voltage=0.83)
    assert found == evaluate(model, data, CHIPS, voltage=0.83)
    assert len(set(found.correct)) > 1
    with pytest.raises(FaultsimError, match="a measured chip needs a voltage"):
        evaluate(model, data, maps, bit_error_rate=0.01)
    with pytest.raises(FaultsimError, match="cannot be mixed"):
        evaluate(model, data, [maps[0], CHIPS[0]], voltage=0.83)


def test_transient_faults_differ_from_batch_to_batch(model):
    x = torch.randn(64, 20)
    labels = model.eval()(x).argmax(1)
    faults = FaultModel(FaultKind.TRANSIENT)
    one = evaluate(model, [(x, labels)], CHIPS, bit_error_rate=0.1, faults=faults)
    three = evaluate(model, [(x, labels)] * 3, CHIPS, bit_error_rate=0.1, faults=faults)
    assert three.correct != tuple(3 * c for c in one.correct)
    lasting = evaluate(model, [(x, labels)] * 3, CHIPS, bit_error_rate=0.1)
    first = evaluate(model, [(x, labels)], CHIPS, bit_error_rate=0.1)
    assert lasting.correct == tuple(3 * c for c in first.correct)


# -- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chips", "batches", "where", "complaint"),
    [
        ([], [(torch.randn(2, 20), torch.zeros(2))], {"voltage": 0.9}, "no chips"),
        (CHIPS, [], {"voltage": 0.9}, "no images"),
        (CHIPS, [(torch.empty(0, 20), torch.empty(0, dtype=torch.int64))], {"voltage": 0.9}, "no images"),
        (CHIPS, [], {}, "either a voltage or a bit error rate"),
        (CHIPS, [], {"voltage": 0.9, "bit_error_rate": 0.1}, "either a voltage or a bit error rate"),
        (CHIPS, [], {"voltage": 9}, "outside the curve"),
        (CHIPS, [], {"bit_error_rate": 2}, "outside \\[0, 1\\]"),
    ],
)
def test_bad_input(model, chips, batches, where, complaint):
    with pytest.raises(FaultsimError, match=complaint):
        evaluate(model, batches, chips, **where)


def test_models_without_weights():
    with pytest.raises(FaultsimError, match="no weights to store"):
        evaluate(nn.Flatten(), [(torch.zeros(1, 3), torch.zeros(1))], CHIPS, voltage=0.9)


@pytest.mark.cuda
@pytest.mark.parametrize("kind", FaultKind)
def test_on_a_gpu_all_chips_are_replayed_at_once(model, data, monkeypatch, kind):
    """Six batches of one size, of which the last ones are replayed, and one of another size."""
    batches = [(inputs.cuda(), labels.cuda()) for inputs, labels in [*data.batches[:2] * 3, data.batches[2]]]
    where = {"bit_error_rate": 0.02, "faults": FaultModel(kind)}
    model.cuda()
    replayed = evaluate(model, batches, CHIPS, **where)
    monkeypatch.setattr(module, "Graphed", lambda function, device: function)
    assert evaluate(model, batches, CHIPS, **where) == replayed
    assert replayed.images == 6 * 40 + 13


def test_nothing_of_an_evaluation_is_kept(monkeypatch):
    """The weights of many chips take gigabytes: they go when it ends, not when Python next looks for cycles."""
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    stored = StoredWeights.of(model)
    kept = weakref.ref(stored)
    gc.disable()
    try:
        evaluate(
            model,
            [(torch.zeros(2, 12), torch.zeros(2, dtype=torch.int64))],
            [Chip(1)],
            bit_error_rate=0.01,
            stored=stored,
        )
        del stored
        assert kept() is None
    finally:
        gc.enable()
