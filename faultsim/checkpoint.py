"""Weight files: safetensors, int8 weights with their scales, everything else in float. Nothing is ever unpickled.

Tensors of a file written here: weights int8 under their names (`LAYER.weight`, `lstm.weight_ih_l0`) and, beside each,
`NAME.scale` float32 (one number, or one for each output channel); all other parameters and buffers under their
state_dict names. The metadata entry "faultsim" is JSON. Weights of another format than int8 are in the file as the
numbers that they stand for, in float32, and the entry `weight_format` of the JSON is the name of the format.
"""

import hashlib
import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .errors import FaultsimError
from .formats import INT8, AnyFormat, Format, as_format
from .io.bounds import parse_json
from .io.files import write_atomically
from .network.inventory import Select, Weight, join_name, take_inventory
from .network.places import Hooked, Parametrized
from .quantization import dequantize
from .stored import StoredLayer, StoredWeights, as_stored, encode_weight, store_weight

FORMAT = 1
WEIGHT_FORMAT = "weight_format"
"""Entry of the metadata: the format of the weights, where it is not int8."""
LARGEST = 1e18
"""Of a weight: products of two are still numbers in float32."""


def save_weights(
    path: str | PathLike[str],
    model: nn.Module,
    metadata: dict[str, Any] | None = None,
    *,
    per_channel: bool = False,
    select: Select = None,
    format: AnyFormat = INT8,
) -> None:
    """Write a model to a weight file, with the weights that lie in the memory as int8, or rounded to another format.

    Parameters
    ----------
    path
        safetensors file.
    model
        Any module. It is not changed.
    metadata
        JSON values to keep with it: model name, dataset, recipe, ...
    per_channel, select, format
        As for `StoredWeights.of`.

    Raises
    ------
    FaultsimError
        When the file cannot be written, and for weights that are int8 in torch's own way.
    """
    from safetensors.torch import save

    stored = StoredWeights.of(model, per_channel, select, format)
    if fixed := [layer.tensors[0] for layer in stored.layers if layer.held.is_int8]:
        raise FaultsimError(
            f"cannot write {path}: {fixed[0]} is int8 already, in a way that only torch writes"
        )
    copied = stored.copy(model, [layer.values.to(layer.dtype) for layer in stored.layers])
    # clones: safetensors refuses tensors that share memory
    tensors = {name: value.cpu().contiguous().clone() for name, value in copied.state_dict().items()}
    for layer in stored.layers:
        for name in _names(model, layer):  # shared weights are written once, under the first name
            del tensors[name]
        if layer.format == INT8:
            tensors[layer.tensors[0]] = layer.values.cpu()
            tensors[_scale_of(layer.tensors[0])] = layer.scale.reshape(-1).cpu()
        else:
            tensors[layer.tensors[0]] = layer.decode().cpu()
    described = {"format": FORMAT, **(metadata or {})}
    if stored.format != INT8:
        described[WEIGHT_FORMAT] = stored.format.name
    header = {"faultsim": json.dumps(described, sort_keys=True)}
    data = save(tensors, header)
    write_atomically(path, lambda temporary: temporary.write_bytes(data))


