"""CUDA graphs: steps of training and evaluation that are captured once and replayed."""

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

R = TypeVar("R")
_log = logging.getLogger(__name__)

AS_WRITTEN = 3
"""Calls before the capture, in which libraries choose algorithms and optimizers create their state."""


class Graphed(Generic[R]):
    """A function of tensors that is called many times.

        step = Graphed(function, device)
        result = step(images, labels)

    On a GPU the first calls run eagerly. Then the function is captured once, and further calls copy their arguments in
    and replay it. Each call does what the function does, once. The result is the same memory each time:
    use it before the next call. The function must not wait for the device, nor change Python state that later calls
    need. Calls with arguments of another shape than the first ones run eagerly. So does, after a logged warning, a
    function that CUDA cannot capture, for instance because its model reads numbers in Python. On a CPU every call runs
    eagerly.
    """

    def __init__(self, function: Callable[..., R], device: torch.device) -> None:
        self.function = function
        self.calls_before = AS_WRITTEN if device.type == "cuda" else None  # None: never captured
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.kinds: list[tuple[torch.Size, torch.dtype]] | None = None  # of the arguments that are replayed

    def __call__(self, *inputs: Tensor) -> R:
        """Call the function, or replay it."""
        if self.stream is None:
            return self.function(*inputs)
        self.kinds = self.kinds or _kinds(inputs)
        if _kinds(inputs) != self.kinds:  # the last batch of an epoch
            return self._as_written(self.stream, inputs)
        with torch.cuda.device(self.stream.device):
            if self.graph is None and self.calls_before == 0:
                self._capture(self.stream, inputs)
            if self.graph is not None:
                for ours, theirs in zip(self.inputs, inputs, strict=True):
                    ours.copy_(theirs)
                self.graph.replay()
                return self.result
            if self.calls_before:
                self.calls_before -= 1
        return self._as_written(self.stream, inputs)

    def _as_written(self, stream: torch.cuda.Stream, inputs: tuple[Tensor, ...]) -> R:
        # on the stream of the capture, so that what libraries and autograd cache per stream exists there
        current = torch.cuda.current_stream(stream.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            result = self.function(*inputs)
        current.wait_stream(stream)
        return result

    def _capture(self, stream: torch.cuda.Stream, inputs: tuple[Tensor, ...]) -> None:
        self.inputs = [x.clone() for x in inputs]
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=stream):
                self.result = self.function(*self.inputs)
        except RuntimeError as error:
            self.calls_before = None
            torch.cuda.synchronize()
            # A failed capture leaves the default generator registered with the graph. Replacing its state with a clone
            # unregisters it.
            random = torch.cuda.default_generators[stream.device.index]
            random.graphsafe_set_state(random.clone_state())
            _log.warning("runs without a CUDA graph: %s", str(error).splitlines()[0])
        else:
            self.graph = graph


def _kinds(tensors: Sequence[Tensor]) -> list[tuple[torch.Size, torch.dtype]]:
    return [(x.shape, x.dtype) for x in tensors]
