"""Does each stage of staged training do its work, go on where it was stopped, leak no label, and cost what it says?"""

import json
import math
from dataclasses import replace

import pytest
import torch

from faultsim import FaultsimError, StoredWeights, bundled, evaluate, evaluation_chips, load_weights, models
from faultsim.data import find_augmentation, iterate_batches, load
from faultsim.inference.graphs import Graphed
from faultsim.training.loop import Pace
from neuralfuse import generators
from neuralfuse.cost import Cost
from neuralfuse.patterns import measure_success
from neuralfuse.stage_files import find_reusable, save_stages
from neuralfuse.staged import measure_baselines, train_staged
from neuralfuse.stages import EOPM_STAGE, STAGES, Stage, Staged
from neuralfuse.training import Base, Training, train_generator

pytestmark = pytest.mark.timeout(900)  # minutes of processor time, on a machine that may be busy
RATE = 0.03
LAST = Training(bit_error_rate=RATE, **{**EOPM_STAGE, "batch_size": 48})
CHAIN = Staged(
    LAST, classifier=Stage(16, 32, 0.01), patterns=Stage(21, 20, 0.05), drawing=Stage(12, 32, 0.01)
)
SHORT = Staged(
    replace(LAST, batch_size=16, n_models=1, max_epochs=1),
    classifier=Stage(1, 16, 0.01),
    patterns=Stage(1, 16, 0.05),
    pattern_models=2,
    drawing=Stage(1, 16, 0.01),
)


def training_digits():
    return load("digits", "train").subset(torch.arange(400))


@pytest.fixture(scope="module")
def chained(base):
    """(generator, outcome) of the whole chain on the digits."""
    torch.manual_seed(0)
    generator = generators.UNet(4)
    data = training_digits()
    return generator, train_staged(generator, [base], data, CHAIN, augment=find_augmentation("digits"))


def accuracy(base: Base, generator, rate: float = RATE, chips: int = 10) -> float:
    data = list(iterate_batches(load("digits", "test"), 359))
    fuse = generators.NeuralFuse(generator).eval() if generator is not None else None
    unseen = evaluation_chips(0, chips)
    return evaluate(base.model, data, unseen, bit_error_rate=rate, stored=base.stored, transform=fuse).mean


def test_patterns_make_unseen_chips_answer_their_class(base, chained):
    """Blank patterns get each class as often as the images show it, a tenth; those that were found nearly always."""
    point = {"bit_error_rate": RATE, "faults": LAST.faults, "images": 20}
    args = (base.model, base.stored, load("digits", "test"), evaluation_chips(0, 20))
    blank = measure_success(torch.zeros(10, 3, 32, 32), *args, **point)
    found = measure_success(chained[1].patterns, *args, **point)
    assert 0.05 < blank.chips.mean < 0.15
    assert found.chips.mean > 0.8
    assert min(found.classes) > 0.6
    assert chained[1].patterns.abs().max() <= 1


def of_drawn(generator, patterns) -> float:
    """How often the nearest pattern to what is drawn is that of a test image's class."""
    right = 0
    with torch.inference_mode():
        for images, labels in iterate_batches(load("digits", "test"), 100):
            nearest = torch.cdist(generator(images).flatten(1), patterns.flatten(1)).argmin(1)
            right += int((nearest == labels).sum())
    return right / len(load("digits", "test"))


def test_the_drawn_pattern_follows_the_class_of_the_image(chained):
    generator, outcome = chained
    assert of_drawn(generator, outcome.patterns) > 0.85


def test_the_chain_beats_plain_eopm_at_equal_passes(base, chained):
    """By at least 3 points on unseen chips, with as many passes through the base model; and no generator by 4."""
    generator, outcome = chained
    total = sum(outcome.costs.values(), start=Cost())
    data = training_digits()
    epochs = math.ceil(total.base_forward / (len(data) * 3))
    torch.manual_seed(0)
    plain = generators.UNet(4)
    trained = train_generator(
        plain,
        [base],
        data,
        Training(bit_error_rate=RATE, n_models=2, batch_size=64, max_epochs=epochs, window=10**6),
        augment=find_augmentation("digits"),
    )
    assert trained.cost.base_forward >= total.base_forward
    staged = accuracy(base, generator)
    assert staged > accuracy(base, plain) + 0.03
    assert staged > accuracy(base, None) + 0.04


def test_no_label_is_leaked(base):
    """With labels shuffled at random there is nothing to learn: classifier and drawn patterns meet the classes of test
    images by chance, and nothing is won. Images of one class look alike and may all get the same answer, so that chance
    decides by class: four of ten or more are met in 2 of 100 draws."""
    data = training_digits()
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(1))
    data = replace(data, labels=data.labels[order])
    torch.manual_seed(0)
    generator = generators.UNet(4)
    few = replace(CHAIN, patterns=Stage(1, 20, 0.05), drawing=Stage(2, 64, 0.01))
    outcome = train_staged(generator, [base], data, few)
    assert of_drawn(generator, outcome.patterns) < 0.35
    images, labels = next(iterate_batches(load("digits", "test"), 359))
    with torch.inference_mode():
        right = (outcome.classifier(images).argmax(1) == labels).double().mean()
    assert right < 0.35
    assert accuracy(base, generator, chips=3) < accuracy(base, None, chips=3) + 0.02


