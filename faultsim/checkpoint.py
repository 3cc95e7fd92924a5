"""Weight files: safetensors, int8 weights with their scales, everything else in float. Nothing is ever unpickled.

Tensors of a file written here: `LAYER.weight` int8 and `LAYER.weight.scale` float32 (one number, or one for each output
channel); all other parameters and buffers under their state_dict names. The metadata entry "faultsim" is JSON.
"""

import copy
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import parametrize

from .bounds import parse_json
from .errors import FaultsimError
from .files import write_atomically
from .quantization import channel_axis, dequantize, is_fake, plain, quantize
from .stored import StoredLayer, StoredWeights

FORMAT = 1
LARGEST = 1e18  #: of a weight: products of two are still numbers in float32


def save_weights(
    path: str | Path, model: nn.Module, metadata: dict | None = None, *, per_channel: bool = False
) -> None:
    """Writes `model` with its convolution, linear and embedding weights as int8. `metadata` (JSON values) is kept with
    it: model name, data set, recipe, ... Raises FaultsimError when the file cannot be written."""
    from safetensors.torch import save

    stored = StoredWeights.of(model, per_channel)
    model = plain(copy.deepcopy(model))
    # clones: safetensors refuses tensors that share memory
    tensors = {name: value.cpu().contiguous().clone() for name, value in model.state_dict().items()}
    for layer in stored.layers:
        for name in _names(model, layer):  # shared weights are written once, under the first name
            del tensors[_join(name, "weight")]
        tensors[_join(layer.name, "weight")] = layer.values.cpu()
        tensors[_join(layer.name, "weight.scale")] = layer.scale.reshape(-1).cpu()
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
    layers, loaded = [], {}
    for layer in StoredWeights.of(model).layers:
        key = _join(layer.name, "weight")
        names = _names(model, layer)
        found = [tensors.pop(name) for name in (_join(name, "weight") for name in names) if name in tensors]
        if not found:
            raise _misfit(path, f"the file holds no {key!r}, which the model needs")
        values = found[0]
        if any(not torch.equal(values, other) for other in found[1:]):
            raise _misfit(path, f"{key!r} differs from another weight that the model shares it with")
        if values.shape != layer.values.shape:
            raise _misfit(path, f"{key!r} is {list(values.shape)}, the model's is {list(layer.values.shape)}")
        if values.dtype == torch.int8:
            axis, scale = _scale(path, tensors, layer)
            values, scale = values.to(layer.values.device), scale.to(layer.values.device)
            weight = dequantize(values, scale, axis)
        elif values.is_floating_point():
            weight = values
            axis = channel_axis(layer.modules[0]) if per_channel else -1
            try:
                values, scale = quantize(weight.to(layer.values.device), axis)
            except FaultsimError as error:
                raise _misfit(path, f"{key!r}: {error}") from None
        else:
            raise _misfit(path, f"{key!r} is {values.dtype}; weights are int8 with scales, or floating point")
        layers.append(replace(layer, values=values.contiguous(), scale=scale, axis=axis))
        loaded |= {_target(path, model, name): weight for name in names}
    for key, value in state.items():
        if key in loaded:
            continue
        if key not in tensors:
            raise _misfit(path, f"the file holds no {key!r}, which the model needs")
        found = tensors.pop(key)
        if found.shape != value.shape:
            raise _misfit(path, f"{key!r} is {list(found.shape)}, the model's is {list(value.shape)}")
        if found.is_floating_point() != value.is_floating_point():
            raise _misfit(path, f"{key!r} is {found.dtype}, the model's is {value.dtype}")
        loaded[key] = found
    if tensors:
        raise _misfit(path, f"the file holds {sorted(tensors)[0]!r}, which the model has not")

    parameters = {key for key, _ in model.named_parameters()}
    for key, value in loaded.items():
        variance = key.endswith("running_var")
        if not (key in parameters or variance or key.endswith("running_mean")):
            continue
        if not bool((value.abs() <= LARGEST).all()) or (variance and bool((value < 0).any())):
            raise _misfit(
                path, f"{key!r} must be finite and from {0 if variance else -LARGEST:g} to {LARGEST:g}"
            )
    with torch.no_grad():
        for key, value in loaded.items():
            state[key].copy_(value)
    return StoredWeights(layers), metadata