def load_weights(
    model: nn.Module,
    path: str | PathLike[str],
    *,
    per_channel: bool = False,
    select: Select = None,
    format: AnyFormat | None = None,
) -> tuple[StoredWeights, dict[str, Any]]:
    """Load a weight file into a model, in place.

    Also takes a plain safetensors state_dict in float, in which tensors that the model shares may stand once
    (safetensors.torch.save_model); it is quantized, `per_channel` or per tensor.

    Parameters
    ----------
    model
        Any module.
    path
        safetensors file, from `save_weights` or not.
    per_channel, select
        As for `StoredWeights.of`.
    format
        What a stored weight is, or its name. Default: what the file says, or else int8.

    Returns
    -------
    stored : StoredWeights
        The weights as they lie in memory.
    metadata : dict
        That of the file.

    Raises
    ------
    FaultsimError
        For files that are truncated, no safetensors, or don't fit the model, naming the first tensor that doesn't; the
        model is unchanged then.
    """
    tensors, metadata = read_file(path)
    held = _format_of(path, metadata) if format is None else as_format(format)
    state = model.state_dict()
    found = take_inventory(model, select)
    shared = _shared(state)
    stored: dict[Weight, StoredLayer | None] = {}
    loaded: dict[str, Tensor] = {}
    used: set[str] = set()
    for weight in found.weights:
        key, names = weight.tensors[0], _names(model, weight)
        given = [
            name for name in {n: 0 for own in names for n in (own, *shared.get(own, ()))} if name in tensors
        ]
        if not given and isinstance(weight.held, Hooked | Parametrized) and not _rounded(weight):
            stored[weight] = None  # the file may hold what it is computed from
            continue
        if not given:
            raise _misfit(path, f"the file holds no {key!r}, which the model needs")
        values = tensors[given[0]]
        if any(not torch.equal(values, tensors[name]) for name in given[1:]):
            raise _misfit(path, f"{key!r} differs from another weight that the model shares it with")
        _fits(path, key, values, weight.shape)
        targets = [_target(path, weight, name) for name in names]
        used.update(given, targets)
        if values.dtype == torch.int8:
            axis, scale = _scale(path, tensors, key, weight, used)
            floats = dequantize(values, scale, axis)
        elif values.is_floating_point():
            floats = values
        else:
            raise _misfit(path, f"{key!r} is {values.dtype}; weights are int8 with scales, or floating point")
        if values.dtype == torch.int8 and held == INT8:
            stored[weight] = as_stored(weight, values.contiguous(), scale, axis)
        else:
            try:
                on_device = floats.to(state[targets[0]].device)
                stored[weight] = encode_weight(weight, on_device, per_channel, held)
            except FaultsimError as error:
                raise _misfit(path, f"{key!r}: {error}") from None
        loaded |= dict.fromkeys(targets, floats)
    for key, value in state.items():
        if key in loaded:
            continue
        given = [name for name in (key, *shared.get(key, ())) if name in tensors]
        if not given:
            raise _misfit(path, f"the file holds no {key!r}, which the model needs")
        tensor = tensors[given[0]]
        used.update(given)
        if any(not torch.equal(tensor, tensors[name]) for name in given[1:]):
            raise _misfit(path, f"{key!r} differs from another tensor that the model shares it with")
        _fits(path, key, tensor, value.shape)
        if (
            tensor.dtype == torch.int8 and _scale_of(given[0]) in tensors
        ):  # selected when the file was written
            weight = Weight((nn.Module(),), ("",), (given[0],), tuple(value.shape))
            axis, scale = _scale(path, tensors, given[0], weight, used)
            tensor = dequantize(tensor, scale, axis)
        if tensor.is_floating_point() != value.is_floating_point():
            raise _misfit(path, f"{key!r} is {tensor.dtype}, the model's is {value.dtype}")
        loaded[key] = tensor
    if unknown := sorted(set(tensors) - used):
        raise _misfit(path, f"the file holds {unknown[0]!r}, which the model has not")

    parameters = {key for key, _ in model.named_parameters()}
    for key, value in loaded.items():
        variance = key.endswith("running_var")
        if not (key in parameters or variance or key.endswith("running_mean")):
            continue
        if not bool((value.abs() <= LARGEST).all()) or (variance and bool((value < 0).any())):
            raise _misfit(
                path, f"{key!r} must be finite and from {0 if variance else -LARGEST:g} to {LARGEST:g}"
            )
    before = {key: state[key].clone() for key in loaded} if None in stored.values() else {}
    with torch.no_grad():
        for key, value in loaded.items():
            state[key].copy_(value)
        try:
            # the parameters have other versions now than when the layers were made
            layers = [
                store_weight(weight, per_channel, held)
                if kept is None
                else as_stored(weight, kept.values, kept.scale, kept.axis, kept.format, kept.center)
                for weight, kept in stored.items()
            ]
        except FaultsimError as error:
            for key, value in before.items():
                state[key].copy_(value)
            raise _misfit(path, str(error)) from None
    return StoredWeights(layers, found.left_out), metadata


def _names(model: nn.Module, weight: Weight | StoredLayer) -> list[str]:
    """List every name that the model has for a weight, the first one first."""
    own = dict(zip(weight.modules, weight.attributes, strict=True))
    return [
        join_name(name, own[module])
        for name, module in model.named_modules(remove_duplicate=False)
        if module in own
    ]


