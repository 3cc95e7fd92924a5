"""`faultsim memory`: which weights of a model lie where in the faulty memory, and what doesn't lie there."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    CapacityOption,
    JsonOption,
    ModelOption,
    PlacementOption,
    PresetOption,
    SelectOption,
    WeightsOption,
    fault_model,
)

if TYPE_CHECKING:
    from ..faults import FaultModel
    from ..memory import Summary


def memory(
    model: ModelOption = None,
    weights: WeightsOption = None,
    select: SelectOption = None,
    placement: PlacementOption = None,
    preset: PresetOption = None,
    capacity: CapacityOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also list each bias and parameter of normalization by name.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show which weights lie where in the faulty memory.

    It also lists what does not lie there, and why. The model may be untrained, or a generator: shapes are enough.
    """
    faults = fault_model(None, placement, preset, None, None, capacity)
    name, found = _summary(model, weights, select, faults)
    if as_json:
        print(json.dumps({"model": name, **found.as_dict()}, indent=2))
        return
    print(name)
    print(found.text(everything))


def _summary(
    model: str | None, weights: Path | None, select: list[str] | None, faults: "FaultModel"
) -> tuple[str, "Summary"]:
    import torch

    from neuralfuse.network_energy import create_shapes

    from ..inventory import take_inventory
    from ..memory import summarize
    from ..subject import find_model, load_model

    if model is None or weights is not None:
        model, weights, trained = find_model(model, weights)
        classes = trained.get("num_classes", 10)
        _, stored, _ = load_model(model, weights, classes, torch.device("cpu"), select=select)
        return model, stored.summary(faults)
    inventory = take_inventory(create_shapes(model), select)
    return model, summarize([(w.tensors, w.shape) for w in inventory.weights], inventory.left_out, faults)
