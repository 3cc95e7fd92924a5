"""Training of a generator: it goes on where it stopped, ends when there is no progress, and wins accuracy back."""

import copy
from dataclasses import asdict, replace

import pytest
import torch

from faultsim import FaultModel, FaultsimError, StoredWeights, bundled, evaluation_chips, load_weights, models
from faultsim.data import find_augmentation, iterate_batches, load
from neuralfuse.eopm import EOPM
from neuralfuse.generators import NeuralFuse, UNet
from neuralfuse.protection import evaluate_protected
from neuralfuse.training import Base, Training, has_converged, train_generator

SMALL = Training(bit_error_rate=0.02, n_models=2, batch_size=16, max_epochs=3)
WORST = Training(flips=100, batch_size=16, max_epochs=3)
FALLING = replace(SMALL, schedule="linear", average=0.9)


@pytest.fixture
def base():
    """The shipped model and its stored weights."""
    model = models.create(bundled.MODEL)
    stored, _ = load_weights(model, bundled.WEIGHTS)
    return model, stored


def digits(split: str, count: int):
    return load("digits", split).subset(torch.arange(count))


def small_generator():
    torch.manual_seed(5)
    return UNet(2)


def run(base, training, state=None, **options):
    generator = small_generator()
    augment = find_augmentation("digits")
    trained = train_generator(
        generator, [Base(*base)], digits("train", 40), training, augment=augment, state=state, **options
    )
    return generator, trained.curve


def same(a, b) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("training", [SMALL, WORST, FALLING], ids=["eopm", "adversarial", "linear, average"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(training, base, tmp_path, threads):
    threads(1)
    state = tmp_path / "run.safetensors"
    whole, curve = run(base, training)

    class Killed(Exception):
        pass

    def die(epoch):
        if epoch.epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        run(base, training, state, report=die)
    reported = []
    resumed, again = run(base, training, state, report=reported.append)
    assert again == curve
    assert reported == curve[2:]
    assert same(resumed, whole)
    if training.schedule == "linear":  # another number of epochs is another training
        with pytest.raises(FaultsimError, match="other options"):
            run(base, replace(training, max_epochs=4), state)
        return
    more, longer = run(base, replace(training, max_epochs=4), state)
    assert longer[:3] == curve
    assert not same(more, whole)


def test_the_result_is_the_average_of_the_weights(base, monkeypatch):
    """Of the first ones and those after each of the three steps; statistics of batch normalization too."""
    seen, backward = [], EOPM.backward

    def before_a_step(self, fuse, *rest):
        seen.append(copy.deepcopy(fuse.generator.state_dict()))
        return backward(self, fuse, *rest)

    monkeypatch.setattr(EOPM, "backward", before_a_step)
    last, _ = run(base, replace(SMALL, max_epochs=1))
    states = [*seen, last.state_dict()]
    averaged, _ = run(base, replace(SMALL, average=0.75, max_epochs=1))
    for name, value in averaged.state_dict().items():
        if value.is_floating_point():
            expected = states[0][name]
            for state in states[1:]:
                expected = 0.75 * expected + 0.25 * state[name]
            torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-7)
    assert not same(averaged, last)


def test_the_base_model_is_unchanged_after_training(base):
    model, stored = base
    before = copy.deepcopy(model.state_dict())
    values = [layer.values.clone() for layer in stored.layers]
    run(base, replace(SMALL, max_epochs=1))
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    assert all(torch.equal(layer.values, v) for layer, v in zip(stored.layers, values, strict=True))
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_each_step_of_a_run_draws_its_own_chips(base, monkeypatch):
    steps, backward = [], EOPM.backward
    monkeypatch.setattr(EOPM, "backward", lambda self, *a: (steps.append(int(a[3])), backward(self, *a))[1])
    run(base, replace(SMALL, max_epochs=2))
    assert steps == list(range(6))  # 40 images in batches of 16, twice


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 1},
        {"bit_error_rate": 0.03},
        {"faults": FaultModel.preset("neuralfuse_2022")},
        {"n_models": 3},
        {"weight": 1.0},
        {"betas": (0.9, 0.999)},
        {"bit_error_rate": None, "flips": 100},
    ],
    ids=lambda other: next(iter(other)),
)
def test_a_state_of_another_run_is_refused(base, tmp_path, other):
    state = tmp_path / "run.safetensors"
    run(base, replace(SMALL, max_epochs=1), state)
    with pytest.raises(FaultsimError, match="other options"):
        run(base, replace(SMALL, max_epochs=1, **other), state)
    with pytest.raises(FaultsimError, match="other options"):
        run(base, replace(SMALL, max_epochs=1), state, context={"base": "another"})


