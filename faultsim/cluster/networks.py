"""Networks and their stored weights as values that travel: a function makes the network anew, tensors fill it."""

from collections.abc import Mapping
from dataclasses import dataclass
from glob import escape

import torch
from torch import Tensor, nn

from ..errors import FaultsimError
from ..fault_aware import FaultAwareWeights
from ..formats import Format
from ..mitigations import MemoryMitigation, ProtectedWeights
from ..network.architecture import Architecture
from ..network.inventory import join_name, take_inventory
from ..stored import StoredWeights, as_stored
from ..voltage import VoltageCurve


@dataclass(frozen=True)
class PackedNetwork:
    """A network with all that its state_dict holds."""

    architecture: Architecture
    state: Mapping[str, Tensor]

    @classmethod
    def of(cls, architecture: Architecture, network: nn.Module) -> "PackedNetwork":
        """Pack a network; FaultsimError for weights that no file can hold."""
        state = network.state_dict()
        odd = [name for name, value in state.items() if not isinstance(value, Tensor) or value.is_quantized]
        if odd:
            raise FaultsimError(f"{odd[0]} cannot be sent to workers: it is no plain tensor")
        return cls(architecture, state)

    def build(self, device: torch.device | str = "cpu") -> nn.Module:
        """Make the network. On a CPU its weights stay in the memory that `state` lies in, where that is possible."""
        network = self.architecture.build()
        own = network.state_dict()
        if own.keys() != self.state.keys():
            differing = sorted(own.keys() ^ self.state.keys())[0]
            raise FaultsimError(
                f"{self.architecture.function} makes another network on this worker: {differing}"
            )
        places = [value.data_ptr() for value in own.values() if value.numel()]
        plain = len(set(places)) == len(places) and all(value.is_contiguous() for value in own.values())
        network.load_state_dict(self.state, assign=plain)
        return network.to(device)


@dataclass(frozen=True)
class PackedLayer:
    """One tensor of the weight memory."""

    name: str
    values: Tensor
    scale: Tensor
    axis: int
    format: Format
    center: Tensor | None


@dataclass(frozen=True)
class PackedWeights:
    """Weights as they lie in a memory, perhaps with a mitigation, or written for each chip."""

    layers: tuple[PackedLayer, ...]
    mitigation: MemoryMitigation | None = None
    curve: VoltageCurve | None = None
    fault_aware: bool = False

    @classmethod
    def of(cls, stored: StoredWeights, network: nn.Module) -> "PackedWeights":
        """Pack the stored weights of a network, under their names in it."""
        names = {module: name for name, module in network.named_modules()}
        layers = tuple(
            PackedLayer(
                join_name(names[one.modules[0]], one.attributes[0]),
                one.values,
                one.scale,
                one.axis,
                one.format,
                one.center,
            )
            for one in stored.layers
        )
        if isinstance(stored, ProtectedWeights):
            return cls(layers, stored.mitigation, stored.curve)
        return cls(layers, fault_aware=isinstance(stored, FaultAwareWeights))

    def store(self, network: nn.Module) -> StoredWeights:
        """Return the stored weights of a network."""
        given = {layer.name: layer for layer in self.layers}
        chosen = [escape(name) for name in given]
        found = {one.tensors[0]: one for one in take_inventory(network, chosen).weights}
        if list(found) != list(given):
            raise FaultsimError(
                "this worker finds other weights in the network: is its code another version?"
            )
        layers = [
            as_stored(found[name], one.values, one.scale, one.axis, one.format, one.center)
            for name, one in given.items()
        ]
        stored = StoredWeights(layers)
        if self.fault_aware:
            return FaultAwareWeights(stored)
        return stored if self.mitigation is None else ProtectedWeights(stored, self.mitigation, self.curve)
