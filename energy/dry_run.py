"""Run a model once on one input of a given shape, without data if it allows that."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from .errors import EnergyError
from .flops import Counter, PlainFlops
from .integers import checked_positive

W = TypeVar("W", bound=contextlib.AbstractContextManager[Any])
Watch = Callable[[Counter], W]
"""Makes a context manager around a run, which enters the counter."""

_SMALL = 2**37
"""Weights x inputs, about the most multiply-accumulates of convolutions: VGG19's on 3 x 32 x 32 are half."""

Example = Tensor | tuple[Any, ...] | dict[str, Any]
"""What one sample of a model's inputs is, with a batch of one: a tensor, several by position, or several by name."""


def dry_run(model: nn.Module, input_shape: Sequence[int] | Example, watch: Watch[W]) -> W:
    """Run `model` in evaluation mode inside of `watch(counter)` and return that context, now closed.

    A small model of plain operations runs on the CPU, on zeros and copies of its weights. Any other runs on meta
    tensors (shapes without data); where its forward pass needs real numbers, it runs again, as it is, on zeros; and
    where it takes no floating-point numbers, on integers (tokens). Each run is inside of a fresh `watch(counter)`.

    Parameters
    ----------
    model
        Any module. It is unchanged afterwards.
    input_shape
        Shape of one input without the batch; or an example of the inputs, for a model that takes something else than
        one tensor.
    watch
        Makes a context manager that enters the counter it is given.

    Raises
    ------
    EnergyError
        For a bad shape, and when the model fails each time; one from inside of the run goes through.
    """
    if isinstance(input_shape, Tensor | dict) or any(isinstance(size, Tensor) for size in input_shape):
        example: Any = input_shape
        return _run(model, example, watch, "the example of its inputs")
    try:
        shape = tuple(checked_positive(size, "a size") for size in input_shape)
    except EnergyError:
        shape = ()
    if not shape:
        raise EnergyError(
            f"the input shape has to be positive integers such as (3, 32, 32), not {input_shape}"
        )
    what = f"one input of shape {shape}"
    try:
        return _run(model, torch.zeros((1, *shape), dtype=_dtype(model)), watch, what)
    except _Fails:
        with contextlib.suppress(_Fails):  # a model of tokens
            return _run(model, torch.zeros((1, *shape), dtype=torch.int64), watch, what)
        raise


class _Fails(EnergyError):
    """The model itself, with inputs of one type."""


def _run(model: nn.Module, inputs: Example, watch: Watch[W], what: str) -> W:
    runs = [_on_meta] if _is_large(model, inputs) else [_on_copies, _on_meta]
    with _evaluating(model):
        for run in runs:
            try:
                return run(model, inputs, watch)
            except EnergyError:
                raise
            except Exception:  # it is not plain, or needs real numbers: the next run tells
                pass
        try:
            return _on_device(model, inputs, watch)
        except EnergyError:
            raise
        except Exception as error:
            reason = (str(error).splitlines() or ["no message"])[0]
            raise _Fails(
                f"{type(model).__name__} can't be traced: it fails on {what} "
                f"({type(error).__name__}: {reason}); give the shape of one input without the batch"
            ) from error


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode without gradients, and every module back into its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def _is_large(model: nn.Module, inputs: Example) -> bool:
    """Whether a run without data is likely to be faster than a real one."""
    values = (
        inputs.values() if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)
    )
    elements = sum(value.numel() for value in values if isinstance(value, Tensor))
    return elements * sum(parameter.numel() for parameter in model.parameters()) > _SMALL


def _on_copies(model: nn.Module, inputs: Example, watch: Watch[W]) -> W:
    """On the CPU. What a model without values reads are zeros; no plain operation looks at them."""

    def copy(tensor: Tensor) -> Tensor:
        return (
            torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor.to("cpu", copy=True)
        )

    return _on_state(model, copy, inputs, "cpu", watch(PlainFlops()))


def _on_meta(model: nn.Module, inputs: Example, watch: Watch[W]) -> W:
    def drop_data(tensor: Tensor) -> Tensor:
        return torch.empty_like(tensor, device="meta")

    return _on_state(model, drop_data, inputs, "meta", watch(FlopCounterMode(display=False)))


def _on_state(
    model: nn.Module, change: Callable[[Tensor], Tensor], inputs: Example, device: str, watch: W
) -> W:
    state = {name: change(tensor) for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    positions, names = _arguments(inputs, device)
    with watch:
        torch.func.functional_call(model, state, positions, names)
    return watch


def _on_device(model: nn.Module, inputs: Example, watch: Watch[W]) -> W:
    device = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    positions, names = _arguments(inputs, device)
    run = watch(FlopCounterMode(display=False))
    with run:
        model(*positions, **names)
    return run


def _arguments(inputs: Example, device: torch.device | str) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """On a device, by position and by name."""

    def moved(value: object) -> object:
        return value.to(device) if isinstance(value, Tensor) else value

    if isinstance(inputs, dict):
        return (), {name: moved(value) for name, value in inputs.items()}
    return tuple(map(moved, inputs if isinstance(inputs, tuple) else (inputs,))), {}


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
