"""Run a model once on one input of a given shape, without data if it allows that."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import nn

from energy.errors import EnergyError
from energy.integers import positive

W = TypeVar("W", bound=contextlib.AbstractContextManager)


def dry_run(model: nn.Module, input_shape: Sequence[int], watch: Callable[[], W]) -> W:
    """Run `model` in evaluation mode inside of `watch()` and return that context, now closed.

    The model runs on meta tensors (shapes without data); where its forward pass needs real numbers, it runs
    again, inside of a fresh `watch()`, on zeros; and where it takes no floating-point numbers, on integers
    (tokens). `input_shape` has no batch; a batch of one is added. The model is unchanged afterwards. Raises
    EnergyError for a bad shape and when the model fails each time; an EnergyError from inside of the run goes
    through.
    """
    try:
        shape = tuple(positive(size, "a size") for size in input_shape)
    except (EnergyError, TypeError):
        shape = ()
    if not shape:
        raise EnergyError(
            f"the input shape has to be positive integers such as (3, 32, 32), not {input_shape}"
        )
    failures: list[Exception] = []
    with _evaluating(model):
        for dtype in (_dtype(model), torch.int64):
            for run in (_on_meta, _on_zeros):
                try:
                    return run(model, shape, dtype, watch())
                except EnergyError:
                    raise
                except Exception as error:  # whatever the model does that these inputs are nothing for
                    failures.append(error)
    error = failures[1]  # with real numbers, of the type of its parameters
    reason = (str(error).splitlines() or ["no message"])[0]
    raise EnergyError(
        f"{type(model).__name__} can't be traced: it fails on one input of shape {shape} "
        f"({type(error).__name__}: {reason}); give the shape of one input without the batch"
    ) from error


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; every module's own mode is put back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _on_meta(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype, watch: W) -> W:
    state = {
        name: torch.empty_like(tensor, device="meta")
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    x = torch.empty((1, *shape), dtype=dtype, device="meta")
    with watch:
        torch.func.functional_call(model, state, (x,))
    return watch


def _on_zeros(model: nn.Module, shape: tuple[int, ...], dtype: torch.dtype, watch: W) -> W:
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    with watch:
        model(torch.zeros((1, *shape), dtype=dtype, device=device))
    return watch


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
