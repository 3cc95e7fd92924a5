"""Every operator, fault kind, placement, format and output dtype on a few thousand weights, compared with the
reference: small enough for NVIDIA's compute-sanitizer (see tools/gpu_check.py).

    PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool memcheck python3 tests/sanitize/operators.py

Without torch's cache every tensor is an allocation of its own, so that one byte too many is seen; weights and outputs
end where their allocation ends. Everything else is made and compared on the CPU: hardly a kernel runs but ours.
Prints one line at the end; a wrong result ends it with another exit status than 0.
"""

import argparse
import itertools

import numpy as np
import torch
from run import (  # run.py beside this file; finds faultsim
    FORMATS,
    KINDS,
    PLACES,
    RATES,
    WORD_PLACES,
    by_reference,
    decode_by_reference,
    make_image,
    same,
)

from faultsim import formats as formats  # registers its operators
from faultsim.kernel import ops, reference

CALL = torch.ops.faultsim
SHAPE = (7, 5, 257)
SEEDS = [2**63 + 5, 6]
AXES = {-1: 1, 1: 5}  # axis of the scales, and their number


def tail(values: np.ndarray, shift: int, device: str) -> torch.Tensor:
    """`values` on the device, beginning `shift` elements into their buffer and ending where it ends."""
    buffer = np.empty(values.size + shift, values.dtype)
    buffer[shift:] = values.reshape(-1)
    return torch.from_numpy(buffer).to(device)[shift:].view(values.shape)


