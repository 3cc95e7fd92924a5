"""A model's weights as they lie in memory, by default int8 with scales, and how the model computes with other ones."""

import contextlib
import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from . import memory
from .chips.measured_chip import AnyChip, MeasuredChip
from .domains import check_domains
from .errors import FaultsimError
from .faults import FaultModel
from .formats import INT8, AnyFormat, Format, Grid, as_format
from .kernel import ops
from .network.inventory import LeftOut, Select, Weight, join_names, take_inventory
from .network.places import Held, find_held, locate_copy, swap_copy
from .network.torch_internals import memo_flat_weights, rebuild_flat_weights
from .reading import read_decoded, read_measured_decoded


@dataclass(frozen=True)
class StoredLayer:
    """One tensor in the memory: the weight of a layer (or of several that share it), or another parameter."""

    names: tuple[str, ...]
    """Names of the modules that hold it, as in named_modules()."""
    modules: tuple[nn.Module, ...]
    """The modules that hold it."""
    values: Tensor
    """The codes that the memory holds, in the shape of the tensor; int8 for the format int8."""
    scale: Tensor
    """Weight = value * scale (+ center); float32, [] or [channels]."""
    axis: int
    """Dimension of the channels; -1: there is one scale."""
    attributes: tuple[str, ...] = ("weight",)
    """The tensor's name in each module."""
    copies: tuple[tuple[nn.Module, str, object], ...] = ()
    """Where modules also keep the parameter in plain Python: (module, attribute, key)."""
    versions: tuple[tuple[Tensor, int], ...] = field(default=(), repr=False, compare=False)
    """The parameters, and how often each had been written to when the values were taken."""
    format: Format = INT8
    """What the bits of a weight mean, and how weights lie in a word."""
    center: Tensor | None = None
    """Of asymmetric formats, as `scale`."""

    @property
    def name(self) -> str:
        """Name of the first module."""
        return self.names[0]

    @property
    def tensors(self) -> tuple[str, ...]:
        """Names of the tensor in the model, such as lstm.weight_ih_l0."""
        return join_names(self.names, self.attributes)

    @property
    def held(self) -> Held:
        """How the first of the modules holds it."""
        return find_held(self.modules[0], self.attributes[0])

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weight that the model computes with; float32 where that is int8 itself."""
        place = self.held
        return torch.float32 if place.is_int8 or not place.sources else place.sources[0].dtype

    @property
    def bytes(self) -> int:
        """Bytes of memory."""
        count = self.values.numel()
        return count if self.format == INT8 else self.format.image_bytes(count)

    @cached_property
    def image(self) -> Tensor:
        """The bytes of memory, int8: for the format int8 the values themselves, else [bytes], in whole words."""
        return self.values if self.format == INT8 else self.format.pack(self.values).view(torch.int8)

    def with_image(self, image: Tensor) -> "StoredLayer":
        """Return the tensor with other bytes in its memory."""
        values = image if self.format == INT8 else self.format.unpack(image, self.values.shape)
        return replace(self, values=values)

    def decode(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weights that the values stand for, in float32, bfloat16 or float16."""
        return self.format.decode(self.values, self.grid, dtype)

    @property
    def grid(self) -> Grid:
        """The scale and the center as a Grid, which broadcasts."""
        spread = [-1 if d == self.axis else 1 for d in range(self.values.dim())] if self.axis >= 0 else []
        center = None if self.center is None else self.center.reshape(spread)
        return Grid(self.scale.reshape(spread), center, self.axis)

    def as_held(self, weights: Tensor) -> Tensor:
        """Convert weights [chips, *shape] to the type and memory format of the one that the model computes with."""
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
    """The weights of a model, by default int8, in the order in which they lie in memory.

    `len(stored)` is the number of tensors. `print(stored.summary())` lists them.
    """

    def __init__(self, layers: Iterable[StoredLayer], left_out: Iterable[LeftOut] = ()) -> None:
        self.layers = tuple(layers)
        """The tensors in the memory, in the order of their addresses."""
        self.left_out = tuple(left_out)
        """Tensors of the model that are not stored, and why."""

    def __len__(self) -> int:
        return len(self.layers)

    def __repr__(self) -> str:
        return f"StoredWeights({len(self)} tensors; {self.share})"

    def _repr_html_(self) -> str:
        """Show summary() in a notebook."""
        return self.summary()._repr_html_()

    @classmethod
    def of(
        cls,
        model: nn.Module,
        per_channel: bool = False,
        select: Select = None,
        format: AnyFormat = INT8,
    ) -> "StoredWeights":
        """Store the weights of a model.

        Parameters
        ----------
        model
            Any module. It is not changed.
        per_channel
            One scale for each output channel. Default: one for each tensor, as in the paper.
        select
            Which tensors lie in the memory: patterns of names ("encoder.*", ["*.weight", "*.bias"]), or a function of
            name and tensor. Default: all floating-point parameters of two or more dimensions but biases and those of
            normalization.
        format
            What a stored weight is, or its name, such as "int4" or "bfloat16" (see `faultsim.formats`).

        Returns
        -------
        StoredWeights
            In the order of named_modules(), within a module by name. A tensor that several modules share is stored
            once, under its first name. Weights that are computed (parametrizations, weight norm, spectral norm,
            pruning) are stored as they are in evaluation mode, and int8 weights of torch.ao and torchao with their own
            scales.

        Raises
        ------
        FaultsimError
            Where there is no such weight, for one that the format cannot hold (see `faultsim.network.inventory`), and
            for `per_channel` with a format that has no scale.
        """
        found, stored = take_inventory(model, select), as_format(format)
        return cls((store_weight(weight, per_channel, stored) for weight in found.weights), found.left_out)

    def with_layers(self, layers: Iterable[StoredLayer]) -> "StoredWeights":
        """Return the weights of the same model with other values or scales."""
        return StoredWeights(layers, self.left_out)

    @property
    def format(self) -> Format:
        """What a stored weight is."""
        return self.layers[0].format

    @property
    def bytes(self) -> int:
        """Bytes of weight memory."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def float_bytes(self) -> int:
        """Bytes of the weights that one chip reads, in the types that the model computes with."""
        return sum(layer.values.numel() * layer.dtype.itemsize for layer in self.layers)

    @property
    def share(self) -> memory.Share:
        """How many of the model's weights lie in the memory."""
        return memory.measure_share((layer.values.numel() for layer in self.layers), self.left_out)

    def summary(self, faults: FaultModel | None = None) -> memory.Summary:
        """List each tensor with its shape, bytes, arrays and address in the memory of `faults`, and what is not stored.

        The summary is a table when it is printed or shown in a notebook.
        """
        return memory.summarize(
            [(layer.tensors, tuple(layer.values.shape)) for layer in self.layers],
            self.left_out,
            faults,
            self.format,
        )

    def check(self, model: nn.Module) -> None:
        """Raise FaultsimError unless these are the weights of `model`, as they are now."""
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

    def check_domains(self, faults: FaultModel) -> None:
        """Raise FaultsimError for a voltage domain that matches no tensor, or has bits that these weights lack."""
        check_domains(faults.domains, [layer.tensors for layer in self.layers], self.format.width)

    def bases(self, faults: FaultModel) -> list[int]:
        """Return the address of each tensor's first weight."""
        return faults.memory.bases([layer.bytes for layer in self.layers])

    def empty(self, chips: int, dtype: torch.dtype | None = None) -> list[Tensor]:
        """Allocate the output of read(): one tensor [chips, *shape] for each in the memory.

        `dtype` is float32, bfloat16 or float16. Default: the type that the layer computes with (float32 for float64).
        """
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
        faults: FaultModel,
        out: Sequence[Tensor],
        access: Tensor | None = None,
    ) -> None:
        """Write what chips read, decoded, into `out` (from empty()).

        `chips` and `table` are those of `faultsim.kernel.ops`. Nothing here waits for the device: a CUDA graph can
        capture it.
        """
        for layer, base, target in zip(self.layers, self.bases(faults), out, strict=True):
            read_decoded(layer, chips, table, faults, base, access, target)

    def read_chips(
        self,
        chips: Sequence[AnyChip],
        bit_error_rate: float | None,
        voltage: float | None,
        faults: FaultModel,
        access: int = 0,
    ) -> list[Tensor]:
        """Return what chips read, decoded.

        Parameters
        ----------
        chips
            All simulated (at a bit error rate) or all measured (at a voltage).
        bit_error_rate, voltage
            The one that the chips need.
        faults
            Kind of fault and memory.
        access
            Which read it is (transient faults).

        Returns
        -------
        list[Tensor]
            One [len(chips), *shape] for each tensor in the memory, in the type and memory format that the layer
            computes with.
        """
        out = self.empty(len(chips))
        measured = [chip for chip in chips if isinstance(chip, MeasuredChip)]
        if len(measured) == len(chips):
            for layer, base, target in zip(self.layers, self.bases(faults), out, strict=True):
                for i, chip in enumerate(measured):
                    read_measured_decoded(layer, chip, voltage, faults, base, target[i])
            return self._as_held(out)
        device = self.layers[0].values.device
        self.read(
            ops.encode_chips(chips, device),
            ops.encode_rate(bit_error_rate, device),
            faults,
            out,
            ops.encode_access(access, device),
        )
        return self._as_held(out)

    def _as_held(self, weights: list[Tensor]) -> list[Tensor]:
        return [layer.as_held(weight) for layer, weight in zip(self.layers, weights, strict=True)]

    @contextlib.contextmanager
    def replaced(self, weights: Sequence[Tensor], straight_through: bool = False) -> Iterator[None]:
        """Run the model with other weights inside a `with` block.

        Afterwards the model has its own Parameter objects again; nobody has written to them.

        Parameters
        ----------
        weights
            One for each tensor in the memory. They may require gradients, and get them.
        straight_through
            Gradients go to the model's own parameters instead.
        """
        with contextlib.ExitStack() as undo:
            for layer, weight in zip(self.layers, weights, strict=True):
                for module, attribute in zip(layer.modules, layer.attributes, strict=True):
                    find_held(module, attribute).swap(weight, undo, straight_through)
                for module, attribute, key in layer.copies:
                    swap_copy(module, attribute, key, weight, undo, straight_through)
            yield

    def copy(self, model: nn.Module, weights: Sequence[Tensor]) -> nn.Module:
        """Copy `model` with `weights`, one for each tensor in the memory, as ordinary parameters.

        They are ordinary parameters also where the model's own are computed.
        """
        memo: dict[int, Any] = {}
        for module in model.modules():
            memo.update(memo_flat_weights(module))
        settled = []
        for layer, weight in zip(self.layers, weights, strict=True):
            place = layer.held
            trains = all(source.requires_grad for source in place.sources) and bool(place.sources)
            own = nn.Parameter(weight.clone(memory_format=torch.preserve_format), requires_grad=trains)
            settled.append(own)
            for module, attribute in zip(layer.modules, layer.attributes, strict=True):
                memo.update(find_held(module, attribute).in_copies(own))
            for module, attribute, key in layer.copies:
                container, at = locate_copy(module, attribute, key)
                memo[id(container[at])] = own
        copied = copy.deepcopy(model, memo)
        for layer, own in zip(self.layers, settled, strict=True):
            for module, attribute in zip(layer.modules, layer.attributes, strict=True):
                find_held(memo[id(module)], attribute).settle(own)
        for module in copied.modules():
            rebuild_flat_weights(module)
        return copied


