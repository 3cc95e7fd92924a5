"""Is each metric the hand count, is what doesn't fit refused, and are answers that are no numbers never right?"""

import math
import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from faultsim import Evaluation, FaultsimError, FaultsimWarning, evaluate, evaluation_chips, perturb
from faultsim.metrics.collectors import CrossEntropy, Error, MeanIoU, TopK
from faultsim.metrics.metric import METRICS
from tests.torch.metric_cases import CHIPS, INTEGERS, measure

# -- hand counts -----------------------------------------------------------------------------------------------------


def test_accuracy_by_hand():
    logits = torch.tensor([[1.0, 2, 0], [3, 1, 2], [0, 1, 5], [0, 7, 6]])
    assert measure(logits, torch.tensor([1, 0, 1, 1])) == Evaluation((3, 3), 4)
    assert measure(logits, torch.tensor([1, 0, 1, 1], dtype=torch.uint8)).correct == (3, 3)


def test_top_5_by_hand():
    """Class c has the logit c: the five largest are 3 to 7."""
    logits = torch.arange(8.0).expand(8, 8)
    found = measure(logits, torch.arange(8), "top5")
    assert (found.correct, found.mean, found.metric.name) == ((5, 5), 5 / 8, "top-5 accuracy")
    with pytest.raises(FaultsimError, match="more than 5 classes, not 5"):
        measure(torch.zeros(4, 5), torch.zeros(4, dtype=torch.int64), "top5")


def test_mean_iou_by_hand():
    """Two pictures of four pixels: class 0 is right once, of 1 answered and 3 true; class 1 thrice, of 5 and 3; class 2
    once, of 1 and 1; class 3 never occurs, and pixel 255 doesn't count."""
    answered = torch.tensor([[[0, 1], [1, 1]], [[1, 1], [1, 2]]])
    targets = torch.tensor([[[0, 1], [0, 0]], [[1, 255], [1, 2]]])
    answers = functional.one_hot(answered, 4).movedim(-1, 1).float()
    found = measure(answers, targets, "mean_iou", size=1)
    # unions: {0}: 3; {1}: 5 answered without the pixel 255, with 3 true, of which 3 are shared: 5; {2}: 1
    assert found.scores == pytest.approx([(1 / 3 + 3 / 5 + 1) / 3] * 2)
    assert (found.images, found.metric.label) == (2, "mean IoU (%)")


def test_cross_entropy_and_perplexity_by_hand():
    """Probabilities 1/2, 1/4, 1/4 for the first sample and 1/10, 9/10, 0 (nearly) for the second."""
    answers = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.9, 1e-30]]).log()
    found = measure(answers, torch.tensor([1, 1]), "cross_entropy")
    assert found.scores == pytest.approx([(math.log(4) + math.log(1 / 0.9)) / 2] * 2, rel=1e-6)
    assert measure(answers, torch.tensor([1, 1]), "perplexity").mean == pytest.approx(math.sqrt(4 / 0.9))
    assert measure(answers, torch.tensor([0, -100]), "cross_entropy").mean == pytest.approx(math.log(2))


def test_cross_entropy_of_sequences_and_pictures_is_torchs():
    torch.manual_seed(0)
    answers, targets = torch.randn(4, 5, 7), torch.randint(0, 7, (4, 5))
    targets[0, 2] = -100
    wanted = functional.cross_entropy(answers.movedim(-1, 1), targets).item()
    assert measure(answers, targets, "cross_entropy").mean == pytest.approx(wanted, rel=1e-6)
    assert measure(answers.movedim(-1, 1), targets, "cross_entropy").mean == pytest.approx(wanted, rel=1e-6)
    picture = torch.randn(4, 3, 2, 5)
    labels = torch.randint(0, 3, (4, 2, 5))
    wanted = functional.cross_entropy(picture, labels).item()
    assert measure(picture, labels, "cross_entropy").mean == pytest.approx(wanted, rel=1e-6)
    with pytest.raises(FaultsimError, match="read in two ways"):
        measure(torch.randn(4, 5, 5), torch.zeros(4, 5, dtype=torch.int64), "cross_entropy")


