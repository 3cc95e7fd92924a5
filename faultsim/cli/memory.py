"""`faultsim memory`: which weights of a model lie where in the faulty memory, and what doesn't lie there."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .option_groups import FormatOptions, expand_options
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
    from ..formats import Format
    from ..memory import Summary


@expand_options
def memory(
    *,
    model: ModelOption = None,
    weights: WeightsOption = None,
    select: SelectOption = None,
    stored: FormatOptions,
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
    name, found = _summary(model, weights, select, faults, stored.chosen())
    if as_json:
        print(json.dumps({"model": name, **found.as_dict()}, indent=2))
        return
    print(name)
    print(found.text(everything))


def _summary(
    model: str | None,
    weights: Path | None,
    select: list[str] | None,
    faults: "FaultModel",
    held: "Format | None",
) -> tuple[str, "Summary"]:
    import torch

    from neuralfuse.network_energy import create_shapes

    from ..formats import INT8
    from ..memory import summarize
    from ..network.inventory import take_inventory
    from ..studies.subject import find_model, load_model

    if model is None or weights is not None:
        model, weights, trained = find_model(model, weights)
        classes = trained.get("num_classes", 10)
        _, stored, _ = load_model(model, weights, classes, torch.device("cpu"), select=select, format=held)
        return model, stored.summary(faults)
    inventory = take_inventory(create_shapes(model), select)
    tensors = [(weight.tensors, weight.shape) for weight in inventory.weights]
    return model, summarize(tensors, inventory.left_out, faults, held or INT8)
