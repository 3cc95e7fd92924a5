"""Worst-case bit flips, and training of a generator against them (the paper, Appendix L and Table 16).

    loss = CE(M(F(x)), y) + weight * CE(M_K(F(x)), y)

M_K is the base model with K bits of its int8 weights inverted: those that raise the clean loss of this very batch, at
the F(x) that the generator makes of it now, most, to first order. Every step finds new ones.

The appendix says no more than "adversarial training" and "K flip bits", and refers to Stutz et al. (MLSys 2021). What
is chosen here, with the literature on bit-flip attacks (Rakin et al., ICCV 2019): all K bits at once, by one gradient
with respect to the stored weights, over all layers together. A weight may lose several bits, as it may on a chip. The
loss has the form of EOPM's, with the same lambda; a worst case has nothing to average over, so there is one M_K.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from faultsim.errors import FaultsimError
from faultsim.quantization import dequantize
from faultsim.stored import StoredLayer, StoredWeights

from .distributed import ALONE, Ranks
from .objective import Copy, Losses, Objective

_BITS = 8  # of a stored weight


def worst_flips(layers: Sequence[StoredLayer], gradients: Sequence[Tensor], flips: int) -> list[Tensor]:
    """The `flips` bits whose inversion raises the loss most, to first order: one int8 mask a layer, in the shape of its
    weights, to be xor-ed to its values.

    layers     as stored, on one device
    gradients  of the loss with respect to each layer's dequantized weights, in their shapes

    Inverting bit k changes a stored value by +-2**k, the sign bit (7) by -128 where it is 0 and by +128 where it is 1
    (two's complement); the loss changes by that times scale * gradient. Changes of one weight's bits add up, so that
    the largest single ones make the largest sum. Bits that don't raise the loss are left alone: there may be fewer than
    `flips`. Which of several equal ones are taken is not said. Nothing here waits for the device. Raises FaultsimError
    unless flips is from 1 to the number of bits.
    """
    _check(layers, flips)
    sizes = [layer.values.numel() for layer in layers]
    slopes, rising, best = [], [], []
    for layer, gradient in zip(layers, gradients, strict=True):
        # By the chain rule: dequantizing multiplies by the scale, and so does its derivative.
        slope = dequantize(gradient, layer.scale, layer.axis).flatten()
        values = layer.values.flatten().view(torch.uint8)
        # Where the loss rises with the value: 0s of the bits 0 to 6, and a 1 of the sign; elsewhere the others.
        bits = values ^ torch.where(slope > 0, 0x7F, 0x80).to(torch.uint8)
        slopes.append(slope.abs())
        rising.append(bits)
        best.append(slopes[-1] * _highest_bit(bits))
    # A weight with one of the `flips` best bits has a best bit among the `flips` best of those, one a weight.
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
    """The most significant 1 of each uint8, alone."""
    for distance in (1, 2, 4):
        bits = bits | bits >> distance
    return bits ^ bits >> 1


def _check(layers: Sequence[StoredLayer], flips: int) -> None:
    bits = _BITS * sum(layer.values.numel() for layer in layers)
    if not 1 <= flips <= bits:
        raise FaultsimError(f"{flips} bit flips: the weights have {bits:,} bits, choose 1 to that many")


class Adversarial(Objective):
    """The base model, clean and with the worst `flips` (K) bit flips, as the loss of a generator sees it; everything
    else as in Objective. A step costs a full backward pass, the search, and a forward and a backward pass more.

    The worst flips follow from the batch and the generator alone: no chip is drawn, and the step's number is not used.
    With several processes the gradients of the weights are summed before the search, so that all find the same flips.
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
        masks = worst_flips(self.memory.layers, self.ranks.total(gradients), self.flips)
        self._write(
            copy, [layer.values ^ mask for layer, mask in zip(self.memory.layers, masks, strict=True)]
        )
        return Losses(clean, self._add_gradient(copy, leaf, labels, self.weight)), leaf.grad

    def _write(self, copy: Copy, values: Sequence[Tensor]) -> None:
        for layer, buffer, stored in zip(self.memory.layers, copy.buffers, values, strict=True):
            buffer[0] = dequantize(stored, layer.scale, layer.axis)
        copy.written()

    def _add_gradient(self, copy: Copy, leaf: Tensor, labels: Tensor, weight: float) -> Tensor:
        """This process's share of the mean loss; its gradient, weighted, is added to `leaf.grad`."""
        share = torch.zeros([], dtype=leaf.dtype, device=self.device)
        for _, start, stop in self.ranks.pieces(1, len(leaf)):
            loss = self.loss_of(copy, leaf[start:stop], labels[start:stop]) / len(leaf)
            (weight * loss).backward()
            share += loss.detach()
        return share
