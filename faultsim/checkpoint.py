"""Weight files: safetensors, int8 weights with their scales, everything else in float. Nothing is ever unpickled.

Tensors of a file written here: `LAYER.weight` int8 and `LAYER.weight.scale` float32 (one number, or one for each output
channel); all other parameters and buffers under their state_dict names. The metadata entry "faultsim" is JSON.
"""

import copy
import json
from pathlib import Path

import torch
from torch import nn

from .errors import FaultsimError
from .files import write_atomically
from .quantization import channel_axis, dequantize, finish_qat
from .stored import StoredLayer, StoredWeights

FORMAT = 1
_SCALE = ".weight.scale"


def save_weights(
    path: str | Path, model: nn.Module, metadata: dict | None = None, *, per_channel: bool = False
) -> None:
    """Writes `model` with its convolution, linear and embedding weights as int8. `metadata` (JSON values) is kept with
    it: model name, data set, recipe, ... Raises FaultsimError when the file cannot be written."""
    from safetensors.torch import save

    model = finish_qat(copy.deepcopy(model)).cpu()
    stored = StoredWeights.of(model, per_channel)
    tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
    for layer in stored.layers:
        for module in layer.modules:  # shared weights are written once, under the first name
            for name, owner in model.named_modules(remove_duplicate=False):
                if owner is module:
                    tensors.pop(_join(name, "weight"), None)
        tensors[_join(layer.name, "weight")] = layer.values
        tensors[_join(layer.name, "weight.scale")] = layer.scale.reshape(-1)
    header = {"faultsim": json.dumps({"format": FORMAT, **(metadata or {})}, sort_keys=True)}
    data = save(tensors, header)
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def load_weights(
    model: nn.Module, path: str | Path, *, per_channel: bool = False
) -> tuple[StoredWeights, dict]:
    """Loads a weight file into `model` (in place) and returns the weights as stored, with the file's metadata.

    Also takes a plain safetensors state_dict in float, which is quantised (`per_channel` or per tensor). Raises
    FaultsimError for files that are truncated, no safetensors, or don't fit the model, naming the first tensor that
    doesn't; the model is unchanged then.
    """
    tensors, metadata = read_file(path)
    state = model.state_dict()
    stored = StoredWeights.of(model)
    layers, loaded = [], {}
    for layer in stored.layers:
        key = _join(layer.name, "weight")
        scale_key = _join(layer.name, "weight.scale")
        values = tensors.pop(key, None)
        if values is None:
            raise _misfit(path, f"the file holds no {key!r}, which the model needs")
        if values.shape != layer.values.shape:
            raise _misfit(path, f"{key!r} is {list(values.shape)}, the model's is {list(layer.values.shape)}")
        if values.dtype == torch.int8:
            scale = tensors.pop(scale_key, None)
            channels = layer.values.shape[channel_axis(layer.modules[0])]
            if scale is None or scale.dtype != torch.float32 or scale.numel() not in (1, channels):
                raise _misfit(path, f"{scale_key!r} must hold 1 or {channels} float32 numbers")
            if not bool(torch.isfinite(scale).all()):
                raise _misfit(path, f"{scale_key!r} is not finite")
            axis = -1 if scale.numel() == 1 else channel_axis(layer.modules[0])
            scale = scale.reshape([]) if axis < 0 else scale
            values, scale = values.to(layer.values.device), scale.to(layer.values.device)
            layers.append(StoredLayer(layer.name, layer.modules, values, scale, axis))
            weight = dequantize(values, scale, axis)
        elif values.is_floating_point():
            weight = values
        else:
            raise _misfit(path, f"{key!r} is {values.dtype}; weights are int8 with scales, or floating point")
        for module in layer.modules:
            for name, owner in model.named_modules(remove_duplicate=False):
                if owner is module:
                    loaded[_join(name, "weight")] = weight
                    tensors.pop(_join(name, "weight"), None)
    for key, value in state.items():
        if key in loaded or (key.endswith(".original") and ".parametrizations." in f".{key}"):
            continue
        if key not in tensors:
            raise _misfit(path, f"the file holds no {key!r}, which the model needs")
        if tensors[key].shape != value.shape:
            raise _misfit(path, f"{key!r} is {list(tensors[key].shape)}, the model's is {list(value.shape)}")
        loaded[key] = tensors.pop(key)
    if tensors:
        raise _misfit(path, f"the file holds {sorted(tensors)[0]!r}, which the model has not")
    if layers and len(layers) < len(stored.layers):
        raise _misfit(path, "the file mixes int8 weights with float ones")

    with torch.no_grad():
        for key, value in loaded.items():
            target = (
                state[key]
                if key in state
                else state[key.removesuffix("weight") + "parametrizations.weight.original"]
            )
            target.copy_(value)
    return (StoredWeights(layers) if layers else StoredWeights.of(model, per_channel)), metadata


def read_file(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and metadata of a safetensors file; FaultsimError when it is none."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if path.suffix in (".pt", ".pth", ".pkl", ".bin"):
        raise FaultsimError(
            f"{path} is a pickled file, which is never opened here: save it with "
            "safetensors.torch.save_file(model.state_dict(), ...)"
        )
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise FaultsimError(f"weight file {path} does not exist") from None
    except (OSError, SafetensorError, ValueError) as error:
        raise FaultsimError(f"weight file {path} is truncated or no safetensors file ({error})") from None
    try:
        metadata = json.loads(header.get("faultsim", "{}"))
    except ValueError:
        metadata = None
    if not isinstance(metadata, dict) or metadata.get("format", FORMAT) != FORMAT:
        raise FaultsimError(
            f"weight file {path} was written by another version of faultsim (this one reads format {FORMAT})"
        )
    return tensors, metadata


def _join(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name


def _misfit(path: str | Path, what: str) -> FaultsimError:
    return FaultsimError(f"weight file {path} doesn't fit the model: {what}")
