"""How much of a sweep is spent in the model itself, and how much around it."""

import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..faults import FaultModel, evaluation_chips
from ..stored import StoredWeights
from ..studies.voltage_sweep import plan_points, sweep
from ..voltage import VoltageCurve


def measure_model_share(
    model: nn.Module,
    data: Sequence[tuple[Tensor, Tensor]],
    stored: StoredWeights,
    *,
    faults: FaultModel,
    voltages: Sequence[float] = (1.0, 0.9, 0.83),
    chips: int = 10,
) -> dict[str, float]:
    """Measure which share of a sweep's time the model's forward pass takes.

    What is left is drawing faults, exchanging weights, preparing and counting. On a GPU both include waiting for the
    device.

    Parameters
    ----------
    model : nn.Module
        The model that is swept, alone.
    data : sequence of (inputs, labels)
        Batches on the device of the model.
    stored : StoredWeights
        Its weights in memory.
    faults : FaultModel
        What a failing cell does.
    voltages : sequence of float
        Relative to Vmin, on the default curve.
    chips : int
        Chips at each voltage.

    Returns
    -------
    dict
        "seconds" of the sweep, "model_seconds" of the forward passes, and their ratio "share".
    """
    device = next(model.parameters()).device
    curve = VoltageCurve.default()
    plan = plan_points(curve, voltages)
    inside = 0.0
    started = 0.0

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def before(*_: object) -> None:
        nonlocal started
        finish()
        started = time.perf_counter()

    def after(*_: object) -> None:
        nonlocal inside
        finish()
        inside += time.perf_counter() - started

    hooks = [model.register_forward_pre_hook(before), model.register_forward_hook(after)]
    try:
        sample = evaluation_chips(0, chips)
        sweep(model, data[:1], sample[:1], plan[:1], faults=faults, stored=stored, accesses=None)  # warm-up
        inside = 0.0
        begin = time.perf_counter()
        sweep(model, data, sample, plan, faults=faults, stored=stored, accesses=None)
        finish()
        total = time.perf_counter() - begin
    finally:
        for hook in hooks:
            hook.remove()
    return {"seconds": total, "model_seconds": inside, "share": inside / total}
