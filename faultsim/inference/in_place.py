"""ReLUs that write over their input, behind max pooling, for a frozen model that runs many times.

A ReLU with an output of its own moves each map through memory once more, and where maps are large the C library takes
that memory from the operating system anew at each layer. The largest of several numbers is the same one before and
after a ReLU, so that behind max pooling it has a quarter of the work. All numbers, and all gradients, stay the same
bits.
"""

import contextlib
import operator
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from .fold import pass_on
from .tracing import Tracer

_RELUS = (nn.ReLU, nn.ReLU6)
_OWN = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Linear,
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d,
)  # fmt: skip
"""Modules whose output is memory of its own, which their backward pass does not read."""


@contextlib.contextmanager
def overwriting(model: nn.Module) -> Iterator[None]:
    """Let ReLUs write over their input, and follow max pooling instead of preceding it, inside a `with` block.

    Afterwards the model is as it was. A ReLU stays as it is where something else reads its input or a hook sees it, in
    its functional form, and in a model whose forward method torch.fx cannot trace.

    Parameters
    ----------
    model
        Any module, in evaluation mode.
    """
    calls = _Calls(model)
    with contextlib.ExitStack() as undo:
        for relu, nodes in calls.of.items():
            if type(relu) not in _RELUS or not calls.is_plain(relu):
                continue
            pools = [calls.find_pool(node) for node in nodes]
            if all(pools):
                undo.callback(delattr, relu, "forward")
                relu.forward = pass_on
                for pool in pools:
                    undo.callback(delattr, pool, "forward")
                    pool.forward = partial(_pool_first, pool, relu)
            elif any(pools) or not all(calls.is_free(node.args[0]) for node in nodes):
                continue
            undo.callback(setattr, relu, "inplace", relu.inplace)
            relu.inplace = True
        yield


def _pool_first(pool: nn.MaxPool2d, relu: nn.Module, maps: Tensor) -> Tensor:
    return type(relu).forward(relu, nn.MaxPool2d.forward(pool, maps))


class _Tracer(Tracer):
    """Notes which modules have hooks when they are called: a forward method may set them for its own time."""

    def __init__(self) -> None:
        super().__init__()
        self.hooked: set[nn.Module] = set()

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        if m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks:
            self.hooked.add(m)
        return super().call_module(m, forward, args, kwargs)


class _Calls:
    """The calls of a model's modules, by the graph of its forward method."""

    def __init__(self, model: nn.Module) -> None:
        tracer, self.of = _Tracer(), dict[Any, list[fx.Node]]()
        self.hooked, self.modules = tracer.hooked, dict(model.named_modules())
        try:
            graph = tracer.trace(model)
        except Exception:  # a forward method without a static graph: the model runs as it is
            return
        for node in graph.nodes:
            module = self.find_module(node)
            if module is not None:
                self.of.setdefault(module, []).append(node)

    def find_module(self, node: fx.Node) -> nn.Module | None:
        """Return the module that a node calls."""
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def is_plain(self, module: nn.Module) -> bool:
        """Whether nobody has changed what a module does."""
        return module not in self.hooked and "forward" not in vars(module)

    def find_pool(self, node: fx.Node) -> Any:
        """Return the max pooling that alone reads a node's output, and reads nothing else."""
        reader = next(iter(node.users), node)
        pool = self.find_module(reader)
        if type(pool) is not nn.MaxPool2d or pool.return_indices or not self.is_plain(pool):
            return None
        return pool if len(node.users) == 1 and reader.args == (node,) and self.of[pool] == [reader] else None

    def is_free(self, node: Any) -> bool:
        """Whether a node's output is memory of its own, with one reader."""
        if not isinstance(node, fx.Node) or len(node.users) != 1:
            return False
        module = self.find_module(node)
        if node.target is operator.add:  # or +=, which torch.fx writes down as +: it is its first operand
            return self.is_free(node.args[0])
        if module is None:
            return node.target is torch.add and "out" not in node.kwargs
        if vars(module).get("forward") is pass_on:  # batch normalization that a convolution does
            return self.is_free(node.args[0])
        return isinstance(module, _OWN) and self.is_plain(module)
