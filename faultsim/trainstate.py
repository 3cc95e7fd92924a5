"""The state of a training run between two epochs, as a safetensors file: nothing is unpickled when a run goes on."""

import json
from pathlib import Path

import torch
from torch import nn
from torch.optim import Optimizer

from .checkpoint import read_file
from .errors import FaultsimError
from .files import write_atomically


def save_state(path: str | Path, module: nn.Module, optimizer: Optimizer, facts: dict) -> None:
    """Parameters and buffers of `module`, the optimiser's state, and `facts` (JSON values), atomically."""
    from safetensors.torch import save

    tensors = {f"module.{name}": value.contiguous() for name, value in module.state_dict().items()}
    for index, entries in optimizer.state_dict()["state"].items():
        for name, value in entries.items():
            if value is not None:
                tensors[f"optimizer.{index}.{name}"] = torch.as_tensor(value).contiguous()
    data = save(tensors, {"faultsim": json.dumps({"facts": facts})})
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def load_state(path: str | Path, module: nn.Module, optimizer: Optimizer) -> dict | None:
    """Restores what save_state() wrote and returns its facts; None where there is no file. FaultsimError for a file of
    another model or optimiser."""
    if not Path(path).exists():
        return None
    tensors, metadata = read_file(path)
    state: dict[int, dict] = {}
    for key in [key for key in tensors if key.startswith("optimizer.")]:
        _, index, name = key.split(".", 2)
        state.setdefault(int(index), {})[name] = tensors.pop(key)
    try:
        facts = metadata["facts"]
        module.load_state_dict({key.removeprefix("module."): value for key, value in tensors.items()})
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    except (KeyError, RuntimeError, ValueError) as error:
        raise FaultsimError(
            f"{path} is the state of another training run: {str(error).splitlines()[0]}"
        ) from None
    return facts