def test_regression_errors_by_hand():
    answers, targets = torch.tensor([1.0, -2, 3, 0]), torch.tensor([0.0, -2, 1, 0.5])
    squared = measure(answers, targets, "mse", size=3)
    assert squared.scores == (5.25 / 4,) * 2  # 1 + 0 + 4 + 0.25
    assert measure(answers, targets, "mae").mean == 3.5 / 4
    assert not squared.metric.higher_is_better
    assert Evaluation((), 4, squared.metric, (1.0, 3.0)).worst == 3.0
    assert Evaluation((), 4, squared.metric, (1.0, 3.0)).best == 1.0
    low, _ = Evaluation((), 4, squared.metric, (1.0, 3.0)).interval
    assert low < 0, "only fractions are cut to [0, 1]"
    with pytest.raises(FaultsimError, match="no accuracies: mean squared error was measured"):
        _ = squared.accuracies


def test_errors_are_powers():
    cubes = Error(3)
    cubes.update(torch.tensor([2.0]), torch.tensor([0.0]))
    assert cubes.compute() == 8


@given(st.data())
def test_counts_do_not_depend_on_how_samples_are_divided(data):
    count, classes = data.draw(st.integers(1, 12)), data.draw(st.integers(2, 4))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    answers = torch.randn(count, classes, 3, generator=generator)
    targets = torch.randint(0, classes, (count, 3), generator=generator)
    size = data.draw(st.integers(1, count))
    for make in (MeanIoU, CrossEntropy):
        whole, parts = make(), make()
        if make is CrossEntropy and classes == 3:  # [N, 3, 3] can be read in two ways
            continue
        whole.update(answers, targets)
        for i in range(0, count, size):
            parts.update(answers[i : i + size], targets[i : i + size])
        assert parts.compute() == pytest.approx(whole.compute())
    whole = TopK()
    whole.update(answers[..., 0], targets[:, 0])
    assert whole.compute() == (answers[..., 0].argmax(1) == targets[:, 0]).double().mean().item()


@pytest.mark.parametrize("name", METRICS)
def test_built_in_metrics_never_look_at_the_numbers(name):
    """Tensors without data, of which a number can't be asked: so no update waits for a GPU, and a graph can hold it."""
    shape, kind = {"mean_iou": ([4, 7, 3, 5], int), "mse": ([4, 7], float), "mae": ([4, 7], float)}.get(
        name, ([4, 7], int)
    )
    answers = torch.empty(shape, device="meta")
    targets = torch.empty([4, *shape[2:]] if kind is int else shape, device="meta").to(
        torch.int64 if kind is int else torch.float32
    )
    assert METRICS[name].capturable
    collector = METRICS[name].begin()
    for _ in range(2):
        collector.update(answers, targets)
    with pytest.raises((RuntimeError, NotImplementedError)):
        collector.compute()
    collector.reset()


