"""An evaluation on many chips beside as many passes of the plain model over the same images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..evaluation import evaluate
from ..faults import FaultModel, evaluation_chips
from ..inference.graphs import AS_WRITTEN, Graphed
from ..stored import StoredWeights
from .timing import time_rivals


def time_evaluation(
    model: nn.Module,
    stored: StoredWeights,
    data: Sequence[tuple[Tensor, Tensor]],
    *,
    bit_error_rate: float = 0.01,
    faults: FaultModel | None = None,
    chips: int = 10,
    rounds: int = 3,
) -> dict:
    """Time evaluations in turn with as many passes of the plain model.

    Parameters
    ----------
    model : nn.Module
        It is put into evaluation mode.
    stored : StoredWeights
        Its weights in memory.
    data : sequence of (inputs, labels)
        Batches on the device of the model.
    bit_error_rate : float
        Fraction of failing cells.
    faults : FaultModel, optional
        Default: independent flips.
    chips : int
        Chips of an evaluation.
    rounds : int
        How often each rival is timed.

    Returns
    -------
    dict
        "evaluation": median seconds of faultsim.evaluate, which draws faults, runs the model and counts; "plain": of
        the model's own passes over the same batches, `chips` times, on a GPU replayed as a CUDA graph; "over_plain":
        their ratio; "samples": all times, in this order.
    """
    device = data[0][0].device
    model.eval()
    sample = evaluation_chips(0, chips)

    def evaluation() -> None:
        evaluate(model, data, sample, bit_error_rate=bit_error_rate, faults=faults, stored=stored)

    def passes(inputs: Tensor, labels: Tensor) -> None:
        for _ in range(chips):
            model(inputs)

    call = Graphed(passes, device)

    def plain() -> None:
        with torch.inference_mode():
            for batch in data:
                call(*batch)

    with torch.inference_mode():
        for _ in range(AS_WRITTEN + 1 if device.type == "cuda" else 1):
            call(*data[0])
    taken = time_rivals([evaluation, plain], device=device, seconds=0, warm_up=0, least=rounds)
    ours, theirs = (times.median for times in taken)
    return {
        "evaluation": ours,
        "plain": theirs,
        "over_plain": ours / theirs,
        "samples": [times.samples for times in taken],
    }
