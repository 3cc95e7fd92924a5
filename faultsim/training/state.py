"""The state of a training run between two steps, as a safetensors file: nothing is unpickled when a run goes on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from ..checkpoint import read_file
from ..errors import FaultsimError
from ..io.bounds import parse_integer
from ..io.files import write_atomically

ADAM = {"step", "exp_avg", "exp_avg_sq"}
SGD = {"momentum_buffer"}
"""Names of the optimizers' state tensors per parameter."""
BOUNDS = {"step": (0.0, 1e8), "exp_avg_sq": (0.0, torch.inf)}
"""Valid ranges of their values."""


def save_state(
    path: str | Path, modules: Mapping[str, nn.Module], optimizer: Optimizer, facts: Mapping[str, Any]
) -> None:
    """Write parameters and buffers of the modules, the optimizer's state, and `facts` (JSON values), atomically."""
    from safetensors.torch import save

    tensors = {
        f"{key}.{name}": value.contiguous()
        for key, module in modules.items()
        for name, value in module.state_dict().items()
    }
    for index, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            if value is not None:
                tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value).contiguous()
    data = save(tensors, {"faultsim": json.dumps({"facts": facts})})
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def load_state(path: str | Path, modules: Mapping[str, nn.Module], optimizer: Optimizer) -> dict | None:
    """Restore what save_state() wrote and return its facts, or None if there is no file.

    Raises
    ------
    FaultsimError
        For a damaged file, and the state of another model or optimizer.
    """
    if not Path(path).exists():
        return None
    tensors, metadata = read_file(path)
    try:
        facts = metadata["facts"]
        if not isinstance(facts, dict):
            raise ValueError("it says nothing about its progress")
        state = _optimizer_state(tensors, optimizer)
        for key, module in modules.items():
            own = [name for name in tensors if name.startswith(f"{key}.")]
            module.load_state_dict({name.removeprefix(f"{key}."): tensors.pop(name) for name in own})
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (KeyError, RuntimeError, ValueError) as error:
        raise FaultsimError(f"{path} is the state of another training run: {error}") from None
    return facts


def _optimizer_state(tensors: dict[str, torch.Tensor], optimizer: Optimizer) -> dict[int, dict]:
    """Take an optimizer's state out of the file's tensors.

    Raises ValueError for any tensor that this kind of optimizer would not have written: the next step would fail on it,
    or compute something else.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict] = {}
    for key in [key for key in tensors if key.startswith("optimizer.")]:
        _, index, *name = key.split(".", 2)
        number = parse_integer(index)
        if not name or not 0 <= number < len(parameters):
            raise ValueError(f"{key!r} is no state of its optimizer")
        value = tensors.pop(key)
        shape = torch.Size([]) if name[0] == "step" else parameters[number].shape
        if not value.is_floating_point() or value.shape != shape:
            raise ValueError(f"{key!r} is {value.dtype} {list(value.shape)}, not as its parameter")
        least, most = BOUNDS.get(name[0], (-torch.inf, torch.inf))
        if not bool((value.isfinite() & (value >= least) & (value <= most)).all()):
            raise ValueError(f"{key!r} holds what no step leaves there")
        state.setdefault(number, {})[name[0]] = value
    expected = ADAM if isinstance(optimizer, torch.optim.Adam) else SGD
    if any(set(entries) != expected for entries in state.values()):
        raise ValueError(f"its optimizer's state isn't {', '.join(sorted(expected))}")
    return state
