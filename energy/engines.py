"""The two engines by name, and where they differ."""

from collections.abc import Callable, Iterable
from dataclasses import fields

from . import closed_form
from .accelerator import PAPER, Accelerator
from .counts import LayerCounts, NetworkCounts
from .errors import EnergyError
from .layers import Layer


def _scalesim(layers: Iterable[Layer], accelerator: Accelerator) -> NetworkCounts:
    from . import scalesim

    return scalesim.count(layers, accelerator)


ENGINES: dict[str, Callable[[Iterable[Layer], Accelerator], NetworkCounts]] = {
    "closed-form": closed_form.count,
    "scalesim": _scalesim,
}
"""Engine by name; both give the same counts."""


def count(
    layers: Iterable[Layer], accelerator: Accelerator = PAPER, engine: str = "closed-form"
) -> NetworkCounts:
    """Count the accesses and cycles of all layers.

    Parameters
    ----------
    layers
        From `trace_layers` or `read_topology`.
    accelerator
        Default: the paper's.
    engine
        A key of `ENGINES`.

    Raises
    ------
    EnergyError
        For an unknown engine.
    """
    if engine not in ENGINES:
        raise EnergyError(f"unknown engine {engine!r}: it can be {', '.join(ENGINES)}")
    return ENGINES[engine](layers, accelerator)


def find_differences(first: NetworkCounts, second: NetworkCounts) -> list[tuple[str, str, int, int]]:
    """List where two counts of the same layers differ.

    Returns
    -------
    list[tuple[str, str, int, int]]
        (layer, quantity, first, second); empty where they are equal.
    """
    if first.layers != second.layers:
        raise EnergyError("counts of different layers can't be compared; count the same layers twice")
    return [
        (layer.name, field.name, getattr(a, field.name), getattr(b, field.name))
        for layer, a, b in zip(first.layers, first.counts, second.counts, strict=True)
        for field in fields(LayerCounts)
        if getattr(a, field.name) != getattr(b, field.name)
    ]
