"""What a benchmark runs on: a network with random weights, and random images."""

import torch
from torch import Tensor, nn

from .. import models
from ..data.dataset import SIDE


def create_random(
    model: str, images: int, batch_size: int, device: torch.device | str = "cpu"
) -> tuple[nn.Module, list[tuple[Tensor, Tensor]]]:
    """Create a network with random weights, and random images for it; the same ones at every call.

    Parameters
    ----------
    model : str
        One of faultsim.models.NAMES, or package.module:function.
    images : int
        How many images.
    batch_size : int
        Images of one batch; the last one may hold fewer.
    device : torch.device or str
        Where they are.

    Returns
    -------
    network : nn.Module
        The network.
    batches : list of (inputs, labels)
        float32 [B, 3, 32, 32] in [-1, 1], and int64 [B] from 0 to 9.
    """
    torch.manual_seed(0)
    network = models.resolve(model).to(device)
    sizes = [min(batch_size, images - start) for start in range(0, images, batch_size)]
    return network, [
        (
            torch.rand(size, 3, SIDE, SIDE, device=device) * 2 - 1,
            torch.randint(0, 10, [size], device=device),
        )
        for size in sizes
    ]
