"""Expectation over perturbed models (EOPM): the loss of a generator, and its gradient (the paper, section 2.2).

    loss = l(M(F(x)), y) + weight / N * sum of l(M_i(F(x)), y) over N perturbed models M_i

l is the cross entropy, as in the paper, or the probability of a wrong answer (LOSSES of neuralfuse.objective). M is the
base model with its int8 weights as they were stored, M_i the same as the i-th chip reads them. What is costly
is done once: the generator runs forward and backward one time a step, for all models share F(x) and the gradient
with respect to it is a sum. The base model is frozen, so each of the N + 1 models costs a forward pass and a backward
pass down to its input only. On a GPU a few of these are in flight at once, for the deep layers of one are too small to
keep it busy.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from faultsim import ops
from faultsim.errors import FaultsimError
from faultsim.faults import TRAINING, FaultModel
from faultsim.stored import StoredWeights

from .distributed import ALONE, Piece, Ranks
from .objective import Losses, Objective

_CHIPS = 1 << 32  # of one seed
IN_FLIGHT = 4
"""Models that a GPU computes side by side."""


def training_chips(seed: int, step: int | Tensor, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Chips of one training step, int64 [count] as the kernel wants them: TRAINING + seed * 2**32 + step * count, ...

    A pure function of its arguments, made on the device; the step's number may lie there too (int64 []), and is then
    read when the work is done: a captured CUDA graph draws new chips at each replay. No two steps share a chip, nor do
    two seeds, and no evaluation ever draws one of them (their highest bit, TRAINING, is set). Raises FaultsimError
    unless 0 <= seed < 2**31 and, for a step that is no tensor, the stream, of 2**32 chips, reaches that far.
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
    """The base model, clean and on ever new chips, as the loss of a generator sees it; what isn't said here stands in
    Objective. The buffers are those of the models in flight, however large `n_models` is.

    bit_error_rate  fraction of failing cells of the perturbed models
    faults          what a failing cell does, and where weights lie
    n_models        N, perturbed models a step (the paper takes 10)
    divided         whether the images of a step are divided among the N + 1 models, so that each image passes through
                    one of them, instead of all images through each: the same loss in expectation, for 1 / (N + 1) of
                    the passes
    seed            of the chips (training_chips)
    in_flight       models computed side by side; None: IN_FLIGHT on a GPU, else 1

    Raises FaultsimError for values out of range.
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
        training_chips(seed, 0, n_models)  # a bad seed is refused before anything is done

    @property
    def passes(self) -> int:
        return 1 if self.divided else 1 + self.n_models

    def _bounds(self, model: int, images: int) -> tuple[int, int]:
        """The images of a batch that pass through a model, of 0, the clean one, to N."""
        if not self.divided:
            return 0, images
        first, last = (images * part // (1 + self.n_models) for part in (model, model + 1))
        return first, last

    def _pieces(self, images: int) -> Iterator[Piece]:
        """What this process computes of a batch."""
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
                    if model == 0:  # as it was stored: no chip has errors at this rate
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
    """What is done inside goes to another stream, behind all that the current one was given before."""
    if stream is None:
        yield
        return
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    with torch.cuda.stream(stream):
        yield
