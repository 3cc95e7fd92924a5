"""Are metrics of the user's, batches and outputs of every form read, and what an evaluation found told?"""

import warnings
from collections import OrderedDict, UserDict

import pytest
import torch
from torch import Tensor, nn

from faultsim import Evaluation, FaultsimError, FaultsimWarning, evaluate, evaluation_chips
from faultsim.metrics.metric import find_metric
from tests.torch.metric_cases import CHIPS, INTEGERS, Hits, Says, measure


class HitsModule(nn.Module, Hits):
    """torchmetrics' are modules, too, with reset()."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.reset()

    def reset(self) -> None:
        self.hits, self.seen = torch.tensor(0), 0


@pytest.mark.parametrize("metric", [Hits, Hits(), HitsModule, HitsModule(), lambda: Hits()])
def test_a_class_or_object_of_the_users_gives_what_the_built_in_does(metric):
    torch.manual_seed(0)
    model, x = nn.Linear(6, 4), torch.randn(50, 6)
    batches = [(x[i : i + 20], model(x[i : i + 20]).argmax(1)) for i in (0, 20, 40)]
    built_in = evaluate(model, batches, evaluation_chips(0, 4), bit_error_rate=0.1)
    assert len(set(built_in.correct)) > 1
    for _ in range(2):  # nothing is left in an object of the user's
        own = evaluate(model, batches, evaluation_chips(0, 4), bit_error_rate=0.1, metric=metric)
        assert own.values == pytest.approx(built_in.values)
    assert own.metric.higher_is_better


def test_a_metric_that_fails_or_says_nothing_of_its_direction():
    class Fails(Hits):
        def update(self, preds: Tensor, target: Tensor) -> None:
            raise RuntimeError("no\nway")

    class NoNumber(Hits):
        def compute(self) -> str:
            return "many"

    class Needs(Hits):
        def __init__(self, classes: int) -> None: ...

    for metric, complaint in (
        (Fails, r"metric Fails fails on answers float32 \[2, 3\] and targets int64 \[2\]: no$"),
        (NoNumber, "metric NoNumber gives no number: could not convert"),
        (Needs, "can't be made without arguments"),
    ):
        with pytest.raises(FaultsimError, match=complaint):
            measure(torch.randn(4, 3), INTEGERS, metric)
    with pytest.warns(FaultsimWarning, match="doesn't say whether higher is better"):
        find_metric(lambda answers, targets: 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_metric(Hits)


def test_what_a_users_metric_gets_when_there_is_no_tensor():
    class Boxes(Hits):
        def update(self, preds: object, target: object) -> None:
            self.hits, self.seen = len(preds[0]["boxes"]), len(target)

        def compute(self) -> float:
            return self.hits / self.seen

    model = Says(lambda answer: [{"boxes": answer}])
    found = evaluate(model, [(torch.randn(3, 2), [{"boxes": 1}])], CHIPS, bit_error_rate=0, metric=Boxes)
    assert found.scores == (3.0, 3.0)


# -- batches and outputs ---------------------------------------------------------------------------------------------


class Output(OrderedDict):
    """As transformers' ModelOutput: entries are attributes, too."""

    def __getattr__(self, name: str) -> object:
        return self[name]


@pytest.mark.parametrize(
    "form",
    [
        lambda answer: (answer, "more"),
        lambda answer: [answer],
        lambda answer: {"logits": answer, "aux": answer * 0},
        lambda answer: {"aux": answer * 0, "out": answer},
        lambda answer: {"class scores": answer},
        lambda answer: Output(loss=torch.tensor(0.0), logits=answer),
        lambda answer: type("Answer", (), {"logits": answer})(),
    ],
)
def test_outputs_that_hold_their_logits(form):
    logits, labels = torch.tensor([[1.0, 0], [0, 1], [1, 0]]), torch.tensor([0, 1, 1])
    found = evaluate(Says(form), [(logits, labels)], CHIPS, bit_error_rate=0)
    assert found == Evaluation((2, 2), 3)


def test_outputs_without_a_tensor_are_refused():
    for form, told in ((lambda a: {"a": a, "b": a}, "a dict of a, b"), (lambda a: None, "a NoneType")):
        with pytest.raises(FaultsimError, match=f"the model answers {told}: a tensor is needed"):
            evaluate(Says(form), [(torch.randn(2, 2), torch.zeros(2).long())], CHIPS, bit_error_rate=0)
    with pytest.raises(FaultsimError, match="floating-point numbers are needed"):
        evaluate(
            Says(lambda a: a.long()), [(torch.randn(2, 2), torch.zeros(2).long())], CHIPS, bit_error_rate=0
        )


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.embed, self.layer = nn.Embedding(9, 8), nn.Linear(8, 3)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.layer((self.embed(input_ids) * attention_mask[..., None]).mean(1))


