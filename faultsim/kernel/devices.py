"""Which processor or GPU computes."""

import torch

from ..errors import FaultsimError
from .native import native


def choose_device(name: str = "auto") -> torch.device:
    """Choose the device that a name stands for.

    Parameters
    ----------
    name : str
        "auto" (a GPU if both torch and faultsim's kernel can use one, else the CPU), "cpu", "cuda" or "cuda:N".

    Returns
    -------
    torch.device
        With its index, for a GPU.

    Raises
    ------
    FaultsimError
        For another name, and for a GPU that is not there or that the kernel was not built for.
    """
    if name == "cpu":
        return torch.device("cpu")
    kind, _, index = name.partition(":")
    if name != "auto" and (kind != "cuda" or (index and not index.isdecimal()) or name.endswith(":")):
        raise FaultsimError(f"device {name!r}: it can be auto, cpu, cuda or cuda:N")
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    built = native().built_with_cuda()
    if name == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if gpus and built else torch.device("cpu")
    if not gpus:
        raise FaultsimError(f"device {name}: torch {torch.__version__} finds no GPU here; use the device cpu")
    if not built:
        raise FaultsimError(
            f"device {name}: faultsim's kernel was built without CUDA; use the device cpu, or install faultsim again "
            "where nvcc is found"
        )
    chosen = int(index) if index else torch.cuda.current_device()
    if chosen >= gpus:
        raise FaultsimError(f"device {name}: this machine has {gpus} GPU(s), cuda:0 to cuda:{gpus - 1}")
    return torch.device("cuda", chosen)
