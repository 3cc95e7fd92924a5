"""Base class of the generator objectives: the loss of a frozen base model at F(x), with swappable weights."""

import contextlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from faultsim.errors import FaultsimError
from faultsim.inference.fold import folded
from faultsim.network.modes import evaluation_mode
from faultsim.stored import StoredWeights
from faultsim.training.loop import choose_memory_format

from .distributed import ALONE, Ranks

PRECISIONS = ("float32", "bfloat16")
LOSSES = ("cross_entropy", "error_probability")
"""Loss of an image of class y: -log p(y), as in the paper, or 1 - p(y). The latter is bounded, so that a few chips with
confident wrong answers cannot outweigh all others (Ghosh et al., AAAI 2017, study it for noisy labels)."""


class Losses(NamedTuple):
    """Losses of one step: tensors [] on the device, so that nothing waits for it."""

    clean: Tensor
    """Mean loss of the base model without bit errors."""
    perturbed: Tensor
    """Mean loss of the perturbed models."""


@dataclass(frozen=True)
class Copy:
    """Weights of one model in buffers that are overwritten for every perturbed model."""

    buffers: list[Tensor]
    """One tensor [1, *shape] per layer, as StoredWeights reads into them."""
    weights: list[Tensor]
    """The same weights, in the dtype and memory format that the model computes with."""

    def written(self) -> None:
        """Copy the buffers to `weights`; call it after every write to the buffers."""
        for weights, buffer in zip(self.weights, self.buffers, strict=True):
            if weights.data_ptr() != buffer.data_ptr():
                weights.copy_(buffer[0])


class Objective(ABC):
    """Base class of the generator objectives: clean + weight * perturbed loss of a frozen base model at F(x).

        with EOPM(...) as objective:  # or Adversarial(...)
            losses = objective.backward(fuse, images, labels, step)  # gradients are in fuse.parameters()

    Inside the `with` block the base model is in evaluation mode, its parameters need no gradient, its batch
    normalization is folded into its convolutions (faultsim.inference.fold), and it computes with `copies` of its
    weights. On exit everything is restored; the model's own parameters are never written to.

    Subclasses implement `input_gradient()`: for each perturbed model, write its dequantized weights into
    `copy.buffers`, call `copy.written()`, and accumulate `loss_of(copy, ...)`.

    Parameters
    ----------
    model
        Base model.
    stored
        Its int8 weights.
    weight
        Lambda, the weight of the perturbed loss. The paper uses 5.
    loss
        Loss per image, one of LOSSES.
    precision
        Of matrix products (autocast) and buffers: "float32" or "bfloat16".
    ranks
        This process among those that share the training.
    in_flight
        Perturbed models whose weights exist at once, each in a Copy.

    Raises
    ------
    FaultsimError
        For values out of range, and for a model that computes in int8.
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
        # The kernel writes row-major float32 or smaller. A model in float64, or with channels-last weights, computes
        # with copies of the buffers.
        types = [torch.bfloat16 if self.mixed else layer.dtype for layer in self.memory.layers]
        weights = [
            buffer[0].to(
                dtype,
                memory_format=choose_memory_format(self.device, self.precision)
                if buffer[0].dim() == 4
                else torch.preserve_format,
            )
            for buffer, dtype in zip(buffers, types, strict=True)
        ]
        return Copy(buffers, weights)

    def autocast(self) -> torch.autocast:
        """Return the context in which matrix products have the objective's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)

    def backward(self, fuse: nn.Module, images: Tensor, labels: Tensor, step: int | Tensor) -> Losses:
        """Add the gradient of the loss to the gradients of a generator's parameters. Nothing waits for the device.

        Parameters
        ----------
        fuse
            NeuralFuse module, F.
        images
            float [B, 3, H, W] in [-1, 1]; with several processes the whole batch on each.
        labels
            int64 [B].
        step
            Number of the step; it may be a tensor int64 [] on the device.

        Returns
        -------
        Losses
            Of the whole batch, on every process, as is the gradient.
        """
        with self.autocast():
            fused = fuse(images)
        losses, gradient = self.input_gradient(fused, labels, step)
        parameters = [parameter for parameter in fuse.parameters() if parameter.requires_grad]
        own = torch.autograd.grad(fused, parameters, gradient, materialize_grads=True)
        *gradients, clean, perturbed = self.ranks.total([*own, *losses])
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return Losses(clean, perturbed)

    @abstractmethod
    def input_gradient(self, fused: Tensor, labels: Tensor, step: int | Tensor) -> tuple[Losses, Tensor]:
        """Compute the losses at F(x) and the gradient of their weighted sum with respect to F(x).

        With several processes each one returns its part; the sum over the processes is the whole.

        Parameters
        ----------
        fused
            F(x), float [B, 3, H, W].
        labels
            int64 [B].
        step
            Number of the step.
        """

    @property
    @abstractmethod
    def passes(self) -> int:
        """Forward passes (and as many backward passes) of one image through the base model per step."""

    def leaf(self, fused: Tensor) -> Tensor:
        """Return F(x) detached from the generator, with a zero gradient that all models add to."""
        leaf = (
            fused.detach()
            .to(memory_format=choose_memory_format(self.device, self.precision))
            .requires_grad_()
        )
        leaf.grad = torch.zeros_like(leaf)
        return leaf

    def loss_of(self, copy: Copy, fused: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of the base model with the weights of a copy, summed over the images."""
        with self.autocast(), self.memory.replaced(copy.weights):
            logits = self.model(fused)
        logits = logits if logits.dtype == fused.dtype else logits.float()
        if self.bounded:
            return -torch.expm1(-functional.cross_entropy(logits, labels, reduction="none")).sum()
        return functional.cross_entropy(logits, labels, reduction="sum")