@pytest.mark.cuda
@pytest.mark.parametrize("name", METRICS)
def test_on_a_gpu_every_built_in_metric_is_replayed(name, monkeypatch):
    torch.manual_seed(0)
    shape, kind = {
        "mean_iou": ((12, 7, 4, 5), "labels"),
        "mse": ((12, 7), "floats"),
        "mae": ((12, 7), "floats"),
    }.get(name, ((12, 7), "labels"))
    model = nn.Conv2d(7, 7, 1) if len(shape) == 4 else nn.Linear(7, 7)
    batches = []
    for _ in range(6):
        x = torch.randn(shape)
        target = torch.randint(0, 7, (shape[0], *shape[2:])) if kind == "labels" else torch.randn(shape)
        batches.append((x.cuda(), target.cuda()))
    model.cuda()
    graphs = []
    real = torch.cuda.CUDAGraph

    def counted(*arguments):
        graphs.append(1)
        return real(*arguments)

    monkeypatch.setattr(torch.cuda, "CUDAGraph", counted)
    chips = evaluation_chips(0, 20)
    replayed = evaluate(model, batches, chips, bit_error_rate=0.02, metric=name)
    assert graphs, "nothing was captured"
    in_groups = evaluate(model, batches, chips, bit_error_rate=0.02, metric=name, report=lambda found: None)
    cpu = [(x.cpu(), y.cpu()) for x, y in batches]
    wanted = evaluate(model.cpu(), cpu, chips, bit_error_rate=0.02, metric=name)
    assert replayed.values == pytest.approx(wanted.values, rel=1e-4)
    assert in_groups.values == pytest.approx(replayed.values, rel=1e-9)


# -- shapes ----------------------------------------------------------------------------------------------------------


def test_labels_of_another_shape_are_refused():
    """TensorFI#13: 40 samples in batches of 8, labels [N, 1], gave an accuracy of 1.15."""
    torch.manual_seed(0)
    model, x, y = (
        nn.Sequential(nn.Flatten(), nn.Linear(12, 5)),
        torch.randn(40, 3, 4),
        torch.randint(0, 5, (40,)),
    )
    warnings.simplefilter("ignore", FaultsimWarning)  # which is chance
    good = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 40, 8)]
    by_hand = sum(
        int(perturb(model, CHIPS[0], bit_error_rate=0)(x[i : i + 1]).argmax()) == y[i].item()
        for i in range(40)
    )
    assert evaluate(model, good, CHIPS, bit_error_rate=0) == Evaluation((by_hand, by_hand), 40)
    assert by_hand / 40 == 0.175
    with pytest.raises(FaultsimError) as error:
        evaluate(
            model, [(x[i : i + 8], y[i : i + 8, None]) for i in range(0, 40, 8)], CHIPS, bit_error_rate=0
        )
    assert str(error.value) == (
        "accuracy needs logits [N, classes] and integer labels [N], not float32 [8, 5] and int64 [8, 1]"
    )


def pixel_accuracy(answers: Tensor, targets: Tensor) -> Tensor:
    return (answers.argmax(1) == targets).float().mean((1, 2))


pixel_accuracy.higher_is_better = True


def test_a_picture_of_labels_needs_another_metric():
    """[N, 5, 2, 2] gave 0.8, elsewhere 16.0; the pixel accuracy is 32/160 by a function of the user's."""
    answers = torch.zeros(40, 5, 2, 2)
    answers[:, 0] = 1  # class 0 everywhere
    targets = torch.ones(40, 2, 2, dtype=torch.int64)
    targets[:32, 0, 0] = 0  # right in 32 of 160 pixels
    with pytest.raises(
        FaultsimError, match=r"accuracy needs logits .* not float32 .*5, 2, 2.*mean_iou or your own"
    ):
        measure(answers, targets, size=8)
    found = measure(answers, targets, pixel_accuracy, size=8)
    assert found.mean == pytest.approx(32 / 160)
    assert (found.metric.name, found.images) == ("pixel_accuracy", 40)


