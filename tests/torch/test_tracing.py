"""Do threads that look into models at the same time disturb nobody?"""

import threading
import time

import torch
from torch import nn

from faultsim.inference.tracing import Tracer


class Slow(nn.Module):
    """Takes its time to be traced."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.layer, self.seconds = nn.Linear(3, 3), seconds

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        return self.layer(x) + self.layer.weight.sum()


def test_threads_trace_and_call_at_the_same_time() -> None:
    """The first trace ends while the second goes on, and this thread uses modules meanwhile."""
    before = nn.Module.__call__, nn.Module.__getattr__
    graphs = {}

    def trace(seconds: float) -> None:
        graphs[seconds] = Tracer().trace(Slow(seconds))

    threads = [threading.Thread(target=trace, args=(seconds,)) for seconds in (0.3, 0.4)]
    other, x = nn.Linear(3, 2), torch.ones(1, 3)
    expected = other(x)
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    while any(thread.is_alive() for thread in threads):
        assert torch.equal(other(x), expected)
        assert isinstance(other.weight, nn.Parameter)
    for thread in threads:
        thread.join()
    assert (nn.Module.__call__, nn.Module.__getattr__) == before
    for graph in graphs.values():
        assert [node.op for node in graph.nodes] == [
            "placeholder",
            "call_module",
            "get_attr",
            "call_method",
            "call_function",
            "output",
        ]
