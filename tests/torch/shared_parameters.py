"""A model whose parameters live anywhere, some of them in two places, and a chip for it."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from faultsim import Chip

CHIP = Chip(3)


class Everything(nn.Module):
    """Free parameters, and some that live in two places."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(50, 16)
        self.dec_weight = self.emb.weight
        self.rows = nn.ParameterList([torch.randn(16, 16), torch.randn(16, 16)])
        self.named = nn.ParameterDict({"a": torch.randn(16, 16)})
        self.kept = [self.rows[1]]
        self.gain = nn.Parameter(torch.randn(16))
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.norm = nn.LayerNorm([2, 16])
        self.register_buffer("positions", torch.randn(50, 16))

    def forward(self, i: Tensor) -> Tensor:
        x = self.emb(i).mean(1) @ self.rows[0] @ self.kept[0] @ self.named["a"]
        return functional.linear(x * self.gain + self.token[0], self.dec_weight)