def room(shift: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    """Where both chips' weights have room, placed like tail()."""
    size = len(SEEDS) * np.prod(SHAPE)
    return torch.zeros(size + shift, dtype=dtype).to(device)[shift:].view(len(SEEDS), *SHAPE)


def arguments(device: str, seeds: list[int], rate: float, kind: str, place: tuple) -> list:
    """The operators' common arguments; array offset and access are those of run.by_reference()."""
    code, ones, one = KINDS[kind]
    numbers = [torch.tensor([number]).to(device) for number in (3, 9)]
    chips = ops.encode_chips(seeds).to(device)
    return [chips, ops.encode_rate(rate, device), [code, round(ones * one)], list(place), *numbers]


def bits(tensor: torch.Tensor) -> np.ndarray:
    return tensor.cpu().view(torch.uint8).numpy()


def check(device: str, kind: str, place: tuple, rate: float) -> int:
    """All operators and outputs of one case, at an even and an odd address; returns the number of calls."""
    calls = 0
    weights = np.random.default_rng(1).integers(-128, 128, SHAPE, np.int8)
    failing, states, read = by_reference(weights.reshape(-1), SEEDS, rate, kind, place)
    both = arguments(device, SEEDS, rate, kind, place)
    one = arguments(device, SEEDS[:1], rate, kind, place)
    for shift in (0, 3):
        what = (kind, place, rate, shift)
        source = tail(weights, shift, device)
        calls += same(bits(CALL.corrupt(source, *both)), read, "corrupt", *what)
        masks = CALL.fault_mask(source, *both)
        calls += same(bits(masks[0]), failing, "failing bits", *what)
        same(bits(masks[1]), states, "states", *what)
        for (axis, count), dtype in itertools.product(AXES.items(), ops.FLOATS):
            scales = np.linspace(1e-6, 600, count, dtype=np.float32)
            name = str(dtype).removeprefix("torch.")
            along = None if axis < 0 else axis
            want = [reference.dequantize(q.reshape(SHAPE), scales, along, name) for q in read]
            scale, out = torch.from_numpy(scales).to(device), room(shift, dtype, device)
            got = CALL.corrupt_dequantize(source, scale, axis, dtype, *both)
            calls += same(bits(got), np.stack(want), name, axis, *what)
            CALL.corrupt_dequantize.out(source, scale, axis, *both, out=out)
            calls += same(bits(out), np.stack(want), name, "out", axis, *what)
        same(bits(source), weights, "source", *what)
        CALL.corrupt_(source, *one)
        calls += same(bits(source), read[0], "in place", *what)
    return calls


def check_format(device: str, name: str, kind: str, place: tuple, rate: float) -> int:
    """Both operators and all outputs of one image, at an even and an odd address; returns the number of calls."""
    calls, weights = 0, 2003
    image = make_image(name, weights)
    scale, center = np.array([0.37], np.float32), np.array([-2.5], np.float32)
    centers = torch.from_numpy(center).to(device) if FORMATS[name][-1] else None
    *_, read = by_reference(image.view(np.int8), SEEDS, rate, kind, place)
    draw = arguments(device, SEEDS, rate, kind, place)
    for shift, dtype in itertools.product((0, 3), ops.FLOATS):
        output = str(dtype).removeprefix("torch.")
        want = np.stack([decode_by_reference(name, one, weights, scale, center, output) for one in read])
        # The operators take whole words; what fills the last one is not read.
        source = tail(np.concatenate([image, np.zeros(-image.size % 8, np.uint8)]), shift, device)
        head = (torch.from_numpy(scale).to(device), centers, -1, *draw)
        what = (name, output, kind, place, rate, shift)
        calls += same(bits(CALL.corrupt_decode(source, name, [weights], dtype, *head)), want, *what)
        out = (
            torch.zeros(len(SEEDS) * weights + shift, dtype=dtype)
            .to(device)[shift:]
            .view(len(SEEDS), weights)
        )
        CALL.corrupt_decode.out(source, name, *head, out=out)
        calls += same(bits(out), want, "out", *what)
    return calls


def check_formats(device: str) -> int:
    """Every format; kinds, rates and placements in turn."""
    turns = zip(
        itertools.cycle(KINDS), itertools.cycle(WORD_PLACES), itertools.cycle(RATES[1:]), strict=False
    )
    return sum(check_format(device, name, *turn) for name, turn in zip(FORMATS, turns, strict=False))


def check_graph(kind: str, place: tuple) -> int:
    """A captured graph that draws new chips at each replay. It holds the operators that allocate nothing, which the
    uncached allocator could not do in a capture. Returns the number of replays."""
    weights = np.random.default_rng(1).integers(-128, 128, SHAPE, np.int8)
    source, scales = tail(weights, 0, "cuda"), np.linspace(1e-6, 600, 5, dtype=np.float32)
    copy, scale, out = source.clone(), torch.from_numpy(scales).to("cuda"), room(0, torch.float16, "cuda")[:1]
    call = arguments("cuda", SEEDS[:1], 1e-2, kind, place)
    CALL.corrupt_(copy, *call)  # modules are loaded before the capture
    CALL.corrupt_dequantize.out(source, scale, 1, *call, out=out)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        CALL.corrupt_(copy, *call)
        CALL.corrupt_dequantize.out(source, scale, 1, *call, out=out)
    seeds = [8, 2**64 - 1]
    for seed in seeds:
        call[0].copy_(ops.encode_chips([seed]))
        copy.copy_(source)
        graph.replay()
        *_, read = by_reference(weights.reshape(-1), [seed], 1e-2, kind, place)
        same(bits(copy), read, "graph, in place", kind, place, seed)
        floats = reference.dequantize(read.reshape(SHAPE), scales, 1, "float16")
        same(bits(out), floats, "graph, float16", kind, place, seed)
    return len(seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    device = parser.parse_args().device
    calls = sum(check(device, *case) for case in itertools.product(KINDS, PLACES, RATES[1:]))
    calls += check_formats(device)
    replays = 0
    if device == "cuda":
        replays = sum(check_graph(*case) for case in itertools.product(KINDS, PLACES))
    print(f"operators: {calls} calls and {replays} replays of graphs on {device}: all equal to the reference")


if __name__ == "__main__":
    main()
