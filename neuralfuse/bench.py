"""The time of one EOPM step beside that of its parts, and beside the naive formulation, measured in turn."""

import copy
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from faultsim.bench.timing import rivals
from faultsim.errors import FaultsimError
from faultsim.faults import FaultKind, FaultModel
from faultsim.quantization import dequantize, prepare_qat
from faultsim.stored import StoredWeights
from faultsim.training.graphs import AS_WRITTEN, Graphed
from faultsim.training.loop import choose_memory_format, optimizer_arguments

from . import generators
from .eopm import EOPM

FAULTS = FaultModel(FaultKind.FLIP)


def eopm_times(
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
    """Times (medians, in seconds) on one batch, with independent flips:

    eopm    one EOPM step of the generator, with Adam
    parts   what it is made of: N + 1 forward passes and backward passes to the input of the base model, frozen and with
            its own weights, and one forward and backward pass of the generator, with Adam
    naive   the generator run anew for each model, gradients of all weights, masks drawn bit by bit with NumPy; always
            in float32

    and the ratios eopm / parts, naive / eopm and naive / parts. `eopm` and `parts` compute in `precision`, on a GPU
    both are replayed as CUDA graphs. After a warm-up (on a CPU, where a step takes long, one with N = 1) all are
    measured in turn, `rounds` times; `samples` are their times in this order.
    Raises FaultsimError when the gradients of `eopm` and `naive` differ without bit errors.
    """
    device = images.device
    cuda = device.type == "cuda"
    images = images.contiguous(memory_format=choose_memory_format(device, precision))
    fuse = generators.NeuralFuse(prepare_qat(generators.create(generator)))
    fuse.to(device, memory_format=choose_memory_format(device, precision)).train()
    _check(model, stored, fuse, images, labels)
    model.eval()
    frozen = copy.deepcopy(model).requires_grad_(False)  # of the parts: the models change while they are used
    optimizer = torch.optim.Adam(
        fuse.parameters(), **optimizer_arguments(1e-3, device), betas=(0.5, 0.999), capturable=cuda
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
            naive_gradient(plain, plain_stored, fuse, images, labels, bit_error_rate, n_models)

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
    frozen.to(memory_format=choose_memory_format(device, precision))
    if not cuda:
        with opened(1) as eopm:
            for call in calls(1, eopm):
                call()
    with opened(n_models) as eopm:
        warm_up = 1 if cuda else 0
        taken = rivals(calls(n_models, eopm), device=device, seconds=0, warm_up=warm_up, least=rounds)
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


def naive_gradient(
    model: nn.Module,
    stored: StoredWeights,
    fuse: nn.Module,
    images: Tensor,
    labels: Tensor,
    bit_error_rate: float,
    n_models: int,
    weight: float = 5.0,
) -> None:
    """Adds the gradient of the EOPM loss to the parameters of `fuse` (and of the models, where nobody needs it), the
    way one would write it down at first. The base model is in evaluation mode."""
    random = np.random.default_rng(0)
    for i in range(n_models + 1):
        rate, share = (0.0, 1.0) if i == 0 else (bit_error_rate, weight / n_models)
        with stored.replaced([_flipped(layer, rate, random) for layer in stored.layers]):
            model.requires_grad_(True)
            (share * cross_entropy(model(fuse(images)), labels)).backward()


def _flipped(layer, rate: float, random: np.random.Generator) -> Tensor:
    """Weights of a layer with each of their bits inverted with probability `rate`, one uniform number a bit."""
    values = layer.values
    failing = random.random((values.numel(), 8)) < rate
    mask = np.packbits(failing, axis=1, bitorder="little").reshape(values.shape)
    wrong = values ^ torch.from_numpy(mask.view(np.int8)).to(values.device)
    return dequantize(wrong, layer.scale, layer.axis)


def _check(model: nn.Module, stored: StoredWeights, fuse: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Both formulations on a few images and without bit errors, where they have to agree. The generator in evaluation
    mode, so that its statistics stay as they are; in full float32, for TF32's rounding is as large as what is allowed
    here."""
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
                naive_gradient(model, stored, fuse, *few, 0.0, 1)
        found.append(torch.cat([p.grad.flatten() for p in fuse.parameters()]))
    fuse.zero_grad(set_to_none=True)
    model.zero_grad(set_to_none=True)
    fuse.train()
    ours, theirs = found
    if not float((ours - theirs).norm()) <= 1e-3 * float(theirs.norm()):
        raise FaultsimError("EOPM and its naive formulation give different gradients: nothing was timed")
