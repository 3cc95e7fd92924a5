"""What the tests of weight files share: small networks, and their weights before and after."""

import torch
from torch import nn


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ConvTranspose2d(4, 2, 2), nn.Flatten(), nn.Linear(98, 5)
    )
    model[1].running_mean.normal_()
    model[1].num_batches_tracked += seed + 3
    return model.eval()


class Shared(nn.Module):
    """One matrix in two layers, and one layer under two names."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.read, self.write = nn.Embedding(12, 6), nn.Linear(6, 12)
        self.write.weight = self.read.weight
        self.inner = nn.Linear(6, 6)
        self.again = self.inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.write(self.again(self.inner(self.read(x)).relu()))


class TwoNames(nn.Module):
    """A layer under two names, and two layers that share weight and bias."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.enc, self.one, self.two = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5)
        self.again, self.norm = self.enc, nn.BatchNorm1d(5)
        self.two.weight, self.two.bias = self.one.weight, self.one.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(self.norm(self.again(self.enc(x)))))


def bits(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    state = model.state_dict()
    return list(state) == list(before) and all(torch.equal(state[name], before[name]) for name in before)