def store_weight(weight: Weight, per_channel: bool, stored: Format = INT8) -> StoredLayer:
    """Store one weight of a model; FaultsimError, naming it, where that cannot be."""
    place = weight.held
    try:
        if not place.is_int8:
            return encode_weight(weight, place.value(), per_channel, stored)
        if stored != INT8:
            raise FaultsimError(f"it is int8 already and cannot be stored as {stored}")
        values, scale, axis = place.int8
    except FaultsimError as error:
        named = (
            weight.tensors[0] if weight.attributes[0] != "weight" else weight.names[0] or "(the model itself)"
        )
        raise FaultsimError(f"layer {named}: {error}") from None
    return as_stored(weight, values.contiguous(), scale, axis)


def encode_weight(weight: Weight, values: Tensor, per_channel: bool, stored: Format) -> StoredLayer:
    """Store floating-point values as one weight of a model; FaultsimError where that cannot be."""
    axis = weight.axis if per_channel else -1
    codes, grid = stored.encode(values, axis)
    shape = [-1] if axis >= 0 else []
    center = None if grid.center is None else grid.center.reshape(shape)
    return as_stored(weight, codes.contiguous(), grid.scale.reshape(shape), axis, stored, center)


def as_stored(
    weight: Weight,
    values: Tensor,
    scale: Tensor,
    axis: int,
    stored: Format = INT8,
    center: Tensor | None = None,
) -> StoredLayer:
    """Return one weight of a model with given codes and scale, on the device of the model."""
    sources = weight.held.sources
    device = sources[0].device if sources else values.device
    versions = tuple((source, source._version) for source in sources if not source.is_inference())
    return StoredLayer(
        names=weight.names,
        modules=weight.modules,
        values=values.to(device),
        scale=scale.to(device),
        axis=axis,
        attributes=weight.attributes,
        copies=weight.copies,
        versions=versions,
        format=stored,
        center=None if center is None else center.to(device),
    )