@pytest.mark.parametrize(
    ("answers", "targets", "metric", "complaint"),
    [
        (torch.randn(4, 3), functional.one_hot(INTEGERS, 3), "accuracy", "integer labels"),
        (torch.randn(4, 3), torch.zeros(4), "accuracy", "not float32 .2, 3. and float32 .2."),
        (torch.randn(4, 3), torch.zeros(4, dtype=torch.bool), "accuracy", "and bool .2."),
        (torch.randn(4), INTEGERS, "accuracy", "not float32 .2. and"),
        (
            torch.randn(4, 3),
            torch.tensor([0, 1, 2, 3]),
            "accuracy",
            "1 labels are no class of the model, which .* 3",
        ),
        (torch.randn(4, 3), torch.tensor([0, -1, 2, 1]), "accuracy", "from 0 to 2"),
        (torch.randn(4, 3), None, "accuracy", "the batches hold no labels: give .inputs, labels."),
        (torch.randn(4, 3), ["a", "b", "c", "d"], "accuracy", "labels that are a list of 2"),
        (torch.randn(4, 1), torch.randn(4), "mse", "one shape, not float32 .2, 1. and float32 .2."),
        (torch.randn(4, 3, 2), torch.randint(0, 3, (4,)), "cross_entropy", "cross entropy needs"),
        (torch.randn(4, 3), torch.tensor([0, 1, 2, 3]), "cross_entropy", "1 labels are no class"),
        (torch.randn(4, 3, 2, 2), torch.full((4, 2, 2), 3), "mean_iou", "16 labels are no class"),
        (torch.randn(4, 3), INTEGERS, "mean_iou", "mean IoU needs"),
        (torch.randn(4, 3), INTEGERS, "speed", "unknown metric 'speed': it can be accuracy, top5"),
        (torch.randn(4, 3), INTEGERS, 7, "metric int is no metric"),
        (torch.randn(4, 3), INTEGERS, lambda a, b, c: 0, "must take .answers, targets., or nothing"),
        (torch.randn(4, 3), INTEGERS, dict, "metric dict is no metric"),
    ],
)
def test_what_does_not_fit_is_one_line(answers, targets, metric, complaint):
    with pytest.raises(FaultsimError, match=complaint) as error:
        measure(answers, targets, metric)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


# -- answers that are no numbers -------------------------------------------------------------------------------------


def test_nan_is_never_right():
    """deeplearning4j#6748: NaN for all, labels all 0, gave an accuracy of 1."""
    found = measure(torch.full((6, 3), math.nan), torch.zeros(6, dtype=torch.int64))
    assert (found.mean, found.not_finite, found.wrong_numbers) == (0.0, (6, 6), 12)
    some = torch.tensor(
        [[9.0, 1, 0], [9, math.nan, 0], [9, math.inf, 0], [math.nan, 0, 0], [9, 1, -math.inf]]
    )
    found = measure(some, torch.zeros(5, dtype=torch.int64))
    assert (found.correct, found.not_finite) == ((1, 1), (4, 4))


def test_a_float16_network_that_overflows():
    """1 x 300 x 300 is over 65,504 in float16; 0 stays a number."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    for layer in model:
        nn.init.constant_(layer.weight, 300)
    x = torch.tensor([[1.0, 0], [0, 0], [0, 1], [1e-3, 0]]).half()
    found = evaluate(model.half(), [(x, torch.zeros(4, dtype=torch.int64))], CHIPS, bit_error_rate=0)
    assert (found.correct, found.not_finite) == ((2, 2), (2, 2))


def test_errors_of_answers_that_are_no_numbers_are_infinite():
    answers = torch.tensor([[1.0], [math.nan], [2.0]])
    for metric in ("mse", "mae"):
        found = measure(answers, torch.zeros(3, 1), metric)
        assert (found.scores, found.not_finite) == ((math.inf, math.inf), (1, 1))
        assert math.isnan(found.std)
        assert all(map(math.isnan, found.interval))
    logits = torch.tensor([[0.0, 0], [math.nan, 0]])
    for metric in ("cross_entropy", "perplexity"):
        found = measure(logits, torch.tensor([0, 0]), metric)
        assert (found.scores, found.not_finite) == ((math.inf, math.inf), (1, 1))
    pictures = torch.zeros(1, 2, 1, 4)
    pictures[0, 0] = 1
    pictures[..., 3] = math.nan
    found = measure(pictures, torch.zeros(1, 1, 4, dtype=torch.int64), "mean_iou")
    assert (found.scores, found.not_finite) == ((0.75, 0.75), (1, 1))  # a pixel of no class: 3 of 4
