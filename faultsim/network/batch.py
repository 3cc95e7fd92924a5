"""What a batch holds, and what a model answers to it: the forms that data loaders and models have."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import FaultsimError, summarize_error

LABELS = ("labels", "label", "targets", "target")
"""Under one of these names a dictionary holds its labels."""

Inputs = Tensor | tuple[Any, ...] | dict[str, Any]


def split_batch(batch: Any) -> tuple[Inputs, Any]:
    """Split a batch into inputs and targets.

    Parameters
    ----------
    batch
        A tensor: the inputs; there are no targets (None). A tuple or list: the last entry is the targets, the others
        are inputs; a single input may itself be a tuple or a dictionary, ((ids, mask), labels). A dictionary: the entry
        of `LABELS` is the targets, the others are inputs by their names.

    Raises
    ------
    FaultsimError
        For anything else.
    """
    if isinstance(batch, Tensor):
        return batch, None
    if isinstance(batch, Mapping):
        named = dict(batch)
        found = [name for name in LABELS if name in named]
        if len(found) > 1:
            raise FaultsimError(f"a batch has several labels: {', '.join(found)}; one of them is needed")
        targets = named.pop(found[0]) if found else None
        if named:
            return named, targets
    elif isinstance(batch, tuple | list) and len(batch) >= 2:
        *inputs, targets = batch
        if len(inputs) > 1:
            return tuple(inputs), targets
        if isinstance(inputs[0], Tensor):
            return inputs[0], targets
        if isinstance(inputs[0], tuple | list):
            return tuple(inputs[0]), targets
        if isinstance(inputs[0], Mapping):
            return dict(inputs[0]), targets
    raise FaultsimError(
        f"a batch is {describe(batch)}: it must be a tensor, a tuple (inputs, labels) or a dictionary with the "
        f"inputs by name and {LABELS[0]!r}"
    )


def count_samples(inputs: Inputs, targets: Any = None) -> int:
    """Count the samples of a batch: the first dimension of its labels, or of its first input.

    FaultsimError where there is none.
    """
    values = (
        inputs.values() if isinstance(inputs, dict) else inputs if isinstance(inputs, tuple) else (inputs,)
    )
    for value in (targets, *values):
        if isinstance(value, Tensor) and value.dim():
            return len(value)
    raise FaultsimError(f"a batch holds no tensor of samples, but {describe(inputs)}")


def call_model(model: nn.Module, inputs: Inputs) -> Any:
    """Return the model's output; several inputs by position or by name."""
    if isinstance(inputs, dict):
        return model(**inputs)
    return model(*inputs) if isinstance(inputs, tuple) else model(inputs)


def find_answer(output: Any) -> Any:
    """Return the tensor in a model's output.

    That is the output itself; `.logits` of an object; "logits", "out" or the only entry of a dictionary; the first
    entry of a tuple. Where there is no such tensor, the output is returned as it is.
    """
    found = output
    if isinstance(getattr(output, "logits", None), Tensor):
        found = output.logits
    elif isinstance(output, Mapping):
        names = [name for name in ("logits", "out") if name in output] or list(output)
        found = output[names[0]] if names and (len(output) == 1 or names[0] in ("logits", "out")) else output
    elif isinstance(output, tuple | list) and output:
        found = output[0]
    return found if isinstance(found, Tensor) else output


def describe(value: Any) -> str:
    """Return type and shape, for a message."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} of {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def describe_inputs(inputs: Inputs) -> str:
    """Return type and shape of all of a model's inputs, for a message."""
    if isinstance(inputs, dict):
        return ", ".join(f"{name} {describe(value)}" for name, value in inputs.items())
    return ", ".join(map(describe, inputs)) if isinstance(inputs, tuple) else describe(inputs)


def try_model(name: str, model: nn.Module, inputs: Inputs) -> Any:
    """Return the model's answer to a small batch; FaultsimError when it fails."""
    try:
        with torch.inference_mode():
            return find_answer(call_model(model, inputs))
    except Exception as error:  # a user's model may fail in any way
        raise FaultsimError(
            f"{name} fails on inputs {describe_inputs(inputs)}: {summarize_error(error)}"
        ) from error