def _shared(state: dict[str, Tensor]) -> dict[str, list[str]]:
    """Return the names of one and the same memory, by each of them."""
    groups: dict[object, list[str]] = {}
    for name, value in state.items():
        if value.numel() and not value.is_meta:
            groups.setdefault((value.dtype, value.data_ptr(), value.shape, value.stride()), []).append(name)
    return {name: names for names in groups.values() for name in names if len(names) > 1}


def _rounded(weight: Weight) -> bool:
    place = weight.held
    return isinstance(place, Parametrized) and place.rounds_only


def _target(path: str | PathLike[str], weight: Weight, name: str) -> str:
    """Return the entry of the model's state_dict that a weight of that name is loaded into."""
    place = weight.held
    if _rounded(weight):
        module, _, attribute = name.rpartition(".")
        return join_name(module, f"parametrizations.{attribute}.original")
    if isinstance(place, Hooked | Parametrized):
        raise _misfit(path, f"{name!r} is computed from other parameters: take that parametrization off")
    if place.is_int8:
        raise _misfit(path, f"the model's {name!r} is int8 already, in a way that only torch reads")
    return name


def _scale(
    path: str | PathLike[str], tensors: dict[str, Tensor], name: str, weight: Weight, used: set[str]
) -> tuple[int, Tensor]:
    """Return (axis, scale) of an int8 weight, from the file's tensors."""
    key = _scale_of(name)
    scale = tensors.get(key)
    used.add(key)
    channels = weight.shape[weight.axis] if weight.axis >= 0 else 1
    if scale is None or scale.dtype != torch.float32 or scale.numel() not in (1, channels):
        counts = f"1 or {channels}" if channels != 1 else "1"
        raise _misfit(path, f"{key!r} must hold {counts} float32 numbers")
    if not bool(torch.isfinite(scale).all()):
        raise _misfit(path, f"{key!r} is not finite")
    scale = scale.reshape(-1)
    return (-1, scale.reshape([])) if scale.numel() == 1 else (weight.axis, scale)


def _format_of(path: str | PathLike[str], metadata: dict[str, Any]) -> Format:
    """Return the format of the weights that a file's metadata name; int8 where they name none."""
    try:
        return Format.parse(metadata[WEIGHT_FORMAT]) if WEIGHT_FORMAT in metadata else INT8
    except FaultsimError as error:
        raise FaultsimError(f"weight file {path}: {str(error)[:200]}") from None


def _scale_of(name: str) -> str:
    return f"{name}.scale"


def _fits(path: str | PathLike[str], key: str, tensor: Tensor, shape: Sequence[int]) -> None:
    if tuple(tensor.shape) != tuple(shape):
        raise _misfit(path, f"{key!r} is {list(tensor.shape)}, the model's is {list(shape)}")


def read_file(path: str | PathLike[str]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read tensors and metadata of a safetensors file; FaultsimError when it is none."""
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


def _check_numbers(path: Path, tensors: dict[str, Tensor]) -> None:
    """Raise FaultsimError where a tensor holds NaN, or a scale makes an int8 weight larger than LARGEST.

    Infinities may be meant, for masks and ranges are buffers too; load_weights() refuses them in parameters.
    """
    for name, values in tensors.items():
        if not values.is_floating_point() or not values.numel():
            continue
        if bool(values.isnan().any()):
            raise FaultsimError(f"weight file {path}: {name!r} is not finite: it holds NaN")
        weight = tensors.get(name.removesuffix(".scale"))
        scales = name.endswith(".scale") and weight is not None and weight.dtype == torch.int8
        if scales and not bool(((values >= 0) & (values <= LARGEST / 128)).all()):
            raise FaultsimError(f"weight file {path}: {name!r} must be from 0 to {LARGEST / 128:.3g}")


def _misfit(path: str | PathLike[str], what: str) -> FaultsimError:
    return FaultsimError(f"weight file {path} doesn't fit the model: {what}")


def compute_fingerprint(model: nn.Module, stored: StoredWeights) -> str:
    """Compute the SHA-256 (hex) of everything that a model computes with: its float state and its int8 weights."""
    digest = hashlib.sha256()
    tensors = [*model.state_dict().values()]
    for layer in stored.layers:
        tensors += [layer.values, layer.scale, *([] if layer.center is None else [layer.center])]
    for tensor in tensors:
        dense = tensor.detach().cpu().contiguous()
        digest.update(f"{dense.dtype}{list(dense.shape)}".encode())
        digest.update(dense.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
