"""How a model's forward passes are fast on a processor: few images at once, channels last.

Maps that are larger than what the C library keeps come from the operating system page by page, at every layer. So the
images of a batch pass through the model a few at a time. Channels last, oneDNN's convolutions need no copies of the
maps, and pooling is vectorized. Both leave each image's answer as it is, up to the rounding of sums, where a model
treats its images one by one. That is known of models whose graph torch.fx can trace, down to the operations below.
Others run as they are written.
"""

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from ..errors import FaultsimError
from ..network.batch import Inputs, call_model, find_answer
from ..stored import StoredLayer
from .tracing import Tracer

COMPUTE = ("float32", "bfloat16")
"""What a model can compute in."""
LARGEST_MAP = 16 << 20
"""Bytes of the largest map of the images that pass through a model at once."""
FEWEST = 8
"""Images at once, however large their maps are: each pass reorders all weights."""

_MULTIPLYING = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
_MODULES = (
    nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.BatchNorm2d, nn.GroupNorm, nn.Identity, nn.Dropout, nn.Upsample,
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU,
    nn.SiLU, nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh,
)  # fmt: skip
_FUNCTIONS = (
    operator.add, operator.iadd, operator.mul, torch.add, torch.mul, torch.relu, torch.sigmoid, torch.tanh, torch.clamp,
    functional.relu, functional.relu6, functional.silu, functional.hardswish, functional.gelu, functional.leaky_relu,
    functional.max_pool2d, functional.avg_pool2d, functional.adaptive_avg_pool2d, functional.interpolate,
)  # fmt: skip
_ALONG = {
    torch.flatten: [[1]],
    "flatten": [[1]],
    torch.cat: [[1]],
    torch.mean: [[2, 3], [-2, -1]],
    "mean": [[2, 3], [-2, -1]],
}
"""Operations that treat images one by one along these dimensions."""


class Passes:
    """How batches pass through a model with weights that a chip read.

        passes = Passes(model, device)
        with stored.replaced([passes.place(*read) for read in zip(stored.layers, weights)]):
            answers = passes(inputs)

    Parameters
    ----------
    model
        In evaluation mode.
    device
        Where it is.
    compute
        "float32": the model computes in the types of its weights. "bfloat16": it computes under torch's autocast.
    whole
        Each batch passes as it is.

    Raises
    ------
    FaultsimError
        For another `compute`.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, compute: str = "float32", whole: bool = False
    ) -> None:
        check_compute(compute)
        self.model, self.device, self.rounded = model, device, compute == "bfloat16"
        by_image = device.type == "cpu" and not whole
        self.graph = trace_images(model) if by_image else None
        """Of a model that treats its images one by one."""
        self._counts: dict[torch.Size, int] = {}

    def place(self, layer: StoredLayer, weight: Tensor) -> Tensor:
        """Convert a weight that a chip read to the type and memory format that it is used in."""
        if self.rounded and weight.dtype == torch.float32 and _is_multiplied(layer):
            weight = weight.bfloat16()  # once, not at every pass
        if self.graph is not None and weight.dim() == 4:
            weight = weight.contiguous(memory_format=torch.channels_last)
        return weight

    def __call__(self, inputs: Inputs) -> Any:
        """Return the model's answer to a batch."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.rounded):
            if self.graph is None or not isinstance(inputs, Tensor) or inputs.dim() != 4 or not len(inputs):
                answer = find_answer(call_model(self.model, inputs))
            else:
                inputs = inputs.contiguous(memory_format=torch.channels_last)
                parts = [self.model(part) for part in inputs.split(self._count(inputs, self.graph))]
                answer = parts[0] if len(parts) == 1 else torch.cat(parts)
        rounded = isinstance(answer, Tensor) and answer.dtype == torch.bfloat16 and self.rounded
        return answer.float() if rounded else answer

    def _count(self, inputs: Tensor, graph: fx.Graph) -> int:
        """Return how many images pass at once: powers of two, so that few shapes are prepared for."""
        shape = inputs.shape[1:]
        if shape not in self._counts:
            largest = _Largest(fx.GraphModule(self.model, graph))
            largest.run(inputs[:1])
            fit = max(FEWEST, LARGEST_MAP // largest.bytes)
            self._counts[shape] = 1 << fit.bit_length() - 1
        return self._counts[shape]


def check_compute(compute: str) -> None:
    """Raise FaultsimError for what a model cannot compute in."""
    if compute not in COMPUTE:
        raise FaultsimError(f"a model cannot compute in {compute!r}: it can be {' or '.join(COMPUTE)}")


def _is_multiplied(layer: StoredLayer) -> bool:
    """Whether autocast rounds the weight: it does in the layers themselves, not in embeddings that share it."""
    multiplied = all(isinstance(module, _MULTIPLYING) for module in layer.modules)
    return multiplied and set(layer.attributes) == {"weight"} and not layer.held.is_int8


class _Largest(fx.Interpreter):
    """Runs a model and notes how large its largest map is."""

    bytes = 1

    def run_node(self, node: fx.Node) -> Any:
        found = super().run_node(node)
        if isinstance(found, Tensor):
            self.bytes = max(self.bytes, found.nbytes)
        return found


def trace_images(model: nn.Module) -> fx.Graph | None:
    """Return the graph of a model if it treats the images of a batch one by one; None where that is not known."""
    if any(module._forward_hooks or module._forward_pre_hooks for module in model.modules()):
        return None
    try:
        graph = Tracer().trace(model)
    except Exception:  # whatever a forward method does that has no static graph
        return None
    modules = dict(model.named_modules())
    return graph if all(_is_by_image(node, modules) for node in graph.nodes) else None


def _is_by_image(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "placeholder":
        return True
    if node.op == "output":
        return isinstance(node.args[0], fx.Node)
    if node.op == "call_module":
        module = modules[str(node.target)]
        return isinstance(module, _MODULES) or (isinstance(module, nn.Flatten) and module.start_dim == 1)
    if node.target in _ALONG:
        dimensions = (
            node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", node.kwargs.get("start_dim"))
        )
        given = [dimensions] if isinstance(dimensions, int) else dimensions
        return isinstance(given, list | tuple) and list(given) in _ALONG[node.target]
    return node.target in _FUNCTIONS
