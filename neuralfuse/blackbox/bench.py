"""How much time HTTP adds to the evaluation of a black box."""

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from faultsim.bench.timing import time_rivals
from faultsim.errors import FaultsimError

from .box import BlackBox
from .client import HttpEndpoint
from .evaluation import evaluate_restricted
from .server import serving
from .wire import Description


class _Timed:
    """A black box that adds up the seconds that it takes."""

    def __init__(self, box: BlackBox) -> None:
        self._box, self.seconds = box, 0.0

    def predict(self, images: np.ndarray) -> np.ndarray:
        begin = time.perf_counter()
        try:
            return self._box.predict(images)
        finally:
            self.seconds += time.perf_counter() - begin


def time_http(
    box: BlackBox, description: Description, data: Sequence[tuple[Tensor, Tensor]], seconds: float
) -> dict[str, float]:
    """Time evaluations of a black box in the same process and through a server on loopback, in turn.

    Parameters
    ----------
    box : BlackBox
        The black box.
    description : Description
        What the server accepts.
    data : sequence of (images, labels)
        Batches; the images travel in NumPy's format.
    seconds : float
        How long it is measured; at least 7 evaluations each.

    Returns
    -------
    dict
        "callable": median seconds in the same process; "http": through the server; "ratio": http / callable;
        "overhead": time of the evaluations through the server outside the black box over that inside, which is what
        ratio - 1 would be on a machine of constant speed.

    Raises
    ------
    FaultsimError
        If the server answers other classes.
    """
    timed = _Timed(box)
    total = 0.0
    with serving(timed, description) as url:
        endpoint = HttpEndpoint(url)
        for inputs, _ in data:
            pixels = inputs.cpu().numpy()
            if not np.array_equal(endpoint.predict(pixels), box.predict(pixels)):
                raise FaultsimError("the server answers other classes than the model in the same process")
        timed.seconds = 0.0

        def through_http() -> None:
            nonlocal total
            begin = time.perf_counter()
            evaluate_restricted([endpoint], data)
            total += time.perf_counter() - begin

        direct, http = time_rivals(
            [lambda: evaluate_restricted([box], data), through_http],
            device=torch.device("cpu"),  # predictions are on the host when they are there
            seconds=seconds,
            warm_up=1,
        )
    return {
        "callable": direct.median,
        "http": http.median,
        "ratio": http.median / direct.median,
        "overhead": total / timed.seconds - 1,
    }
