"""Range restriction: activations outside the range that they have without errors are brought back into it.

Chen et al., "A Low-cost Fault Corrector for Deep Neural Networks through Range Restriction" (Ranger, arXiv:2003.13874):
bounds are found on data without errors, and each activation is clamped to them. Hoang et al., "FT-ClipAct"
(arXiv:1912.00941): what is outside becomes 0.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FaultsimError
from .ranges import (
    ActivationRanges,
    SelectLayers,
    SiteRange,
    Visit,
    calibrate,
    hook_layer,
    layer_of,
)


class OutOfRange(StrEnum):
    """What becomes of an activation outside its range. One that is no number becomes 0."""

    CLAMP = "clamp"
    """The nearest number within the range."""
    ZERO = "zero"
    """0."""


class RangeRestricted(nn.Module):
    """A model whose activations are kept within ranges.

    It holds the model itself, whose weights, hooks and compiled code stay as they are.

    Parameters
    ----------
    model
        Any module.
    ranges
        Which activations, and their ranges, from `calibrate`. The inputs of the layers that hold weights are what
        activation functions and pooling return.
    out_of_range
        "clamp" or "zero".

    Raises
    ------
    FaultsimError
        For ranges of layers that the model does not have, and another word.

    Examples
    --------
    >>> from faultsim import calibrate, evaluate
    >>> from faultsim.activations.restriction import RangeRestricted
    >>> restricted = RangeRestricted(model, calibrate(model, data))  # doctest: +SKIP
    >>> evaluate(restricted, data, chips, voltage=0.83)  # doctest: +SKIP
    """

    def __init__(
        self, model: nn.Module, ranges: ActivationRanges, out_of_range: OutOfRange | str = OutOfRange.CLAMP
    ) -> None:
        super().__init__()
        try:
            self.out_of_range = OutOfRange(out_of_range)
        except ValueError:
            known = " or ".join(OutOfRange)
            raise FaultsimError(f"out of range {str(out_of_range)!r}: it can be {known}") from None
        self.model, self.ranges = model, ranges
        layers = dict(model.named_modules())
        for site in ranges.sites:
            if layer_of(site) not in layers:
                raise FaultsimError(f"the model has no layer {layer_of(site)!r}, of which there is a range")
        self.train(model.training)

    @torch.compiler.disable(recursive=False)
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the model with its activations kept within their ranges."""
        layers = dict(self.model.named_modules())
        with ExitStack() as undo:
            for name in dict.fromkeys(map(layer_of, self.ranges.sites)):
                hook_layer(layers[name], self.ranges.at, self._restrict(name), undo)
            return self.model(*args, **kwargs)

    def _restrict(self, layer: str) -> Visit:
        def visit(place: str, x: Tensor) -> Tensor:
            site = self.ranges.sites.get(layer + place)
            return x if site is None else restrict(x, site, self.out_of_range)

        return visit


def restrict(x: Tensor, site: SiteRange, out_of_range: OutOfRange | str = OutOfRange.CLAMP) -> Tensor:
    """Return activations with those outside a range brought back into it.

    Parameters
    ----------
    x
        Floating point, any shape.
    site
        The range.
    out_of_range
        "clamp": the nearest number within the range; "zero": 0. NaN becomes 0 either way.
    """
    if out_of_range == OutOfRange.CLAMP:
        return x.clamp(site.low, site.high).nan_to_num(nan=0.0)
    return torch.where((x >= site.low) & (x <= site.high), x, torch.zeros_like(x))


def restrict_ranges(
    model: nn.Module,
    data: Iterable[Any],
    *,
    out_of_range: OutOfRange | str = OutOfRange.CLAMP,
    select: SelectLayers = None,
    percentile: float | None = None,
) -> RangeRestricted:
    """Keep the activations of a model within the ranges that they have on data, without errors.

    Parameters
    ----------
    model, data, select, percentile
        As for `faultsim.calibrate`. Default: the inputs of the layers that hold weights, smallest to largest number.
    out_of_range
        "clamp" or "zero".

    Returns
    -------
    RangeRestricted
        It holds the model itself.

    Raises
    ------
    FaultsimError
        For the reasons that `calibrate` has, and another word.
    """
    ranges = calibrate(model, data, select=select, percentile=percentile)
    return RangeRestricted(model, ranges, out_of_range)
