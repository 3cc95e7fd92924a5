"""Is each part of staged training right by itself: success, chips, loss, ensembles, classifiers, patterns?"""

from dataclasses import replace

import pytest
import torch

from faultsim import FaultsimError, StoredWeights, bundled, evaluate, evaluation_chips, models
from faultsim.data import iterate_batches, load
from faultsim.faults import TRAINING
from neuralfuse import generators
from neuralfuse.classifier import Classifier
from neuralfuse.eopm import EOPM, training_chips
from neuralfuse.objective import Objective
from neuralfuse.patterns import ClassPatterns, load_patterns, measure_success, save_patterns
from neuralfuse.stages import EOPM_STAGE, Stage, Staged
from neuralfuse.training import Base, Training

pytestmark = pytest.mark.timeout(900)  # minutes of processor time, on a machine that may be busy
RATE = 0.03
LAST = Training(bit_error_rate=RATE, **{**EOPM_STAGE, "batch_size": 48})


def test_success_is_counted_by_class_and_by_chip(base):
    """Against a count by hand."""
    patterns = torch.randn(10, 3, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    test, chips = load("digits", "test"), evaluation_chips(3, 2)
    found = measure_success(patterns, *base, test, chips, bit_error_rate=RATE, faults=LAST.faults, images=6)
    images = next(iterate_batches(test, 6))[0]
    hits = torch.zeros(10, 2)
    for index in range(10):
        under = torch.clamp(images + patterns[index], -1, 1)
        for chip in range(2):
            data = [(under, torch.full((6,), index))]
            one = evaluate(base.model, data, [chips[chip]], bit_error_rate=RATE, stored=base.stored)
            hits[index, chip] = one.correct[0]
    assert found.chips.images == 60
    assert found.chips.correct == tuple(hits.sum(0).int().tolist())
    assert found.classes == tuple((hits.double().sum(1) / 12).tolist())


def test_training_chips_are_never_evaluation_chips():
    """The stage of the patterns adds to the seed; its chips are training chips too, and others than those of EOPM."""
    patterns = training_chips((1 << 30) + 5, 0, 100)
    eopm = training_chips(5, 0, 100)
    trained = [set(chips.tolist()) for chips in (patterns, eopm)]
    assert not trained[0] & trained[1]
    assert not (trained[0] | trained[1]) & {chip.seed for chip in evaluation_chips(5, 100)}
    assert all(chip + (1 << 64) >= TRAINING for chip in trained[0] | trained[1])  # as signed numbers


def test_the_bounded_loss_is_the_probability_of_a_wrong_answer(base):
    images, labels = next(iterate_batches(load("digits", "test"), 20))
    options = {"bit_error_rate": 0.0, "n_models": 1}
    with EOPM(*base, loss="error_probability", **options) as objective:
        losses, gradient = objective.input_gradient(images, labels, 0)
    leaf = images.clone().requires_grad_()
    wrong = 1 - base.model(leaf).softmax(1).gather(1, labels[:, None])
    wrong.mean().backward()
    torch.testing.assert_close(losses.clean, wrong.mean().detach(), rtol=1e-3, atol=1e-5)
    # the clean model, and lambda = 5 times the perturbed one, which has no errors here
    # the gradients at ReLUs near zero may differ, for the base model's normalization is part of its convolutions here
    assert (gradient - 6 * leaf.grad).norm() < 0.1 * (6 * leaf.grad).norm()
    with pytest.raises(FaultsimError, match="unknown loss 'hinge'"):
        EOPM(*base, loss="hinge", **options)


def test_an_ensemble_is_the_mean_of_its_members(base):
    other = models.create(bundled.MODEL, 10)
    images, labels = next(iterate_batches(load("digits", "test"), 8))
    bases = [base, Base(other.eval(), StoredWeights.of(other))]
    training = Training(bit_error_rate=0.01, n_models=2)
    found = []
    for members in (bases[:1], bases[1:], bases):
        with training.create_objective(members) as objective:
            assert isinstance(objective, Objective)
            found.append((objective.input_gradient(images, labels, 7), objective.passes))
    (first, second, both) = found
    assert (first[1], second[1], both[1]) == (3, 3, 6)
    torch.testing.assert_close(both[0][1], (first[0][1] + second[0][1]) / 2)
    torch.testing.assert_close(both[0][0].perturbed, (first[0][0].perturbed + second[0][0].perturbed) / 2)


@pytest.mark.parametrize("name", generators.KNOWN)
def test_a_classifier_is_the_generators_encoder_with_a_head(name):
    generator = generators.create(name)
    classifier = Classifier(generator, 7)
    assert classifier(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    own = {id(parameter) for parameter in generator.parameters()}
    new = [parameter for parameter in classifier.parameters() if id(parameter) not in own]
    assert sum(parameter.numel() for parameter in new) == 7 * (classifier.encoder.channels + 1)


@pytest.mark.parametrize(("one", "other"), [("ConvL", "DeConvL"), ("ConvS", "DeConvS")])
def test_which_generators_share_an_encoder(one, other):
    for name in generators.KNOWN:
        assert generators.have_same_encoder(one, name) == (name in (one, other))


@pytest.mark.parametrize(
    ("name", "pixels"),
    [("ConvL", 1), ("ConvS", 2), ("DeConvS", 1), ("UNetS", 1), ("ConvXS", 4), ("ConvQ", 4), ("ConvQS", 4)],
)
def test_patterns_are_no_finer_than_a_generator_draws(name, pixels):
    """The last map before an image's three channels decides: ConvS enlarges a map of three channels twofold."""
    assert generators.measure_coarseness(generators.create(name)) == pixels
    patterns = ClassPatterns(3, (3, 32, 32), pixels)
    assert patterns.values.shape == (3, 3, 32 // pixels, 32 // pixels)
    assert patterns.drawn().shape == (3, 3, 32, 32)


def test_patterns_keep_in_a_file(tmp_path):
    patterns = torch.rand(4, 3, 8, 8)
    save_patterns(tmp_path / "p.safetensors", patterns, {"mean": 0.5})
    found, metadata = load_patterns(tmp_path / "p.safetensors")
    assert torch.equal(found, patterns)
    assert metadata == {"mean": 0.5}
    with pytest.raises(FaultsimError, match="holds no class patterns"):
        load_patterns(bundled.WEIGHTS)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Staged(Training(flips=10)), "needs a bit error rate"),
        (lambda: Staged(replace(LAST, seed=1 << 30)), "takes seeds below"),
        (lambda: Stage(0, 10, 0.1), "at least one epoch"),
        (lambda: ClassPatterns(10, (3, 32, 32), 5), "cannot have coarseness 5"),
        (lambda: generators.Encoder(torch.nn.Identity()), "has no known encoder"),
    ],
)
def test_bad_values_are_refused(wrong, words):
    with pytest.raises(FaultsimError, match=words):
        wrong()