@pytest.fixture(scope="module")
def short_chain(base):
    """A function that trains by SHORT on 48 digits: (generator, outcome)."""
    data = load("digits", "train").subset(torch.arange(48))

    def run(state, pace=None, report=lambda *_: None):
        torch.manual_seed(2)
        generator = generators.UNet(2)
        augment = find_augmentation("digits")
        options = {"augment": augment, "state": state, "pace": pace, "report": report}
        return generator, train_staged(generator, [base], data, SHORT, **options)

    return run


@pytest.fixture(scope="module")
def uninterrupted(short_chain):
    """What that comes to with one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return short_chain(None)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("stopped", STAGES)
def test_a_chain_that_was_stopped_in_a_stage_ends_in_the_same_bits(
    stopped, short_chain, uninterrupted, tmp_path, threads
):
    threads(1)

    class Killed(Exception):
        pass

    def die(stage, entry):
        if stage == stopped:
            raise Killed

    whole, expected = uninterrupted
    state = tmp_path / "g.state.safetensors"
    with pytest.raises(Killed):
        short_chain(state, report=die)
    resumed, outcome = short_chain(state, Pace(seconds=0))
    assert outcome.curves == expected.curves
    assert torch.equal(outcome.patterns, expected.patterns)
    pairs = zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_state_of_other_options_is_refused(base, tmp_path):
    data = load("digits", "train").subset(torch.arange(32))
    state = tmp_path / "g.state.safetensors"
    train_staged(generators.UNet(2), [base], data, SHORT, state=state)
    with pytest.raises(FaultsimError, match="belongs to a run with other options"):
        train_staged(generators.UNet(2), [base], data, replace(SHORT, smoothing=0.2), state=state)


def test_a_stage_that_is_done_stays_when_a_later_one_is_changed(base, tmp_path):
    """Its curve is read, not trained anew; the last stage then begins with something else."""
    data = load("digits", "train").subset(torch.arange(32))
    state = tmp_path / "g.state.safetensors"
    first = train_staged(generators.UNet(2), [base], data, SHORT, state=state)
    for stage in ("drawing", "eopm"):
        (tmp_path / f"g.state.{stage}.safetensors").unlink()
    told = []
    changed = replace(SHORT, temperature=0.1)
    second = train_staged(
        generators.UNet(2), [base], data, changed, state=state, report=lambda stage, entry: told.append(stage)
    )
    assert told == ["drawing", "eopm"]
    assert torch.equal(second.patterns, first.patterns)
    assert second.curves["drawing"] != first.curves["drawing"]


@pytest.mark.parametrize("surrogates", [1, 2])
def test_the_passes_are_those_that_were_made(surrogates, base, monkeypatch):
    """Counted by the images that go through the base models and the generator, and come back."""
    seen = dict.fromkeys(("base_forward", "base_backward", "generator_forward", "generator_backward"), 0)

    def counting(what):
        def hook(module, inputs, output):
            seen[f"{what}_forward"] += len(inputs[0])
            if output.requires_grad:
                output.register_hook(lambda gradient: seen.__setitem__(key, seen[key] + len(gradient)))

        key = f"{what}_backward"
        return hook

    bases = []
    for _ in range(surrogates):
        model = models.create(bundled.MODEL)
        stored, _ = load_weights(model, bundled.WEIGHTS)
        bases.append(Base(model, stored))
        model.register_forward_hook(counting("base"))
    generator = generators.UNet(2)
    generator.down[0].register_forward_hook(counting("generator"))
    data = load("digits", "train").subset(torch.arange(40))
    outcome = train_staged(generator, bases, data, SHORT)
    total = sum(outcome.costs.values(), start=Cost()).describe()
    assert {name: total[name] for name in seen} == seen
    assert total["seconds"] > 0


def test_stages_are_taken_over_where_they_fit(base, tmp_path):
    """A classifier and patterns; not for other bit errors, nor for a generator with another encoder, or that draws
    coarser. The cost is that of the whole chain."""
    data = load("digits", "train").subset(torch.arange(32))
    about = {
        "generator": "UNetS",
        "dataset_fingerprint": data.fingerprint,
        "base": [],
        "training": SHORT.describe(),
    }
    about = json.loads(json.dumps(about))
    torch.manual_seed(0)
    outcome = train_staged(generators.create("UNetS"), [base], data, SHORT)
    stages = {stage: cost.describe() for stage, cost in outcome.costs.items()}
    found = {"patterns": {}, "classifier": {}, "cost": {"stages": stages}}
    save_stages(tmp_path / "one.safetensors", outcome, about, found)
    out = tmp_path / "two.safetensors"
    known = find_reusable(tmp_path, out, about)
    assert torch.equal(known["patterns"].value, outcome.patterns)
    again = train_staged(generators.create("UNetS"), [base], data, SHORT, **known)
    passes = [sum(cost.base_forward for cost in costs.values()) for costs in (again.costs, outcome.costs)]
    assert passes[0] == passes[1]
    assert torch.equal(again.patterns, outcome.patterns)
    for name, value in outcome.classifier.state_dict().items():
        torch.testing.assert_close(again.classifier.state_dict()[name], value)
    assert not find_reusable(tmp_path, tmp_path / "one.safetensors", about)  # its own
    assert set(find_reusable(tmp_path, out, about | {"generator": "ConvL"})) == {"patterns"}
    assert set(find_reusable(tmp_path, out, about | {"generator": "ConvS"})) == set()
    rate = about["training"] | {"bit_error_rate": 0.005}
    assert set(find_reusable(tmp_path, out, about | {"training": rate})) == {"classifier"}
    assert find_reusable(tmp_path, out, about | {"dataset_fingerprint": "other"}) == {}


def on_gpu() -> Base:
    """The bundled model there."""
    model = models.create(bundled.MODEL)
    load_weights(model, bundled.WEIGHTS)
    model = model.cuda().eval()
    return Base(model, StoredWeights.of(model))


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_stage_is_replayed_as_it_is_written(precision, monkeypatch, caplog):
    """On a GPU the steps of all four stages become CUDA graphs, and come to what they come to as written."""
    staged = replace(SHORT, eopm=replace(SHORT.eopm, n_models=5, precision=precision))
    data = load("digits", "train").subset(torch.arange(16 * 7 + 5))  # the last batch is smaller: as written
    made, found = [], []

    class Watched(Graphed):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    class AsWritten(Graphed):
        def __call__(self, *inputs):
            return self.function(*inputs)

    for kind in (Watched, AsWritten):
        monkeypatch.setattr("faultsim.training.loop.Graphed", kind)
        torch.manual_seed(0)
        found.append(train_staged(generators.UNet(4), [on_gpu()], data, staged))
    assert [call.graph is not None for call in made] == [True] * len(STAGES)
    assert "without a CUDA graph" not in caplog.text
    replayed, written = found
    for stage in STAGES:
        for ours, theirs in zip(replayed.curves[stage], written.curves[stage], strict=True):
            assert ours == pytest.approx(theirs, rel=0.05, abs=0.02)
    # Adam divides by the size of a gradient: where that is next to nothing, rounding decides which way a pixel goes
    apart = (replayed.patterns - written.patterns).abs()
    assert float((apart > 0.05).float().mean()) < 0.1


@pytest.mark.cuda
def test_no_stage_waits_for_the_gpu(monkeypatch):
    """Steps as they are written, after the first ones, in which libraries wait."""
    data = load("digits", "train").subset(torch.arange(16 * 6))

    class Strict(Graphed):
        def __call__(self, *inputs):
            self.count = getattr(self, "count", 0) + 1
            torch.cuda.set_sync_debug_mode("error" if self.count > 2 else "default")
            try:
                return self.function(*inputs)
            finally:
                torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr("faultsim.training.loop.Graphed", Strict)
    staged = replace(SHORT, eopm=replace(SHORT.eopm, n_models=5))
    outcome = train_staged(generators.UNet(4), [on_gpu()], data, staged)
    assert all(outcome.curves[stage] for stage in STAGES)


@pytest.mark.cuda
def test_stages_of_files_are_taken_over_on_a_gpu(tmp_path):
    """What was read to the CPU goes to the base model's device, and is judged there."""
    data, base = load("digits", "train").subset(torch.arange(32)), on_gpu()
    about = {
        "generator": "UNetS",
        "dataset_fingerprint": data.fingerprint,
        "base": [],
        "training": SHORT.describe(),
    }
    about = json.loads(json.dumps(about))
    outcome = train_staged(generators.create("UNetS"), [base], data, SHORT)
    test = load("digits", "test")
    first = measure_baselines(outcome, base, test, SHORT, chips=2, images=2)
    save_stages(tmp_path / "one.safetensors", outcome, about, first)
    known = find_reusable(tmp_path, tmp_path / "two.safetensors", about)
    assert set(known) == {"classifier", "patterns"}
    again = measure_baselines(
        train_staged(generators.create("UNetS"), [base], data, SHORT, **known),
        base, test, SHORT, chips=2, images=2,
    )  # fmt: skip
    assert again["patterns"] == first["patterns"]
    assert again["classifier"]["accuracy"] == pytest.approx(first["classifier"]["accuracy"], abs=0.01)