def test_several_inputs_by_position_and_by_name():
    model, ids, mask = Two(), torch.randint(0, 9, (12, 5)), torch.ones(12, 5)
    mask[:, 3:] = 0
    labels = model(ids, mask).argmax(1)
    labels[0] = (labels[0] + 1) % 3
    forms = [
        (ids, mask, labels),
        [ids, mask, labels],
        ((ids, mask), labels),
        ({"input_ids": ids, "attention_mask": mask}, labels),
        {"input_ids": ids, "attention_mask": mask, "labels": labels},
        UserDict(attention_mask=mask, label=labels, input_ids=ids),  # as transformers' BatchEncoding
    ]
    wanted = evaluate(model, forms[:1], CHIPS, bit_error_rate=0.03)
    assert wanted.images == 12
    assert 0 < min(wanted.correct) <= max(wanted.correct) <= 12
    for form in forms[1:]:
        assert evaluate(model, [form], CHIPS, bit_error_rate=0.03) == wanted
    shared = evaluate(model, forms, CHIPS, bit_error_rate=0.03)  # in one data set, too
    assert shared.correct == tuple(6 * count for count in wanted.correct)
    with pytest.raises(FaultsimError, match="a transform goes in front of a model with one input"):
        evaluate(model, forms[:1], CHIPS, bit_error_rate=0.03, transform=nn.Identity())


def test_a_tensor_alone_has_no_labels():
    class Spread(Hits):
        def update(self, preds: Tensor, target: None) -> None:
            assert target is None
            self.hits, self.seen = preds.numel(), 1

    assert evaluate(Says(), [torch.randn(3, 2)], CHIPS, bit_error_rate=0, metric=Spread).scores == (6.0, 6.0)


@pytest.mark.parametrize(
    ("batch", "complaint"),
    [
        ("text", "a batch is a str: it must be a tensor, a tuple"),
        ((torch.zeros(2, 2),), "a tuple of 1"),
        ({"labels": torch.zeros(2)}, "a dict of labels"),
        ({"x": torch.zeros(2), "label": 1, "labels": 2}, "several labels: labels, label"),
        ((torch.tensor(1.0), None), "no tensor of samples"),
        ((torch.zeros(2, 2, dtype=torch.int64), INTEGERS[:2]), "the model fails on inputs int64 .2, 2.: "),
    ],
)
def test_batches_that_cannot_be_read(batch, complaint):
    with pytest.raises(FaultsimError, match=complaint):
        evaluate(Says(), [batch], CHIPS, bit_error_rate=0)


# -- chance, groups --------------------------------------------------------------------------------------------------


def test_chance_without_errors_is_told():
    torch.manual_seed(0)
    x, labels = torch.randn(400, 8), torch.arange(400) % 10
    model = nn.Linear(8, 10)
    with pytest.warns(
        FaultsimWarning, match=r"without bit errors the accuracy is .* %, which guessing reaches too"
    ):
        evaluate(model, [(x, labels)], CHIPS, bit_error_rate=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate(
            model, [(x, labels)], CHIPS, bit_error_rate=0.5
        )  # with errors, chance is what there is to see
        evaluate(model, [(x, model(x).argmax(1))], CHIPS, bit_error_rate=0)
        evaluate(model, [(x[:20], labels[:20])], CHIPS, bit_error_rate=0)  # too few to tell


def test_always_the_most_frequent_class_is_chance():
    labels = torch.tensor([1] * 60 + [0] * 40)
    with pytest.warns(FaultsimWarning, match="60.00 %"):
        measure(torch.tensor([[0.0, 1]]).expand(100, 2), labels, size=100)


@pytest.mark.parametrize("metric", ["accuracy", "cross_entropy", Hits])
def test_reported_groups_give_the_same_and_come_in_order(metric, monkeypatch):
    """Also to the last bit of a float: a chip's weights lie as aligned in any group."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3))
    x = torch.randn(30, 7)
    data, chips = [(x, model(x).argmax(1))], evaluation_chips(0, 21)
    whole = evaluate(model, data, chips, bit_error_rate=0.05, metric=metric)
    told: list[Evaluation] = []
    found = evaluate(model, data, chips, bit_error_rate=0.05, metric=metric, report=told.append)
    assert found == whole == told[-1]
    assert [part.chips for part in told] == [1, 3, 7, 15, 21]
    assert all(part.values == whole.values[: part.chips] for part in told)
    monkeypatch.setattr("faultsim.evaluation.QUICK_SECONDS", 0.0)
    told.clear()
    evaluate(model, data, chips[:3], bit_error_rate=0.05, metric=metric, report=told.append)
    assert [part.chips for part in told] == [1, 2, 3]
    told.clear()
    assert evaluate(model, iter(data), chips, bit_error_rate=0.05, metric=metric, report=told.append) == whole
    assert [part.chips for part in told] == [21], "an iterator can be read once only"
