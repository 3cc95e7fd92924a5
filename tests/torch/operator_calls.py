"""What the tests of the operators share: weights, and the arguments of a call."""

import torch

from faultsim.faults import FaultModel
from faultsim.kernel import ops

CALL = torch.ops.faultsim
FLIP = FaultModel()


def arguments(device: str = "cpu", seeds=(1, 2), rate: float = 1e-2, model: FaultModel = FLIP, base: int = 0):
    return (
        ops.encode_chips(seeds, device),
        ops.encode_rate(rate, device),
        ops.encode_kind(model),
        ops.encode_addresses(model, base),
    )


def numbers(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """offset and access"""
    return torch.tensor([3], device=device), torch.tensor([4], device=device)


def weights_of(*shape: int, device: str = "cpu") -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-128, 128, shape, dtype=torch.int8, generator=generator).to(device)
