"""Weight clipping: training keeps the stored weights of a model within bounds.

Stutz et al., "Bit Error Robustness for Energy-Efficient DNN Accelerators", MLSys 2021: the range of a quantized tensor
is its largest weight, and a wrong bit changes a weight by a share of the range. Small bounds make wrong bits harmless,
and training finds other weights to be as sure of its answers, many of them at the bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import FaultsimError
from ..network.inventory import Select, take_inventory


@dataclass(frozen=True)
class Clipping:
    """How large a stored weight may be. Give one of both bounds.

    Raises
    ------
    FaultsimError
        For none or both, and for bounds that are no positive numbers.
    """

    largest: float | None = None
    """Of all tensors alike, as in the source (w_max)."""
    deviations: float | None = None
    """Of each tensor by itself: so many standard deviations of the weights that it has before the training. A layer
    that is normalized computes the same with weights of any scale, so one bound for all fits few of them."""

    def __post_init__(self) -> None:
        given = [value for value in (self.largest, self.deviations) if value is not None]
        if len(given) != 1:
            raise FaultsimError("weights are clipped at one bound: give either its size or its deviations")
        if not 0 < given[0] < math.inf:
            raise FaultsimError(f"weights cannot be clipped at {given[0]}: the bound must be above 0")

    def describe(self) -> dict[str, float]:
        """Return the bound as JSON values."""
        return {name: value for name, value in vars(self).items() if value is not None}

    def find_bounds(self, model: nn.Module, select: Select = None) -> list[tuple[Tensor, float]]:
        """Return the parameters of a model that lie in the memory, and the bound of each.

        Parameters
        ----------
        model
            Any module. Biases and normalization are not clipped.
        select
            Which tensors lie in the memory, as for `StoredWeights.of`.
        """
        found: dict[int, tuple[Tensor, float]] = {}
        for weight in take_inventory(model, select).weights:
            for source in weight.held.sources:
                bound = self.largest
                if bound is None:
                    bound = float(self.deviations or 0.0) * float(source.detach().float().std(correction=0))
                found[id(source)] = (source, bound)
        return list(found.values())


def clip_weights(bounds: list[tuple[Tensor, float]]) -> None:
    """Bring parameters within their bounds, in place."""
    with torch.no_grad():
        for parameter, bound in bounds:
            parameter.clamp_(-bound, bound)
