"""A module of the user's: models, data and metrics that fit, and some that don't. The fixture `here` copies it."""

import numpy as np
import torch
from torch import nn

from faultsim.data import load


class Grey(nn.Module):
    """Digits of 28x28 grey pixels."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 5, 2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 12 * 12, 10)
        )

    def forward(self, x):
        return self.layers(x)


class Rows(nn.Module):
    """An LSTM that reads the rows of a digit."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.rnn, self.head = nn.LSTM(8, 12, batch_first=True), nn.Linear(12, 10)

    def forward(self, x):
        return self.head(self.rnn(x)[1][0][0])


class Tokens(nn.Module):
    """A language model of 11 tokens, called by name, that answers as transformers' do."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.embed, self.head = nn.Embedding(11, 6), nn.Linear(6, 11)

    def forward(self, input_ids, attention_mask=None):
        return {"logits": self.head(self.embed(input_ids))}


class Pixels(nn.Module):
    """A class for each pixel."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.layer = nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return self.layer(x)


class Line(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.layer = nn.Linear(5, 1)

    def forward(self, x):
        return self.layer(x)[:, 0]


class Hits:
    higher_is_better = True

    def __init__(self):
        self.hits = self.seen = 0

    def update(self, answers, targets):
        self.hits += int((answers.argmax(1) == targets).sum())
        self.seen += len(targets)

    def compute(self):
        return self.hits / self.seen


class Broken(Hits):
    def compute(self):
        raise RuntimeError("no number today")


def large():
    return nn.Sequential(
        nn.Conv2d(3, 4, 8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )


def hundred():
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 100))


def two():
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 2))


def ten():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))


def rows(split="test"):
    digits = load("digits", split)
    x = digits.images[:, 0].float().reshape(-1, 8, 4, 8, 4).mean((2, 4)) / 255
    for i in range(0, len(x), 100):
        yield x[i : i + 100], digits.labels[i : i + 100]


def train_rows():
    return rows("train")


def tokens():
    ids = torch.arange(40).reshape(4, 10) % 11
    return [{"input_ids": ids, "attention_mask": torch.ones(4, 10), "labels": (ids + 1) % 11}]


def pixels():
    torch.manual_seed(0)
    return [(torch.randn(4, 3, 6, 5), torch.randint(0, 4, (4, 6, 5)))]


def numbers():
    torch.manual_seed(0)
    return [(np.ones((6, 5), np.float32), np.zeros(6, np.float32))]


def columns():
    return [(torch.randn(8, 3, 32, 32), torch.zeros(8, 1, dtype=torch.int64))]


def nan():
    return [(torch.full((40, 3, 32, 32), float("nan")), torch.zeros(40, dtype=torch.int64))]


def fails():
    yield torch.zeros(2, 3), torch.zeros(2)
    raise OSError("the disk is\ngone")


def strings():
    return ["a", "b"]


nothing = list
seven = lambda: 7  # noqa: E731
constant = 7
