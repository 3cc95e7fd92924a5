"""The time of one EOPM step, of its parts and of a naive formulation, measured in turn."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from faultsim.bench.timing import time_rivals
from faultsim.errors import FaultsimError
from faultsim.faults import FaultKind, FaultModel
from faultsim.inference.graphs import AS_WRITTEN, Graphed
from faultsim.quantization import dequantize, prepare_qat
from faultsim.stored import StoredLayer, StoredWeights
from faultsim.training.loop import choose_memory_format, choose_optimizer_arguments, move_module

from . import generators
from .eopm import EOPM

FAULTS = FaultModel(FaultKind.FLIP)


def time_eopm(
    model: nn.Module,
    stored: StoredWeights,
    generator: str,
    images: Tensor,
    labels: Tensor,
    *,
    bit_error_rate: float = 0.01,
    n_models: int = 10,
    precision: str = "float32",
    rounds: int = 3,
) -> dict:
    """Time one EOPM step, its parts and its naive formulation in turn, on one batch with independent flips.

    Parameters
    ----------
    model : nn.Module
        The base model.
    stored : StoredWeights
        Its weights in memory.
    generator : str
        Name of the generator, one of neuralfuse.generators.NAMES.
    images, labels : Tensor
        The batch, on the device of the model: float32 [B, C, H, W] and int64 [B].
    bit_error_rate : float
        Fraction of failing cells.
    n_models : int
        N, perturbed models per step.
    precision : str
        Of EOPM and its parts: "float32" or "bfloat16". The naive formulation computes in float32.
    rounds : int
        How often each is timed, after a warm-up: on a CPU, where a step takes long, a step with N = 1.

    Returns
    -------
    dict
        Medians in seconds:

        - "eopm": one EOPM step of the generator, with Adam;
        - "parts": N + 1 forward passes, and backward passes to the input, of the frozen base model with its own
          weights, and one forward and backward pass of the generator, with Adam;
        - "naive": the generator runs anew for each model, gradients of all weights, masks drawn bit by bit with NumPy.

        On a GPU the first two are replayed as CUDA graphs. "over_parts", "naive_over" and "naive_over_parts" are the
        ratios eopm / parts, naive / eopm and naive / parts; "samples" all times, in this order.

    Raises
    ------
    FaultsimError
        If the gradients of EOPM and of the naive formulation differ without bit errors.
    """
    device = images.device
    cuda = device.type == "cuda"
    images = images.contiguous(memory_format=choose_memory_format(device, precision))
    fuse = generators.NeuralFuse(prepare_qat(generators.create(generator)))
    move_module(fuse, device, precision).train()
    _check(model, stored, fuse, images, labels)
    model.eval()
    frozen = copy.deepcopy(model).requires_grad_(False)  # of the parts: the models change while they are used
    optimizer = torch.optim.Adam(
        fuse.parameters(), **choose_optimizer_arguments(1e-3, device), betas=(0.5, 0.999), capturable=cuda
    )
    number = torch.zeros([], dtype=torch.int64, device=device)

    def updated(gradient: Callable[[Tensor, Tensor], object], replayed: bool = True) -> Callable[[], None]:
        def step(images: Tensor, labels: Tensor) -> None:
            optimizer.zero_grad(set_to_none=True)
            gradient(images, labels)
            optimizer.step()

        call = Graphed(step, device) if replayed else step
        for _ in range(AS_WRITTEN + 1 if cuda and replayed else 0):  # the last one is captured
            call(images, labels)
        return lambda: call(images, labels)

    def calls(n_models: int, eopm: EOPM) -> list[Callable[[], object]]:
        def ours(images: Tensor, labels: Tensor) -> None:
            eopm.backward(fuse, images, labels, number)
            number.add_(1)

        def parts(images: Tensor, labels: Tensor) -> None:
            with eopm.autocast():
                fused = fuse(images)
            leaf = eopm.leaf(fused)
            for _ in range(n_models + 1):
                with eopm.autocast():
                    logits = frozen(leaf)
                cross_entropy(logits.float(), labels).backward()
            fused.backward(leaf.grad)

        def naive(images: Tensor, labels: Tensor) -> None:
            add_naive_gradient(plain, plain_stored, fuse, images, labels, bit_error_rate, n_models)

        return [updated(ours), updated(parts), updated(naive, replayed=False)]

    def opened(n_models: int) -> EOPM:
        return EOPM(
            model,
            stored,
            bit_error_rate=bit_error_rate,
            faults=FAULTS,
            n_models=n_models,
            precision=precision,
        )

    plain = copy.deepcopy(model)
    plain_stored = StoredWeights.of(plain)
    move_module(frozen, device, precision)
    if not cuda:
        with opened(1) as eopm:
            for call in calls(1, eopm):
                call()
    with opened(n_models) as eopm:
        warm_up = 1 if cuda else 0
        taken = time_rivals(calls(n_models, eopm), device=device, seconds=0, warm_up=warm_up, least=rounds)
    ours, parts, naive = (times.median for times in taken)
    return {
        "eopm": ours,
        "parts": parts,
        "naive": naive,
        "over_parts": ours / parts,
        "naive_over": naive / ours,
        "naive_over_parts": naive / parts,
        "samples": [times.samples for times in taken],
    }


def add_naive_gradient(
    model: nn.Module,
    stored: StoredWeights,
    fuse: nn.Module,
    images: Tensor,
    labels: Tensor,
    bit_error_rate: float,
    n_models: int,
    weight: float = 5.0,
) -> None:
    """Add the gradient of the EOPM loss to the parameters of a generator, in the plainest formulation.

    The parameters of the base model get gradients, too, which nobody needs.

    Parameters
    ----------
    model : nn.Module
        The base model, in evaluation mode.
    stored : StoredWeights
        Its weights in memory.
    fuse : nn.Module
        The generator's NeuralFuse.
    images, labels : Tensor
        A batch.
    bit_error_rate : float
        Fraction of failing cells.
    n_models : int
        N, perturbed models.
    weight : float
        Lambda, the weight of the perturbed loss.
    """
    random = np.random.default_rng(0)
    for i in range(n_models + 1):
        rate, share = (0.0, 1.0) if i == 0 else (bit_error_rate, weight / n_models)
        with stored.replaced([flip_naively(layer, rate, random) for layer in stored.layers]):
            model.requires_grad_(True)
            (share * cross_entropy(model(fuse(images)), labels)).backward()


def flip_naively(layer: StoredLayer, rate: float, random: np.random.Generator) -> Tensor:
    """Return the weights of a layer, each bit inverted with probability `rate`, from one uniform number per bit.

    Parameters
    ----------
    layer : StoredLayer
        In the format int8.
    rate : float
        A fraction.
    random : np.random.Generator
        Where the numbers come from.

    Returns
    -------
    Tensor
        float32, in the shape of the weight.
    """
    values = layer.values
    failing = random.random((values.numel(), 8)) < rate
    mask = np.packbits(failing, axis=1, bitorder="little").reshape(values.shape)
    wrong = values ^ torch.from_numpy(mask.view(np.int8)).to(values.device)
    return dequantize(wrong, layer.scale, layer.axis)


def _check(model: nn.Module, stored: StoredWeights, fuse: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Compare both formulations on a few images without bit errors, where they have to agree.

    The generator is in evaluation mode, so that its statistics do not change. All is in full float32: TF32's rounding
    is as large as the tolerance.
    """
    few = images[:4], labels[:4]
    fuse.eval()
    model.eval()
    found = []
    for formulation in ("eopm", "naive"):
        fuse.zero_grad(set_to_none=True)
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            if formulation == "eopm":
                with EOPM(model, stored, bit_error_rate=0.0, faults=FAULTS, n_models=1) as eopm:
                    eopm.backward(fuse, *few, 0)
            else:
                add_naive_gradient(model, stored, fuse, *few, 0.0, 1)
        found.append(torch.cat([p.grad.flatten() for p in fuse.parameters() if p.grad is not None]))
    fuse.zero_grad(set_to_none=True)
    model.zero_grad(set_to_none=True)
    fuse.train()
    ours, theirs = found
    if not float((ours - theirs).norm()) <= 1e-3 * float(theirs.norm()):
        raise FaultsimError("EOPM and its naive formulation give different gradients: nothing was timed")
