"""What the tests of metrics share: a network that answers what it is given, and a metric of the user's."""

import torch
from torch import Tensor, nn

from faultsim import Evaluation, evaluate, evaluation_chips

CHIPS = evaluation_chips(3, 2)
INTEGERS = torch.zeros(4, dtype=torch.int64)


class Says(nn.Module):
    """Answers what it is given, through a layer whose weights are exact in int8."""

    def __init__(self, form=lambda answer: answer) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1, bias=False)
        nn.init.ones_(self.layer.weight)
        self.form = form

    def forward(self, x: Tensor) -> object:
        return self.form(self.layer(x[..., None])[..., 0])


def measure(
    answers: Tensor, targets: object, metric: object = "accuracy", size: int = 2, **options
) -> Evaluation:
    """In batches of `size`, without bit errors."""
    batches = [
        (answers[i : i + size], targets if targets is None else targets[i : i + size])
        for i in range(0, len(answers), size)
    ]
    return evaluate(Says(), batches, CHIPS, bit_error_rate=0, metric=metric, **options)


class Hits:
    """As torchmetrics' are: state in the object, one number at the end."""

    higher_is_better = True

    def __init__(self) -> None:
        self.hits = self.seen = 0

    def update(self, preds: Tensor, target: Tensor) -> None:
        self.hits += (preds.argmax(1) == target).sum()
        self.seen += len(target)

    def compute(self) -> Tensor:
        return self.hits / self.seen
