"""Worst-case bit flips, and training of a generator against them (the paper, Appendix L and Table 16).

    loss = CE(M(F(x)), y) + weight * CE(M_K(F(x)), y)

M_K is the base model with K bits of its int8 weights inverted: those that, to first order, raise the clean loss of this
batch most, at the current F(x). Every step finds new ones.

The appendix only says "adversarial training" and "K flip bits", and refers to Stutz et al. (MLSys 2021). This
implementation follows the literature on bit-flip attacks (Rakin et al., ICCV 2019): it selects all K bits at once, by
one gradient with respect to the stored weights, over all layers together. Several bits of one weight may be inverted,
as on a chip. The loss has the form of EOPM's, with the same lambda. A worst case needs no average, so there is one M_K.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from faultsim.errors import FaultsimError
from faultsim.formats import INT8
from faultsim.quantization import dequantize
from faultsim.stored import StoredLayer, StoredWeights

from .distributed import ALONE, Ranks
from .objective import Copy, Losses, Objective

_BITS = 8  # of a stored weight


def find_worst_flips(layers: Sequence[StoredLayer], gradients: Sequence[Tensor], flips: int) -> list[Tensor]:
    """Find the bits whose inversion raises the loss most, to first order. Nothing waits for the device.

    Inverting bit k changes a stored value by +-2**k, the sign bit (7) by -128 if it is 0 and by +128 if it is 1 (two's
    complement). The loss changes by that times scale * gradient. Changes of the bits of one weight add up, so the
    largest single changes give the largest sum.

    Parameters
    ----------
    layers
        The base model's stored layers, on one device.
    gradients
        Of the loss with respect to each layer's dequantized weights, in their shapes.
    flips
        Number of bits, from 1 to the number of bits of all layers.

    Returns
    -------
    list of Tensor
        One int8 mask per layer, in the shape of its weights: xor it with the values. Bits that do not raise the loss
        are never selected, so there may be fewer than `flips`. Ties are broken arbitrarily.

    Raises
    ------
    FaultsimError
        For a number of flips out of range.
    """
    _check(layers, flips)
    sizes = [layer.values.numel() for layer in layers]
    slopes, rising, best = [], [], []
    for layer, gradient in zip(layers, gradients, strict=True):
        # By the chain rule: dequantizing multiplies by the scale, and so does its derivative.
        slope = dequantize(gradient, layer.scale, layer.axis).flatten()
        values = layer.values.flatten().view(torch.uint8)
        # If the loss rises with the value: zeros of bits 0 to 6 and a one of the sign bit; otherwise the opposite.
        bits = values ^ torch.where(slope > 0, 0x7F, 0x80).to(torch.uint8)
        slopes.append(slope.abs())
        rising.append(bits)
        best.append(slopes[-1] * _highest_bit(bits))
    # Every weight that has one of the `flips` best bits is among the `flips` weights with the best best bit.
    few = [torch.topk(b, min(flips, len(b)), sorted=False) for b in best]
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    where = torch.cat([top.indices + start for top, start in zip(few, starts, strict=True)])
    where = where[
        torch.topk(torch.cat([top.values for top in few]), min(flips, len(where)), sorted=False).indices
    ]
    shifts = torch.arange(_BITS, dtype=torch.uint8, device=where.device)
    on = (torch.cat(rising)[where, None] >> shifts) & 1
    gains = (torch.cat(slopes)[where, None] * on * (1 << torch.arange(_BITS, device=where.device))).flatten()
    top = torch.topk(gains, flips if flips < len(gains) else len(gains), sorted=False)
    chosen = torch.zeros_like(gains, dtype=torch.uint8).scatter_(
        0, top.indices, (top.values > 0).to(torch.uint8)
    )
    masks = torch.zeros(sum(sizes), dtype=torch.uint8, device=where.device)
    masks[where] = (chosen.view(-1, _BITS) << shifts).sum(1, dtype=torch.uint8)
    parts = masks.view(torch.int8).split(sizes)
    return [part.view(layer.values.shape) for part, layer in zip(parts, layers, strict=True)]


def _highest_bit(bits: Tensor) -> Tensor:
    """Keep only the most significant one of each uint8."""
    for distance in (1, 2, 4):
        bits = bits | bits >> distance
    return bits ^ bits >> 1


def _check(layers: Sequence[StoredLayer], flips: int) -> None:
    if layers[0].format != INT8:
        raise FaultsimError(
            f"adversarial training searches bits of int8 weights, and these are {layers[0].format}: use EOPM"
        )
    bits = _BITS * sum(layer.values.numel() for layer in layers)
    if not 1 <= flips <= bits:
        raise FaultsimError(f"{flips} bit flips: the weights have {bits:,} bits, choose 1 to that many")


class Adversarial(Objective):
    """Adversarial objective: clean loss plus the loss with the K worst bit flips of this batch.

    See `Objective` for the common parameters. A step costs a full backward pass, the search, and one more forward and
    backward pass. The flips depend on the batch and the generator only: no chip is drawn, and `step` is ignored.
    Several processes sum the gradients of the weights before the search, so that all find the same flips.

    Parameters
    ----------
    flips
        K, the number of inverted bits.

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
        flips: int,
        weight: float = 5.0,
        loss: str = "cross_entropy",
        precision: str = "float32",
        ranks: Ranks = ALONE,
    ) -> None:
        _check(stored.layers, flips)
        super().__init__(model, stored, weight=weight, loss=loss, precision=precision, ranks=ranks)
        self.flips = flips

    @property
    def passes(self) -> int:
        return 2

    def input_gradient(self, fused: Tensor, labels: Tensor, step: int | Tensor) -> tuple[Losses, Tensor]:
        leaf, (copy,) = self.leaf(fused), self.copies
        self._write(copy, [layer.values for layer in self.memory.layers])
        for weights in copy.weights:
            weights.requires_grad_()
        clean = self._add_gradient(copy, leaf, labels, 1.0)
        gradients = []
        for weights in copy.weights:
            gradients.append(torch.zeros_like(weights) if weights.grad is None else weights.grad)
            weights.grad = None
            weights.requires_grad_(False)
        masks = find_worst_flips(self.memory.layers, self.ranks.total(gradients), self.flips)
        self._write(
            copy, [layer.values ^ mask for layer, mask in zip(self.memory.layers, masks, strict=True)]
        )
        losses = Losses(clean, self._add_gradient(copy, leaf, labels, self.weight))
        return losses, cast(Tensor, leaf.grad)  # self.leaf() made it

    def _write(self, copy: Copy, values: Sequence[Tensor]) -> None:
        for layer, buffer, stored in zip(self.memory.layers, copy.buffers, values, strict=True):
            buffer[0] = dequantize(stored, layer.scale, layer.axis)
        copy.written()

    def _add_gradient(self, copy: Copy, leaf: Tensor, labels: Tensor, weight: float) -> Tensor:
        """Compute this process's part of the mean loss, and add its weighted gradient to `leaf.grad`."""
        share = torch.zeros([], dtype=leaf.dtype, device=self.device)
        for _, start, stop in self.ranks.pieces(1, len(leaf)):
            loss = self.loss_of(copy, leaf[start:stop], labels[start:stop]) / len(leaf)
            (weight * loss).backward()
            share += loss.detach()
        return share