def test_training_ends_when_there_is_no_progress(base):
    """3 steps an epoch, so a window of 4 steps is 2 epochs; with a rate this small the loss stands still."""
    standing = replace(SMALL, learning_rate=1e-12, window=4, tolerance=0.9, max_epochs=9)
    assert len(run(base, standing)[1]) == 4
    assert len(run(base, replace(standing, tolerance=-10.0, max_epochs=6))[1]) == 6


def test_the_rule_of_convergence():
    assert not has_converged([1.0] * 9, 5, 0.005)
    assert has_converged([1.0] * 10, 5, 0.005)
    assert has_converged([2.0] * 5 + [2.5, 1.5, 2.2, 1.8, 1.99], 5, 0.005)
    assert not has_converged([2.0] * 5 + [2.5, 1.5, 2.2, 1.8, 1.9], 5, 0.005)
    assert has_converged([9.0, 2.0, 2.0], 1, 0.005)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_epochs": 0},
        {"batch_size": 0},
        {"window": 0},
        {"learning_rate": 0.0},
        {"schedule": "one_cycle"},
        {"average": 1.0},
    ],
)
def test_bad_values_are_refused(wrong):
    with pytest.raises(FaultsimError, match=next(iter(wrong)).split("_")[0]):
        replace(SMALL, **wrong)


def test_a_loss_that_is_no_number_stops_the_run(base):
    with pytest.raises(FaultsimError, match="not finite"):
        run(base, replace(SMALL, learning_rate=1e30))


def test_the_description_holds_everything():
    """That has a meaning for the trainer: the other one's options are left out."""
    described, worst, everything = SMALL.describe(), WORST.describe(), {"trainer", *asdict(SMALL)}
    assert set(described) == everything - {"flips"}
    assert set(worst) == everything - {"bit_error_rate", "voltage", "faults", "n_models", "divided"}
    assert described["faults"]["visible_flips_per_failing_cell"] == 1.0
    assert (described["trainer"], worst["trainer"], worst["flips"]) == ("eopm", "adversarial", 100)


@pytest.mark.parametrize("both", [{}, {"bit_error_rate": 0.01, "flips": 10}])
def test_training_is_one_or_the_other(both):
    with pytest.raises(FaultsimError, match="give either"):
        Training(**both)


def test_training_raises_perturbed_accuracy(base, threads):
    """At 3 % flips the shipped model keeps 60 %; six epochs of a small UNet give it back 15 points or so, on chips
    that it never saw, the same ones without and with it. At least 8 must be there, and hardly any clean accuracy
    lost."""
    threads(1)
    model, stored = base
    torch.manual_seed(0)
    generator = UNet(4)
    training = Training(
        bit_error_rate=0.03, n_models=3, batch_size=128, learning_rate=3e-3, max_epochs=6, seed=0
    )
    train_generator(generator, [Base(model, stored)], load("digits", "train"), training)
    found = evaluate_protected(
        model,
        list(iterate_batches(load("digits", "test"), 512)),
        evaluation_chips(0, 20),
        bit_error_rate=0.03,
        faults=training.faults,
        stored=stored,
        generator=NeuralFuse(generator),
    )
    assert found.clean_fused.mean > 0.95
    assert found.improvement.mean > 0.08
    assert found.improvement.interval[0] > 0
    assert found.improvement.mean == pytest.approx(found.perturbed_fused.mean - found.perturbed.mean)


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_on_a_gpu_is_replayed_to_the_same_result(base, monkeypatch, precision):
    """As a captured CUDA graph with new chips at each replay, and step by step: the same curve, but for rounding."""
    model = base[0].cuda()
    stored = StoredWeights.of(model)
    training = replace(SMALL, max_epochs=4, average=0.9, schedule="linear", precision=precision)
    _, replayed = run((model, stored), training)
    monkeypatch.setattr("faultsim.training.loop.Graphed", lambda function, device: function)
    _, written = run((model, stored), training)
    for ours, theirs in zip(replayed, written, strict=True):
        assert asdict(ours) == pytest.approx(asdict(theirs), rel=0.05)
