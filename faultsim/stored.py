"""A model's weights as they lie in memory: int8 and scales; and how a model is made to compute with other ones."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from . import ops
from .draw import checked_rate
from .errors import FaultsimError
from .faultmap import MeasuredChip
from .faults import Chip, FaultModel
from .quantization import WEIGHT_MODULES, channel_axis, dequantize, owners, quantize


@dataclass(frozen=True)
class StoredLayer:
    """The weight of one layer (or of several that share it)."""

    names: tuple[str, ...]  #: of the modules, as in named_modules()
    modules: tuple[nn.Module, ...]
    values: Tensor  #: int8, the shape of the weight
    scale: Tensor  #: float32, [] or [channels]
    axis: int  #: of the channels; -1: one scale

    @property
    def name(self) -> str:
        """Of the first module."""
        return self.names[0]

    @property
    def dtype(self) -> torch.dtype:
        """Of the weight that the model computes with."""
        module = self.modules[0]
        if parametrize.is_parametrized(module, "weight"):
            return next(module.parametrizations.weight.parameters(recurse=False)).dtype
        return module.weight.dtype


class _Replace(nn.Module):
    """A last parametrisation that returns another tensor, for weights that are computed from parameters."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        object.__setattr__(self, "weight", weight)  # not a buffer: nothing is to be saved or moved

    def forward(self, _: Tensor) -> Tensor:
        return self.weight


class StoredWeights:
    """The int8 weights of a model, in the order in which they lie in memory."""

    def __init__(self, layers: Iterable[StoredLayer]) -> None:
        self.layers = tuple(layers)

    @classmethod
    def of(cls, model: nn.Module, per_channel: bool = False) -> "StoredWeights":
        """Quantises the weights of all convolutions, linear layers and embeddings of `model`, in the order of
        named_modules(). A weight that several layers share is stored once. What else a model holds (normalisation,
        biases, free parameters) stays in float and never fails. Raises FaultsimError when there is no such layer."""
        layers: dict[tuple[int, ...], StoredLayer] = {}
        for name, module in model.named_modules():
            if not isinstance(module, WEIGHT_MODULES):
                continue
            if "weight" not in module._parameters and not parametrize.is_parametrized(module, "weight"):
                raise FaultsimError(
                    f"layer {_named(name)}: its weight is no parameter but computed before each call (torch's pruning, "
                    "or weight norm of the old kind): make it permanent, for instance with torch.nn.utils.prune.remove"
                )
            key = owners(module)
            if key in layers:
                shared = layers[key]
                layers[key] = replace(shared, names=(*shared.names, name), modules=(*shared.modules, module))
                continue
            axis = channel_axis(module) if per_channel else -1
            try:
                values, scale = quantize(module.weight, axis)
            except FaultsimError as error:
                raise FaultsimError(f"layer {_named(name)}: {error}") from None
            layers[key] = StoredLayer((name,), (module,), values.contiguous(), scale, axis)
        if not layers:
            raise FaultsimError(
                "the model has no convolution, linear or embedding layer: there are no weights to store in memory"
            )
        return cls(layers.values())

    @property
    def bytes(self) -> int:
        """Bytes of weight memory, one a weight."""
        return sum(layer.values.numel() for layer in self.layers)

    @property
    def float_bytes(self) -> int:
        """Bytes of the weights that one chip reads, in the types that the model computes with."""
        return sum(layer.values.numel() * layer.dtype.itemsize for layer in self.layers)

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
        """What chips read, dequantised, into `out` (from empty()). `chips` and `table` as for faultsim.ops: nothing
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
        chips: Sequence[Chip | MeasuredChip],
        bit_error_rate: float | None,
        voltage: float | None,
        model: FaultModel,
        access: int = 0,
    ) -> list[Tensor]:
        """The same for Chip objects (at a bit error rate) or MeasuredChip objects (at a voltage): one tensor
        [len(chips), *shape] a layer, in the type that the layer computes with."""
        out = self.empty(len(chips))
        if all(isinstance(chip, MeasuredChip) for chip in chips):
            for layer, base, target in zip(self.layers, self.bases(model), out, strict=True):
                for i, chip in enumerate(chips):
                    values = chip.read(layer.values, voltage, model, base)
                    target[i] = dequantize(values, layer.scale, layer.axis)
            return self._in_own_types(out)
        device = self.layers[0].values.device
        self.read(
            ops.seeds(chips, device),
            ops.table(checked_rate(bit_error_rate), device),
            model,
            out,
            torch.tensor([access], device=device) if access else None,
        )
        return self._in_own_types(out)

    def _in_own_types(self, weights: list[Tensor]) -> list[Tensor]:
        return [weight.to(layer.dtype) for layer, weight in zip(self.layers, weights, strict=True)]

    @contextlib.contextmanager
    def replaced(self, weights: Sequence[Tensor]) -> Iterator[None]:
        """The model computes with `weights` (one tensor a layer, which may require a gradient, and gets it) while this
        lasts; then with its own parameters again, the very same objects, which nobody has written to."""
        with contextlib.ExitStack() as undo:
            for layer, weight in zip(self.layers, weights, strict=True):
                for module in layer.modules:
                    if parametrize.is_parametrized(module, "weight"):
                        chain = module.parametrizations.weight
                        last = str(len(chain))
                        chain.add_module(last, _Replace(weight))
                        undo.callback(chain._modules.pop, last)
                    else:
                        own = module._parameters["weight"]
                        undo.callback(module._parameters.__setitem__, "weight", own)
                        module._parameters["weight"] = weight
            yield


def _named(layer: str) -> str:
    return layer or "(the model itself)"
