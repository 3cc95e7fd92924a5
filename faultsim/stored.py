"""A model's weights as they lie in memory: int8 and scales; and how a model is made to compute with other ones."""

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from . import memory, ops
from .errors import FaultsimError
from .faults import FaultModel
from .hit_table import checked_rate
from .inventory import LeftOut, Select, Weight, take_inventory, tensor_names
from .measured_chip import AnyChip, MeasuredChip
from .places import Held, at_copy, flat_in_copies, held, settle_flat, swap_copy
from .quantization import dequantize, quantize


@dataclass(frozen=True)
class StoredLayer:
    """One tensor of the memory: the weight of a layer (or of several that share it), or another parameter."""

    names: tuple[str, ...]  #: of the modules, as in named_modules()
    modules: tuple[nn.Module, ...]
    values: Tensor  #: int8, the shape of the weight
    scale: Tensor  #: float32, [] or [channels]
    axis: int  #: of the channels; -1: one scale
    attributes: tuple[str, ...] = ("weight",)  #: the tensor's name in each module
    copies: tuple[
        tuple[nn.Module, str, object], ...
    ] = ()  #: where modules keep the parameter in plain Python too
    versions: tuple[tuple[Tensor, int], ...] = field(default=(), repr=False, compare=False)
    """The parameters, and how often they had been written to when the values were taken."""

    @property
    def name(self) -> str:
        """Of the first module."""
        return self.names[0]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensor in the model, such as lstm.weight_ih_l0."""
        return tensor_names(self.names, self.attributes)

    @property
    def held(self) -> Held:
        """How the first of the modules holds it."""
        return held(self.modules[0], self.attributes[0])

    @property
    def dtype(self) -> torch.dtype:
        """Of the weight that the model computes with; float32 where that is int8 itself."""
        place = self.held
        return torch.float32 if place.is_int8 or not place.sources else place.sources[0].dtype

    def as_held(self, weights: Tensor) -> Tensor:
        """[chips, *shape] in the type and the memory format of the weight that the model computes with."""
        place = self.held
        like = next((s for s in place.sources if s.shape == self.values.shape and not place.is_int8), None)
        if like is None or like.is_contiguous():
            return weights.to(self.dtype)
        strides = torch.empty_like(like, device="meta").stride()
        out = torch.empty_strided(
            weights.shape, (self.values.numel(), *strides), dtype=self.dtype, device=weights.device
        )
        return out.copy_(weights)


class StoredWeights:
    """The int8 weights of a model, in the order in which they lie in memory."""

    def __init__(self, layers: Iterable[StoredLayer], left_out: Iterable[LeftOut] = ()) -> None:
        self.layers = tuple(layers)
        self.left_out = tuple(left_out)  #: tensors of the model that are not stored

    @classmethod
    def of(cls, model: nn.Module, per_channel: bool = False, select: Select = None) -> "StoredWeights":
        """Quantizes the weights of `model`: by default all floating-point parameters of two or more dimensions but
        biases and those of normalization; what else it holds stays in float and never fails.

        select  which tensors instead: patterns of names ("encoder.*", ["*.weight", "*.bias"]), or a function of a name
                and a tensor that says whether it lies in the memory

        They lie there in the order of named_modules(), within a module by name; one that several modules share is
        stored once, under its first name. Weights that are computed (parametrizations, weight norm, spectral norm,
        pruning) are stored as they are in evaluation mode; int8 weights of torch.ao and torchao as they are, with their
        scales. Raises FaultsimError when there is no such weight, and for one that int8 cannot hold (see
        faultsim.inventory)."""
        found = take_inventory(model, select)
        return cls((store(weight, per_channel) for weight in found.weights), found.left_out)

    def with_layers(self, layers: Iterable[StoredLayer]) -> "StoredWeights":
        """The same model's, with other values or scales."""
        return StoredWeights(layers, self.left_out)

    @property
    def bytes(self) -> int:
        """Bytes of weight memory, one a weight."""
        return sum(layer.values.numel() for layer in self.layers)

    @property
    def float_bytes(self) -> int:
        """Bytes of the weights that one chip reads, in the types that the model computes with."""
        return sum(layer.values.numel() * layer.dtype.itemsize for layer in self.layers)

    @property
    def share(self) -> memory.Share:
        """How many of the model's weights lie in the memory: "x of y weights ..."."""
        return memory.share((layer.values.numel() for layer in self.layers), self.left_out)

    def summary(self, faults: FaultModel | None = None) -> memory.Summary:
        """Each tensor with its shape, bytes, arrays and address in the memory of `faults`, and what isn't stored, and
        why. Printed it is a table."""
        return memory.summarize(
            [(layer.tensors, tuple(layer.values.shape)) for layer in self.layers], self.left_out, faults
        )

    def check(self, model: nn.Module) -> None:
        """FaultsimError unless these are the weights of `model`, as they are now."""
        modules = set(model.modules())
        for layer in self.layers:
            if not modules.issuperset(layer.modules):
                raise FaultsimError(
                    f"the stored weights belong to another model, whose {layer.tensors[0]} this one has not: store "
                    "its own with StoredWeights.of(model), also after copying it"
                )
            for parameter, version in layer.versions:
                if parameter._version != version:
                    raise FaultsimError(
                        f"{layer.tensors[0]} was changed after it was stored: use StoredWeights.of(model) again"
                    )
                if parameter.device != layer.values.device:
                    raise FaultsimError(
                        f"{layer.tensors[0]} was stored on {layer.values.device} and is on {parameter.device} now: "
                        "use StoredWeights.of(model) again"
                    )

    def bases(self, model: FaultModel) -> list[int]:
        """Address of each layer's first weight."""
        return model.memory.bases([layer.values.numel() for layer in self.layers])

    def empty(self, chips: int, dtype: torch.dtype | None = None) -> list[Tensor]:
        """Room for read(): one tensor [chips, *shape] a layer, in `dtype` (float32, bfloat16 or float16) or the one
        that the layer computes with; float32 for layers in float64."""
        return [
            torch.empty(
                [chips, *layer.values.shape],
                dtype=dtype or (layer.dtype if layer.dtype in ops.FLOATS else torch.float32),
                device=layer.values.device,
            )
            for layer in self.layers
        ]

    def read(
        self,
        chips: Tensor,
        table: Tensor,
        model: FaultModel,
        out: Sequence[Tensor],
        access: Tensor | None = None,
    ) -> None:
        """What chips read, dequantized, into `out` (from empty()). `chips` and `table` as for faultsim.ops: nothing
        here waits for the device, and a CUDA graph can hold it."""
        for layer, base, target in zip(self.layers, self.bases(model), out, strict=True):
            torch.ops.faultsim.corrupt_dequantize_out(
                layer.values,
                layer.scale,
                layer.axis,
                target,
                chips,
                table,
                ops.rule(model),
                ops.place(model, base),
                access=access,
            )

    def read_chips(
        self,
        chips: Sequence[AnyChip],
        bit_error_rate: float | None,
        voltage: float | None,
        model: FaultModel,
        access: int = 0,
    ) -> list[Tensor]:
        """The same for Chip objects (at a bit error rate) or MeasuredChip objects (at a voltage): one tensor
        [len(chips), *shape] a layer, in the type and memory format that the layer computes with."""
        out = self.empty(len(chips))
        if all(isinstance(chip, MeasuredChip) for chip in chips):
            for layer, base, target in zip(self.layers, self.bases(model), out, strict=True):
                for i, chip in enumerate(chips):
                    values = chip.read(layer.values, voltage, model, base)
                    target[i] = dequantize(values, layer.scale, layer.axis)
            return self._as_held(out)
        device = self.layers[0].values.device
        self.read(
            ops.seeds(chips, device),
            ops.table(checked_rate(bit_error_rate), device),
            model,
            out,
            torch.tensor([access], device=device) if access else None,
        )
        return self._as_held(out)

    def _as_held(self, weights: list[Tensor]) -> list[Tensor]:
        return [layer.as_held(weight) for layer, weight in zip(self.layers, weights, strict=True)]

    @contextlib.contextmanager
    def replaced(self, weights: Sequence[Tensor], straight_through: bool = False) -> Iterator[None]:
        """The model computes with `weights` (one tensor a layer, which may require a gradient, and gets it) while this
        lasts; then with its own parameters again, the very same objects, which nobody has written to.
        `straight_through`: gradients of `weights` go to the model's own parameters."""
        with contextlib.ExitStack() as undo:
            for layer, weight in zip(self.layers, weights, strict=True):
                for module, attribute in zip(layer.modules, layer.attributes, strict=True):
                    held(module, attribute).swap(weight, undo, straight_through)
                for module, attribute, key in layer.copies:
                    swap_copy(module, attribute, key, weight, undo, straight_through)
            yield

    def copy(self, model: nn.Module, weights: Sequence[Tensor]) -> nn.Module:
        """A copy of `model` with `weights` (one tensor a layer) as ordinary parameters, also where the model's are
        computed."""
        memo: dict[int, object] = {}
        for module in model.modules():
            memo.update(flat_in_copies(module))
        settled = []
        for layer, weight in zip(self.layers, weights, strict=True):
            place = layer.held
            trains = all(source.requires_grad for source in place.sources) and bool(place.sources)
            own = nn.Parameter(weight.clone(memory_format=torch.preserve_format), requires_grad=trains)
            settled.append(own)
            for module, attribute in zip(layer.modules, layer.attributes, strict=True):
                memo.update(held(module, attribute).in_copies(own))
            for module, attribute, key in layer.copies:
                container, at = at_copy(module, attribute, key)
                memo[id(container[at])] = own
        copied = copy.deepcopy(model, memo)
        for layer, own in zip(self.layers, settled, strict=True):
            for module, attribute in zip(layer.modules, layer.attributes, strict=True):
                held(memo[id(module)], attribute).settle(own)
        for module in copied.modules():
            settle_flat(module)
        return copied


def store(weight: Weight, per_channel: bool) -> StoredLayer:
    """One weight of a model, quantized; FaultsimError, naming it, where that cannot be."""
    place = weight.held
    try:
        values, scale, axis = place.int8 if place.is_int8 else _quantized(weight, place, per_channel)
    except FaultsimError as error:
        named = (
            weight.tensors[0] if weight.attributes[0] != "weight" else weight.names[0] or "(the model itself)"
        )
        raise FaultsimError(f"layer {named}: {error}") from None
    return as_stored(weight, values.contiguous(), scale, axis)


def as_stored(weight: Weight, values: Tensor, scale: Tensor, axis: int) -> StoredLayer:
    """One weight of a model with its int8 values and scale, which go to the device of the model."""
    sources = weight.held.sources
    device = sources[0].device if sources else values.device
    versions = tuple((source, source._version) for source in sources if not source.is_inference())
    places = weight.names, weight.modules
    kept = weight.attributes, weight.copies, versions
    return StoredLayer(*places, values.to(device), scale.to(device), axis, *kept)


def _quantized(weight: Weight, place: Held, per_channel: bool) -> tuple[Tensor, Tensor, int]:
    axis = weight.axis if per_channel else -1
    return *quantize(place.value(), axis), axis
