"""Objective with several base models, as surrogates of one that cannot be reached (the full paper, Table 21)."""

import contextlib
from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor

from .distributed import ALONE, Ranks
from .objective import Losses, Objective


class Ensemble(Objective):
    """Mean of several objectives, each with its own base model, all on one device.

    All of them draw the same chips in a step. Their weights lie at different addresses, so the errors differ.
    """

    def __init__(self, members: Sequence[Objective], ranks: Ranks = ALONE) -> None:
        first = members[0]
        self.members, self.ranks = members, ranks
        self.device, self.precision, self.mixed = first.device, first.precision, first.mixed

    @property
    def passes(self) -> int:
        return sum(member.passes for member in self.members)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            for member in self.members:
                undo.enter_context(member)
            self._undo = undo.pop_all()
        return self

    def input_gradient(self, fused: Tensor, labels: Tensor, step: int | Tensor) -> tuple[Losses, Tensor]:
        found = [member.input_gradient(fused, labels, step) for member in self.members]
        count, zero = len(found), torch.zeros([], device=self.device)
        losses = [
            sum(parts, start=zero) / count for parts in zip(*(losses for losses, _ in found), strict=True)
        ]
        return Losses(*losses), sum((gradient for _, gradient in found), start=zero) / count
