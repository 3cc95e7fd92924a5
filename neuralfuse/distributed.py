"""One training run on several processes, as torchrun starts them: who computes what, and how it is summed.

The work of an EOPM step is the N + 1 models times the B images of the batch. It is divided into equal parts, one per
process, along models first, so that a process reads the weights of its own models only. The generator, which costs
little, runs on every process on the whole batch: its batch normalization sees what it would see alone. Its
backward pass is linear in the gradient of F(x), so each process takes its own share through it, and one sum of the
generator's gradients, with the losses in the same message, ends the step. All processes then hold the same bits.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

import torch
from torch import Tensor, distributed

from faultsim.errors import FaultsimError


class Piece(NamedTuple):
    """Images start to stop of the batch, passing through one model."""

    model: int
    start: int
    stop: int


@dataclass(frozen=True)
class Ranks:
    """A process among those that share a training. All start with equal parameters and the same seed."""

    rank: int = 0
    """Number of this process."""
    count: int = 1
    """Number of processes."""

    @property
    def first(self) -> bool:
        """Whether this process writes the files and reports progress."""
        return self.rank == 0

    def pieces(self, models: int, images: int) -> Iterator[Piece]:
        """Yield what this process computes of `models` times `images`.

        The processes together compute each image of each model once. Their parts differ by at most one image.
        """
        begin, end = (models * images * rank // self.count for rank in (self.rank, self.rank + 1))
        while begin < end:
            model, start = divmod(begin, images)
            stop = min(images, start + end - begin)
            yield Piece(model, start, stop)
            begin += stop - start

    def total(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Sum tensors over the processes, in one message, to the same bits on all of them.

        On a GPU nothing waits for the result. Raises FaultsimError if another process is gone.
        """
        if self.count == 1:
            return list(tensors)
        message = torch.cat([tensor.flatten() for tensor in tensors])
        self._reduce(message, distributed.ReduceOp.SUM)
        parts = message.split([tensor.numel() for tensor in tensors])
        return [part.view_as(tensor).to(tensor) for part, tensor in zip(parts, tensors, strict=True)]

    def agree(self, facts: bytes, device: torch.device, what: str) -> None:
        """Raise FaultsimError, on every process, unless all of them have the same `facts`."""
        if self.count == 1:
            return
        digest = int.from_bytes(hashlib.sha256(facts).digest()[:7])  # int64 with its sign
        extremes = torch.tensor([digest, -digest], device=device)
        self._reduce(extremes, distributed.ReduceOp.MAX)
        most, least = extremes.tolist()
        if most != -least:
            raise FaultsimError(f"the {self.count} processes of this run differ in {what}")

    def _reduce(self, tensor: Tensor, operation: "distributed.ReduceOp.RedOpType") -> None:
        try:
            distributed.all_reduce(tensor, operation)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise FaultsimError(
                f"another process of this run has ended, or cannot be reached: {reason}"
            ) from None


ALONE = Ranks()


@contextlib.contextmanager
def join(device: torch.device) -> Iterator[tuple[Ranks, torch.device]]:
    """Context manager: join the processes that torchrun started; without torchrun yields (ALONE, device).

    The processes communicate through NCCL on GPUs and Gloo on CPUs.

    Parameters
    ----------
    device
        "cpu", or "cuda" for one GPU per process.

    Yields
    ------
    tuple of Ranks and torch.device
        This process, and its own device.

    Raises
    ------
    FaultsimError
        If a machine has fewer GPUs than processes, or one GPU is named for all.
    """
    if not distributed.is_torchelastic_launched():
        yield ALONE, device
        return
    if device.type == "cuda":
        local, gpus = distributed.get_node_local_rank(), torch.cuda.device_count()
        if device.index not in (None, torch.cuda.current_device()):
            raise FaultsimError(f"{device} for all processes: with --device cuda each takes a GPU of its own")
        if local >= gpus:
            raise FaultsimError(f"more processes than GPUs: with --nproc-per-node={gpus} each has its own")
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    yield Ranks(distributed.get_rank(), distributed.get_world_size()), device
    # Deliberately skipped on error: leaving the group would make the peers fail first and report a misleading cause.
    distributed.destroy_process_group()


def find_first_to_fail() -> bool:
    """Tell whether this process is the first of its training to call this function; always true without torchrun.

    All processes find the same mistake in options, and when one fails the others lose it: one error message is enough.
    """
    if not distributed.is_torchelastic_launched():
        return True
    try:
        store, _, _ = next(distributed.rendezvous("env://", timeout=timedelta(seconds=10)))
        return store.add("faultsim/failures", 1) == 1
    except (RuntimeError, ValueError):  # the store is gone
        return True
