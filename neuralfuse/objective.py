"""What the trainers of a generator share: the frozen base model as a loss of F(x), with weights that change at will."""

import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from faultsim.errors import FaultsimError
from faultsim.fold import folded
from faultsim.modes import evaluation_mode
from faultsim.stored import StoredWeights
from faultsim.training.loop import layout

from .distributed import ALONE, Ranks

PRECISIONS = ("float32", "bfloat16")
LOSSES = ("cross_entropy", "error_probability")
"""Of a model's answer to an image of class y: -log p(y), the paper's, or 1 - p(y), which is bounded: a few chips that
are confidently wrong cannot outweigh all others (Ghosh et al., AAAI 2017, study it against wrong labels)."""


class Losses(NamedTuple):
    """Of one step; tensors [] on the device, so that nobody has to wait for them."""

    clean: Tensor  #: mean loss of the base model without bit errors
    perturbed: Tensor  #: mean loss of the perturbed models


@dataclass(frozen=True)
class Copy:
    """Weights of one model, in memory that is written again and again."""

    buffers: list[Tensor]  #: one tensor [1, *shape] a layer, as StoredWeights reads them
    weights: list[Tensor]  #: the same, as the model computes with them

    def written(self) -> None:
        """The buffers hold other weights now: the model computes with them from here on."""
        for weights, buffer in zip(self.weights, self.buffers, strict=True):
            if weights.data_ptr() != buffer.data_ptr():
                weights.copy_(buffer[0])


class Objective(ABC):
    """loss(F(x)) = clean + weight * perturbed, of a frozen base model and what bit errors make of it:

        with EOPM(...) as objective:  # or Adversarial(...)
            losses = objective.backward(fuse, images, labels, step)  # gradients lie in fuse.parameters()

    model      the base model; inside `with` it is in evaluation mode, its parameters need no gradient, its batch
               normalization is part of its convolutions (faultsim.fold), and it computes with `copies` of its weights.
               Afterwards everything is as it was; its own parameters are never written to
    stored     its weights in memory
    weight     lambda (the paper takes 5)
    loss       one of LOSSES
    precision  "float32" or "bfloat16": of the matrix products (autocast) and, then, of the buffers
    ranks      this process among those that share the work
    in_flight  models whose weights are there at once, each in a Copy

    Which perturbed models there are, a trainer says by input_gradient(): it writes their weights, as `memory` scales
    them, into the buffers of a copy, calls its written(), and sums loss_of(). Raises FaultsimError for values out
    of range.
    """

    def __init__(
        self,
        model: nn.Module,
        stored: StoredWeights,
        *,
        weight: float = 5.0,
        loss: str = "cross_entropy",
        precision: str = "float32",
        ranks: Ranks = ALONE,
        in_flight: int = 1,
    ) -> None:
        if loss not in LOSSES:
            raise FaultsimError(f"unknown loss {loss!r}: it can be {' or '.join(LOSSES)}")
        if not weight >= 0:
            raise FaultsimError(f"lambda {weight}: the weight of the perturbed loss must not be negative")
        if precision not in PRECISIONS:
            raise FaultsimError(f"unknown precision {precision!r}: it can be {' or '.join(PRECISIONS)}")
        stored.check(model)
        if fixed := [layer.tensors[0] for layer in stored.layers if layer.held.is_int8]:
            raise FaultsimError(f"{fixed[0]} computes in int8, which gives no gradients: use the float model")
        self.model, self.stored, self.weight, self.ranks = model, stored, weight, ranks
        self.bounded = loss == "error_probability"
        self.device = stored.layers[0].values.device
        self.precision, self.mixed, self.in_flight = precision, precision == "bfloat16", in_flight

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as undo:
            undo.enter_context(evaluation_mode(self.model))
            for parameter in self.model.parameters():
                undo.callback(parameter.requires_grad_, parameter.requires_grad)
            self.model.requires_grad_(False)
            self.memory = undo.enter_context(folded(self.model, self.stored))
            self.copies = [self._copy() for _ in range(self.in_flight)]
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._undo.close()

    def _copy(self) -> Copy:
        buffers = self.memory.empty(1, torch.bfloat16 if self.mixed else None)
        # The kernel writes float32 at most, in row-major order: a model in float64, and one that wants its weights
        # channels last, compute with copies of the buffers.
        types = [torch.bfloat16 if self.mixed else layer.dtype for layer in self.memory.layers]
        weights = [
            buffer[0].to(
                dtype,
                memory_format=layout(self.device, self.precision)
                if buffer[0].dim() == 4
                else torch.preserve_format,
            )
            for buffer, dtype in zip(buffers, types, strict=True)
        ]
        return Copy(buffers, weights)

    def autocast(self) -> torch.autocast:
        """Inside, matrix products are computed in the precision that was asked for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    def backward(self, fuse: nn.Module, images: Tensor, labels: Tensor, step: int | Tensor) -> Losses:
        """Adds the gradient of the loss to the parameters of `fuse` (F, see neuralfuse.generators.NeuralFuse): images
        float [B, 3, H, W] in [-1, 1], labels int64 [B], the step's number, which may lie on the device. Nothing here
        waits for the device. Every process hands over the whole batch and gets the whole gradient."""
        with self.autocast():
            fused = fuse(images)
        losses, gradient = self.input_gradient(fused, labels, step)
        parameters = [parameter for parameter in fuse.parameters() if parameter.requires_grad]
        gradients = torch.autograd.grad(fused, parameters, gradient, materialize_grads=True)
        *gradients, clean, perturbed = self.ranks.total([*gradients, *losses])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return Losses(clean, perturbed)

    @abstractmethod
    def input_gradient(self, fused: Tensor, labels: Tensor, step: int | Tensor) -> tuple[Losses, Tensor]:
        """The losses at F(x), float [B, 3, H, W], and the gradient of the whole loss with respect to F(x); with several
        processes this one's share, and the sum of all shares is the whole."""

    @property
    @abstractmethod
    def passes(self) -> int:
        """Forward passes, and as many backward passes, that an image of a step takes through the base model."""

    def leaf(self, fused: Tensor) -> Tensor:
        """F(x) cut off from the generator, with a gradient of zeros that all models add theirs to."""
        leaf = fused.detach().to(memory_format=layout(self.device, self.precision)).requires_grad_()
        leaf.grad = torch.zeros_like(leaf)
        return leaf

    def loss_of(self, copy: Copy, fused: Tensor, labels: Tensor) -> Tensor:
        """The loss of the base model with the weights of a copy, summed over images."""
        with self.autocast(), self.memory.replaced(copy.weights):
            logits = self.model(fused)
        logits = logits if logits.dtype == fused.dtype else logits.float()
        if self.bounded:
            return -torch.expm1(-functional.cross_entropy(logits, labels, reduction="none")).sum()
        return functional.cross_entropy(logits, labels, reduction="sum")
