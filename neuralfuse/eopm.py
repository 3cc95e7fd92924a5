"""Expectation over perturbed models (EOPM): loss and gradient of a generator (the paper, section 2.2).

    loss = l(M(F(x)), y) + weight / N * sum of l(M_i(F(x)), y) over N perturbed models M_i

l is the cross entropy, as in the paper, or the probability of a wrong answer (neuralfuse.objective.LOSSES). M is the
base model with its int8 weights as stored, M_i the same as the i-th chip reads them. The generator runs forward and
backward once per step, because all models share F(x) and the gradient with respect to F(x) is a sum. The base model is
frozen, so each of the N + 1 models costs one forward pass and one backward pass to its input. On a GPU several models
are computed at once, because the deep layers of one model are too small to keep the GPU busy.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from faultsim.errors import FaultsimError
from faultsim.faults import TRAINING, FaultModel
from faultsim.kernel import ops
from faultsim.stored import StoredWeights

from .distributed import ALONE, Piece, Ranks
from .objective import Losses, Objective

_CHIPS = 1 << 32  # per seed
IN_FLIGHT = 4
"""Models that a GPU computes at once."""


def training_chips(seed: int, step: int | Tensor, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Compute the chips of one training step: TRAINING + seed * 2**32 + step * count, and the following ones.

    No two steps and no two seeds share a chip. Evaluations never use these chips, because their highest bit (TRAINING)
    is set.

    Parameters
    ----------
    seed
        From 0 to 2**31 - 1.
    step
        Number of the step. A tensor int64 [] on the device is read when the kernel runs, so that a captured CUDA graph
        draws new chips at every replay.
    count
        Chips per step.
    device
        Device of the result.

    Returns
    -------
    Tensor
        int64 [count], as the kernel takes them.

    Raises
    ------
    FaultsimError
        For a seed out of range, and beyond the 2**32 chips of a seed.
    """
    if not 0 <= seed < 2**31:
        raise FaultsimError(f"seed {seed} must be from 0 to 2**31 - 1")
    known = 0 if isinstance(step, Tensor) else step
    if count < 1 or known < 0 or (known + 1) * count > _CHIPS:
        raise FaultsimError(
            f"step {step} with {count} chips: at least one chip, and 2**32 in all, are needed"
        )
    first = TRAINING + (seed << 32) - (1 << 64)  # as a signed number, whose highest bit is the sign
    return torch.arange(first, first + count, device=device) + step * count


class EOPM(Objective):
    """EOPM objective: clean loss plus the mean loss over N freshly drawn perturbed models.

    See `Objective` for the common parameters. Memory is needed for the models in flight only, whatever `n_models` is.

    Parameters
    ----------
    bit_error_rate
        Fraction of failing cells in the perturbed models.
    faults
        What a failing cell does, and which memory the weights lie in. Default: independent flips.
    n_models
        N, perturbed models per step. The paper uses 10.
    divided
        Divide the images of a step among the N + 1 models, so that each image passes through one of them: the same
        expected loss for 1 / (N + 1) of the passes.
    seed
        Seed of the chips (see `training_chips`).
    in_flight
        Models that are computed at once. Default: IN_FLIGHT on a GPU, else 1.

    Raises
    ------
    FaultsimError
        For values out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        stored: StoredWeights,
        *,
        bit_error_rate: float,
        faults: FaultModel | None = None,
        n_models: int = 10,
        weight: float = 5.0,
        loss: str = "cross_entropy",
        divided: bool = False,
        seed: int = 0,
        precision: str = "float32",
        ranks: Ranks = ALONE,
        in_flight: int | None = None,
    ) -> None:
        if n_models < 1:
            raise FaultsimError(f"{n_models} perturbed models: at least 1 is needed")
        if in_flight is None:
            in_flight = IN_FLIGHT if stored.layers[0].values.device.type == "cuda" else 1
        if in_flight < 1:
            raise FaultsimError(f"{in_flight} models in flight: at least 1 is needed")
        in_flight = min(in_flight, 1 + n_models)
        super().__init__(
            model, stored, weight=weight, loss=loss, precision=precision, ranks=ranks, in_flight=in_flight
        )
        side_by_side = in_flight > 1 and self.device.type == "cuda"
        self.streams = [torch.cuda.Stream(self.device) if side_by_side else None for _ in range(in_flight)]
        self.faults = faults or FaultModel()
        self.n_models, self.divided, self.seed = n_models, divided, seed
        self.no_errors = ops.encode_rate(0.0, self.device)
        self.errors = ops.encode_rate(bit_error_rate, self.device)
        training_chips(seed, 0, n_models)  # refuse a bad seed now

    @property
    def passes(self) -> int:
        return 1 if self.divided else 1 + self.n_models

    def _bounds(self, model: int, images: int) -> tuple[int, int]:
        """Return the range of images that pass through a model: 0 is the clean one, 1 to N the perturbed ones."""
        if not self.divided:
            return 0, images
        first, last = (images * part // (1 + self.n_models) for part in (model, model + 1))
        return first, last

    def _pieces(self, images: int) -> Iterator[Piece]:
        """Yield the parts of a batch that this process computes."""
        if not self.divided:
            yield from self.ranks.pieces(1 + self.n_models, images)
            return
        for _, start, stop in self.ranks.pieces(1, images):
            for model in range(1 + self.n_models):
                first, last = self._bounds(model, images)
                if max(start, first) < min(stop, last):
                    yield Piece(model, max(start, first), min(stop, last))

    def input_gradient(self, fused: Tensor, labels: Tensor, step: int | Tensor) -> tuple[Losses, Tensor]:
        chips = training_chips(self.seed, step, self.n_models, self.device)
        pieces = list(self._pieces(len(fused)))
        sums = []
        for lane, (copy, stream) in enumerate(zip(self.copies, self.streams, strict=True)):
            with _queued_on(stream):
                leaf = self.leaf(fused)
                losses = torch.zeros(len(Losses._fields), dtype=leaf.dtype, device=self.device)
                for model, start, stop in pieces[lane :: self.in_flight]:
                    if model == 0:  # as stored: at this rate no chip has errors
                        self.memory.read(chips[:1], self.no_errors, self.faults, copy.buffers)
                    else:
                        self.memory.read(chips[model - 1 : model], self.errors, self.faults, copy.buffers)
                    copy.written()
                    first, last = self._bounds(model, len(leaf))
                    loss = self.loss_of(copy, leaf[start:stop], labels[start:stop]) / (last - first)
                    (loss if model == 0 else self.weight / self.n_models * loss).backward()
                    losses[min(model, 1)] += loss.detach()
                sums.append((losses, leaf.grad))
        for stream in self.streams:
            if stream is not None:
                torch.cuda.current_stream(self.device).wait_stream(stream)
        (clean, perturbed), gradient = (sum(parts[1:], start=parts[0]) for parts in zip(*sums, strict=True))
        return Losses(clean, perturbed / self.n_models), gradient


@contextlib.contextmanager
def _queued_on(stream: torch.cuda.Stream | None) -> Iterator[None]:
    """Run the block on another stream, after all work that is queued on the current one."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.cuda.stream(stream):
        yield
