"""Expectation over perturbed models (EOPM): the loss of a generator, and its gradient (the paper, section 2.2).

    loss = CE(M(F(x)), y) + weight / N * sum of CE(M_i(F(x)), y) over N perturbed models M_i

M is the base model with its int8 weights as they were stored, M_i the same as the i-th chip reads them. What is costly
is done once: the generator runs forward and backward one time a step, for all models share F(x) and the gradient
with respect to it is a sum. The base model is frozen, so each of the N + 1 models costs a forward pass and a backward
pass down to its input only.
"""

import contextlib
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from faultsim import ops
from faultsim.errors import FaultsimError
from faultsim.faults import TRAINING, FaultModel
from faultsim.stored import StoredWeights

from .distributed import ALONE, Ranks

PRECISIONS = ("float32", "bfloat16")
_CHIPS = 1 << 32  # of one seed


def training_chips(seed: int, step: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """Chips of one training step, int64 [count] as the kernel wants them: TRAINING + seed * 2**32 + step * count, ...

    A pure function of its arguments, made on the device. No two steps share a chip, nor do two seeds, and no
    evaluation ever draws one of them (their highest bit, TRAINING, is set). Raises FaultsimError unless
    0 <= seed < 2**31 and the stream, of 2**32 chips, reaches that far.
    """
    if not 0 <= seed < 2**31:
        raise FaultsimError(f"seed {seed} must be from 0 to 2**31 - 1")
    first = step * count
    if count < 1 or step < 0 or first + count > _CHIPS:
        raise FaultsimError(
            f"step {step} with {count} chips: at least one chip, and 2**32 in all, are needed"
        )
    start = TRAINING + (seed << 32) + first - (1 << 64)  # as a signed number, whose highest bit is the sign
    return torch.arange(start, start + count, device=device)


class Losses(NamedTuple):
    """Of one step; tensors [] on the device, so that nobody has to wait for them."""

    clean: Tensor  #: cross entropy of the base model without bit errors
    perturbed: Tensor  #: mean cross entropy of the perturbed models


class EOPM:
    """The base model, clean and on ever new chips, as the loss of a generator sees it:

        with EOPM(model, stored, bit_error_rate=0.01) as eopm:
            losses = eopm.backward(fuse, images, labels, step)  # gradients lie in fuse.parameters()

    model           the base model; inside `with` it is in evaluation mode, needs no gradient, and computes with
                    buffers for the weights of one model, whatever `n_models` is. Afterwards everything is as it was;
                    its own parameters are never written to
    stored          its weights in memory
    bit_error_rate  fraction of failing cells of the perturbed models
    faults          what a failing cell does, and where weights lie
    n_models        N, perturbed models a step (the paper takes 10)
    weight          lambda (the paper takes 5)
    seed            of the chips (training_chips)
    precision       "float32" or "bfloat16": of the matrix products (autocast) and, then, of the buffers
    ranks           this process among those that share the work

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
        if not weight >= 0:
            raise FaultsimError(f"lambda {weight}: the weight of the perturbed loss must not be negative")
        if precision not in PRECISIONS:
            raise FaultsimError(f"unknown precision {precision!r}: it can be {' or '.join(PRECISIONS)}")
        self.model, self.stored = model, stored
        self.faults = faults or FaultModel()
        self.n_models, self.weight, self.seed = n_models, weight, seed
        self.ranks = ranks
        self.device = stored.layers[0].values.device
        self.no_errors = ops.table(0.0, self.device)
        self.errors = ops.table(bit_error_rate, self.device)
        self.mixed = precision == "bfloat16"
        self.buffers = stored.empty(1, torch.bfloat16 if self.mixed else None)
        training_chips(seed, 0, n_models)  # a bad seed is refused before anything is done

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            for module in self.model.modules():
                undo.callback(setattr, module, "training", module.training)
            for parameter in self.model.parameters():
                undo.callback(parameter.requires_grad_, parameter.requires_grad)
            self.model.eval().requires_grad_(False)
            # The kernel writes float32 at most: a model in float64 computes with copies of the buffers.
            own = [layer.dtype if not self.mixed else torch.bfloat16 for layer in self.stored.layers]
            self.weights = [buffer[0].to(dtype) for buffer, dtype in zip(self.buffers, own, strict=True)]
            undo.enter_context(self.stored.replaced(self.weights))
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()

    def autocast(self) -> torch.autocast:
        """Inside, matrix products are computed in the precision that was asked for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    def backward(self, fuse: nn.Module, images: Tensor, labels: Tensor, step: int) -> Losses:
        """Adds the gradient of the loss to the parameters of `fuse` (F, see neuralfuse.generators.NeuralFuse): images
        float [B, 3, H, W] in [-1, 1], labels int64 [B]. Nothing here waits for the device. Every process hands over
        the whole batch and gets the whole gradient."""
        with self.autocast():
            fused = fuse(images)
        losses, gradient = self.input_gradient(fused, labels, step)
        parameters = [parameter for parameter in fuse.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(fused, parameters, gradient, materialize_grads=True)
        *gradients, clean, perturbed = self.ranks.total([*gradients, *losses])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return Losses(clean, perturbed)

    def input_gradient(self, fused: Tensor, labels: Tensor, step: int) -> tuple[Losses, Tensor]:
        """The losses at F(x), float [B, 3, H, W], and the gradient of the whole loss with respect to F(x); with several
        processes this one's share, and the sum of all shares is the whole."""
        leaf = fused.detach().to(memory_format=_layout(self.device)).requires_grad_()
        leaf.grad = torch.zeros_like(leaf)
        chips = training_chips(self.seed, step, self.n_models, self.device)
        losses = [torch.zeros([], dtype=leaf.dtype, device=self.device) for _ in Losses._fields]
        for model, start, stop in self.ranks.pieces(1 + self.n_models, len(leaf)):
            if model == 0:  # as it was stored: no chip has errors at this rate
                self._read(chips[:1], self.no_errors)
            else:
                self._read(chips[model - 1 : model], self.errors)
            loss = self._loss(leaf[start:stop], labels[start:stop]) / len(leaf)
            (loss if model == 0 else self.weight / self.n_models * loss).backward()
            losses[min(model, 1)] += loss.detach()
        clean, perturbed = losses
        return Losses(clean, perturbed / self.n_models), leaf.grad

    def _read(self, chip: Tensor, table: Tensor) -> None:
        """The base model computes with its weights as one chip reads them."""
        self.stored.read(chip, table, self.faults, self.buffers)
        for weights, buffer in zip(self.weights, self.buffers, strict=True):
            if weights.dtype != buffer.dtype:
                weights.copy_(buffer[0])

    def _loss(self, fused: Tensor, labels: Tensor) -> Tensor:
        """Cross entropy of the base model, summed over images."""
        with self.autocast():
            logits = self.model(fused)
        logits = logits if logits.dtype == fused.dtype else logits.float()
        return functional.cross_entropy(logits, labels, reduction="sum")


def _layout(device: torch.device) -> torch.memory_format:
    """What convolutions like best: on GPUs channels last; on CPUs it made VGG11 slower by a quarter."""
    return torch.channels_last if device.type == "cuda" else torch.contiguous_format
