"""Expectation over perturbed models (EOPM): the loss of a generator, and its gradient (the paper, section 2.2).

    loss = CE(M(F(x)), y) + weight / N * sum of CE(M_i(F(x)), y) over N perturbed models M_i

M is the base model with its int8 weights as they were stored, M_i the same as the i-th chip reads them. What is costly
is done once: the generator runs forward and backward one time a step, for all models share F(x) and the gradient
with respect to it is a sum. The base model is frozen, so each of the N + 1 models costs a forward pass and a backward
pass down to its input only.
"""

import torch
from torch import Tensor, nn

from faultsim import ops
from faultsim.errors import FaultsimError
from faultsim.faults import TRAINING, FaultModel
from faultsim.stored import StoredWeights

from .distributed import ALONE, Ranks
from .objective import Losses, Objective

_CHIPS = 1 << 32  # of one seed


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
    Objective. The buffers are those of one model, whatever `n_models` is.

    bit_error_rate  fraction of failing cells of the perturbed models
    faults          what a failing cell does, and where weights lie
    n_models        N, perturbed models a step (the paper takes 10)
    seed            of the chips (training_chips)

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
        seed: int = 0,
        precision: str = "float32",
        ranks: Ranks = ALONE,
    ) -> None:
        if n_models < 1:
            raise FaultsimError(f"{n_models} perturbed models: at least 1 is needed")
        super().__init__(model, stored, weight=weight, precision=precision, ranks=ranks)
        self.faults = faults or FaultModel()
        self.n_models, self.seed = n_models, seed
        self.no_errors = ops.table(0.0, self.device)
        self.errors = ops.table(bit_error_rate, self.device)
        training_chips(seed, 0, n_models)  # a bad seed is refused before anything is done

    def input_gradient(self, fused: Tensor, labels: Tensor, step: int | Tensor) -> tuple[Losses, Tensor]:
        leaf = self.leaf(fused)
        chips = training_chips(self.seed, step, self.n_models, self.device)
        losses = [torch.zeros([], dtype=leaf.dtype, device=self.device) for _ in Losses._fields]
        for model, start, stop in self.ranks.pieces(1 + self.n_models, len(leaf)):
            if model == 0:  # as it was stored: no chip has errors at this rate
                self._read(chips[:1], self.no_errors)
            else:
                self._read(chips[model - 1 : model], self.errors)
            loss = self.cross_entropy(leaf[start:stop], labels[start:stop]) / len(leaf)
            (loss if model == 0 else self.weight / self.n_models * loss).backward()
            losses[min(model, 1)] += loss.detach()
        clean, perturbed = losses
        return Losses(clean, perturbed / self.n_models), leaf.grad

    def _read(self, chip: Tensor, table: Tensor) -> None:
        """The base model computes with its weights as one chip reads them."""
        self.memory.read(chip, table, self.faults, self.buffers)
        self.written()