def _names(model: nn.Module, layer: StoredLayer) -> list[str]:
    """Every name that the model has for a layer with this weight, the first one first."""
    shared = [model.get_submodule(name) for name in layer.names]
    return [name for name, module in model.named_modules(remove_duplicate=False) if module in shared]


def _target(path: str | Path, model: nn.Module, layer: str) -> str:
    """Entry of the model's state_dict that a layer's weight is loaded into."""
    module = model.get_submodule(layer)
    if not parametrize.is_parametrized(module, "weight"):
        return _join(layer, "weight")
    if not (is_fake(module) and len(module.parametrizations.weight) == 1):
        raise _misfit(
            path,
            f"{_join(layer, 'weight')!r} is computed from other parameters: take that parametrisation off",
        )
    return _join(layer, "parametrizations.weight.original")


def _scale(
    path: str | Path, tensors: dict[str, torch.Tensor], layer: StoredLayer
) -> tuple[int, torch.Tensor]:
    """(axis, scale) of an int8 weight, taken out of the file's tensors."""
    key = _join(layer.name, "weight.scale")
    scale = tensors.pop(key, None)
    axis = channel_axis(layer.modules[0])
    channels = layer.values.shape[axis]
    if scale is None or scale.dtype != torch.float32 or scale.numel() not in (1, channels):
        raise _misfit(path, f"{key!r} must hold 1 or {channels} float32 numbers")
    if not bool(torch.isfinite(scale).all()):
        raise _misfit(path, f"{key!r} is not finite")
    scale = scale.reshape(-1)
    return (-1, scale.reshape([])) if scale.numel() == 1 else (axis, scale)


def read_file(path: str | Path) -> tuple[dict[str, torch.Tensor], dict]:
    """Tensors and metadata of a safetensors file; FaultsimError when it is none."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if path.suffix in (".pt", ".pth", ".pkl", ".bin"):
        raise FaultsimError(
            f"{path} is a pickled file, which is never opened here: save it with "
            "safetensors.torch.save_file(model.state_dict(), ...)"
        )
    if path.exists() and not path.is_file():  # a pipe would never end
        raise FaultsimError(f"weight file {path} is truncated or no safetensors file (it is no regular file)")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except FileNotFoundError:
        raise FaultsimError(f"weight file {path} does not exist") from None
    except (OSError, SafetensorError, ValueError, RuntimeError, TypeError) as error:
        raise FaultsimError(f"weight file {path} is truncated or no safetensors file ({error})") from None
    try:
        metadata = parse_json(header.get("faultsim", "{}"))
    except ValueError as error:
        raise FaultsimError(
            f"weight file {path} was written by another version of faultsim or is damaged: its metadata cannot be read "
            f"({error})"
        ) from None
    _check_numbers(path, tensors)
    if not isinstance(metadata, dict) or metadata.get("format", FORMAT) != FORMAT:
        raise FaultsimError(
            f"weight file {path} was written by another version of faultsim (this one reads format {FORMAT})"
        )
    return tensors, metadata


def _check_numbers(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """FaultsimError where a tensor holds NaN, or a scale makes an int8 weight larger than LARGEST. (Infinities may be
    meant: masks and ranges are buffers too. load_weights() refuses them in parameters.)"""
    for name, values in tensors.items():
        if not values.is_floating_point() or not values.numel():
            continue
        if bool(values.isnan().any()):
            raise FaultsimError(f"weight file {path}: {name!r} is not finite: it holds NaN")
        weight = tensors.get(name.removesuffix(".scale"))
        scales = name.endswith(".scale") and weight is not None and weight.dtype == torch.int8
        if scales and not bool(((values >= 0) & (values <= LARGEST / 128)).all()):
            raise FaultsimError(f"weight file {path}: {name!r} must be from 0 to {LARGEST / 128:.3g}")


def _join(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name


def _misfit(path: str | Path, what: str) -> FaultsimError:
    return FaultsimError(f"weight file {path} doesn't fit the model: {what}")
