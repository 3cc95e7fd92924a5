"""The kernel under the address and undefined-behavior sanitizers: every CPU path, kind, output, placement and format,
at odd sizes and addresses, each result compared with the reference. NumPy only: torch does not run under a sanitizer.

    python tests/sanitize/run.py build/sanitize        (see `make test-sanitize`, which builds and preloads)

Every buffer is an allocation of its own of exactly the size that the kernel was told, so that one byte too many is
seen. Prints one line at the end; a wrong result or a sanitizer's report ends it with another exit status than 0.
"""

import itertools
import os
import subprocess
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from protected_words import check_protected

from faultsim.hit_table import build_hit_table
from faultsim.kernel import reference


def load_formats_reference() -> ModuleType:
    """faultsim/formats/reference.py by itself: its package imports torch."""
    path = Path(__file__).resolve().parents[2] / "faultsim/formats/reference.py"
    spec = spec_from_file_location("formats_reference", path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


formats_reference = load_formats_reference()
KINDS = {
    "flip": (0, 0.5, 0),
    "stuck": (1, 0.5, 2**33),
    "stuck_fifth": (1, 0.2, 2**33),
    "transient": (2, 0.3, 2**32),
}
OUTPUTS = {
    "int8": np.int8,
    "float32": np.float32,
    "bfloat16": np.uint16,
    "float16": np.uint16,
    "mask": np.uint8,
}
PLACES = [  # base, blocks, word, repeat
    (0, 0, 1, 1),  # unlimited
    (4099, 0, 1, 1),
    (12_287, 2, 1, 1),  # tiled
    (0, 2, 1, 1),  # tiled_per_layer
    (0, 32, 16, 16),  # neuralfuse_2022
    (65_536 * 31 + 65_533, 32, 16, 16),
    (37, 3, 32, 5),
]
SIZES = [1, 7, 63, 65, 4097, 9001]
SEEDS = [1, 2**63 + 5, 3, 4, 5, 6, 2**64 - 1]  # more than the launcher draws at once
RATES = [0.0, 1e-3, 1e-2, 0.3]

FORMATS = {  # number, bits, cells, offset, clamps, policy, whether there are centers
    **{f"int{bits}": ("integer", bits, bits, False, False, "keep", False) for bits in range(2, 9)},
    **{f"uint{bits}": ("integer", bits, bits, True, True, "keep", False) for bits in (2, 3, 4, 8)},
    **{f"int{bits}-asymmetric": ("integer", bits, bits, False, True, "keep", True) for bits in (4, 5, 8)},
    **{f"int{bits}-unpacked": ("integer", bits, 8, False, False, "keep", False) for bits in (2, 7)},
    **{
        f"{kind}-{policy}": (kind, bits, bits, False, False, policy, False)
        for kind, bits in [
            ("float32", 32),
            ("float16", 16),
            ("bfloat16", 16),
            ("float8_e4m3fn", 8),
            ("float8_e5m2", 8),
        ]
        for policy in ("keep", "zero", "clamp")
    },
}
LARGEST = {
    "float32": float(np.finfo(np.float32).max),
    "float16": 65504.0,
    "bfloat16": float(np.array(0x7F7F0000, np.uint32).view(np.float32)),
    "float8_e4m3fn": 448.0,
    "float8_e5m2": 57344.0,
}
WORD_PLACES = [place for place in PLACES if place[0] % 8 == 0] + [
    (4096 - 8, 0, 1, 1),
    (4096 * 17 + 40, 3, 32, 5),
]


def load(folder: Path) -> ModuleType:
    """The module that was built in `folder`."""
    (path,) = folder.glob("_native*.so")
    spec = spec_from_file_location("_native", path, loader=ExtensionFileLoader("_native", str(path)))
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def at_odd_address(values: np.ndarray, shift: int) -> np.ndarray:
    """A copy that begins `shift` elements into its buffer and ends where the buffer ends."""
    buffer = np.empty(values.size + shift, values.dtype)
    buffer[shift:] = values.reshape(-1)
    return buffer[shift:]


def launch(
    native, path, threads, source, output, seeds, rate, kind, place, name="int8", states=None, scales=None,
    image=None,
):  # fmt: skip
    """One call of the kernel; weight i has the scale number i // 5 mod their number. `image`: arguments of read_image()
    where the source is an image of a format."""
    code, ones, one = KINDS[kind]
    table, chips = build_hit_table(rate).copy(), np.array(seeds, np.uint64)
    offset, access = np.array([3], np.int64), np.array([9], np.int64)
    job = native.Job(
        source=0 if name == "mask" else source.ctypes.data,  # what is not needed is null
        output=output.ctypes.data,
        value=0 if states is None else states.ctypes.data,
        weights=source.size,
        chips=chips.size,
        type=list(OUTPUTS).index(name),
        scales=0 if scales is None else scales.ctypes.data,
        scale_count=0 if scales is None else scales.size,
        scale_run=5,
        table=table.ctypes.data,
        thresholds=table.size - 2,
        kind=code,
        ones=round(ones * one),
        base=place[0],
        blocks=place[1],
        word=place[2],
        repeat=place[3],
        seeds=chips.ctypes.data,
        block_offset=offset.ctypes.data,
        access=access.ctypes.data,
    )
    if image is not None:
        job.read_image(**image)
    native.launch_cpu(job, threads, path)


def by_reference(
    source: np.ndarray, seeds: list[int], rate: float, kind: str, place: tuple
) -> tuple[np.ndarray, ...]:
    """Failing bits, states and weights read, each [n_chips, weights]."""
    word, ones = kind.split("_")[0], KINDS[kind][1]
    where = dict(zip(("base", "blocks", "word", "repeat"), place, strict=True))
    masks = [reference.fault_mask(source.size, seed, rate, word, ones, 9, 3, **where) for seed in seeds]
    read = [reference.read_word(word, np.ascontiguousarray(source), *mask) for mask in masks]
    return *(np.stack(x) for x in zip(*masks, strict=True)), np.stack(read)


def same(got: np.ndarray, want: np.ndarray, *what) -> int:
    if got.tobytes() != want.tobytes():
        raise SystemExit(f"wrong result: {what}")
    return 1


def check(native: ModuleType, kind: str, place: tuple, size: int, rate: float) -> int:
    """All paths and outputs of one case; returns the number of calls."""
    shift, calls = size % 5, 0
    weights = np.random.default_rng(size).integers(-128, 128, size, np.int8)
    source = at_odd_address(weights, shift)
    seeds = SEEDS if size < 5000 else SEEDS[:2]
    failing, states, read = by_reference(source, seeds, rate, kind, place)
    scales = np.linspace(1e-6, 600, 7, dtype=np.float32)
    each = scales[np.arange(size) // 5 % 7]
    for path, (name, dtype) in itertools.product(native.cpu_paths(), OUTPUTS.items()):
        output = at_odd_address(np.zeros(len(seeds) * size, dtype), shift)
        out_states = np.zeros(output.size, np.uint8) if name == "mask" else None
        launch(native, path, 2, source, output, seeds, rate, kind, place, name, out_states, scales)
        want = {"int8": read, "mask": failing}.get(name)
        if want is None:
            want = np.stack([reference.dequantize(q, each, 0, name) for q in read])
        calls += same(output, want, path, name, kind, place, size, rate)
        if out_states is not None:
            same(out_states, states, path, "states", kind, place, size, rate)
        if name == "int8":
            once = at_odd_address(weights, shift)
            launch(native, path, 1, once, once, seeds[:1], rate, kind, place)
            calls += same(once, read[0], path, "in place", kind, place, size, rate)
    return calls


def make_image(name: str, weights: int) -> np.ndarray:
    """An image of any bits of finite numbers: uint8, as long as what holds weights."""
    kind, bits, cells, *_ = FORMATS[name]
    rng = np.random.default_rng(weights)
    size = 8 * -(-weights // (64 // cells)) if cells < 8 else weights * cells // 8
    image = rng.integers(0, 256, size, np.uint8)
    if kind != "integer":
        codes = image.view(f"u{bits // 8}")
        exponent, fraction, _ = formats_reference.FLOATS[kind]
        top = ((1 << exponent) - 1) << fraction
        codes[codes & top == top] ^= 1 << fraction  # neither infinity nor NaN
    return image


def decode_by_reference(
    name: str, read: np.ndarray, weights: int, scale: np.ndarray, center: np.ndarray, output: str
) -> np.ndarray:
    """The bits of the numbers that an image stands for, as one chip reads it; `scale` and `center` of each weight."""
    kind, bits, cells, offset, clamps, policy, centered = FORMATS[name]
    words = np.concatenate([read.view(np.uint8), np.zeros(-read.size % 8, np.uint8)])
    held = formats_reference.weight_bits(words, weights, bits, cells)
    if kind == "integer":
        codes, most = formats_reference.integers(held, offset, clamps), np.inf
    else:
        codes = formats_reference.floats(held, kind)
        scale = scale if bits == 8 else np.ones_like(scale)
        with np.errstate(over="ignore"):
            most = np.float32(LARGEST[kind]) * scale
    values = formats_reference.numbers(codes, scale, center if centered else None)
    return formats_reference.rounded(values, output, policy, most)


def check_format(native: ModuleType, name: str, weights: int, kind: str, rate: float, place: tuple) -> int:
    """All paths and floating-point outputs of one image; returns the number of calls."""
    number, bits, cells, offset, clamps, policy, centered = FORMATS[name]
    calls, seeds = 0, SEEDS[:2]
    source = at_odd_address(make_image(name, weights).view(np.int8), weights % 5)
    *_, read = by_reference(source, seeds, rate, kind, place)
    scales, centers = np.linspace(0.01, 600, 7, dtype=np.float32), np.linspace(-3, 500, 7, dtype=np.float32)
    each = np.arange(weights) // 5 % 7
    image = {
        "numbers": weights, "number": native.NUMBERS[number], "bits": bits, "cells": cells, "offset": offset,
        "clamps": clamps, "nonfinite": native.NONFINITE[policy],
        "centers": centers.ctypes.data if centered else 0,
    }  # fmt: skip
    for output in ("float32", "bfloat16", "float16"):
        want = np.stack(
            [decode_by_reference(name, one, weights, scales[each], centers[each], output) for one in read]
        )
        for path in native.cpu_paths():
            got = at_odd_address(np.zeros(len(seeds) * weights, OUTPUTS[output]), weights % 5)
            launch(native, path, 2, source, got, seeds, rate, kind, place, output, None, scales, image)
            calls += same(got, want, path, name, output, weights, kind, rate, place)
    return calls


def check_formats(native: ModuleType) -> int:
    """Every format at several sizes; kinds, rates and placements in turn, so that each format has most of them."""
    turns = zip(
        itertools.cycle(KINDS), itertools.cycle(RATES[1:]), itertools.cycle(WORD_PLACES), strict=False
    )
    cases = itertools.product(FORMATS, (1, 2, 13, 65, 700, 5001))
    return sum(
        check_format(native, name, size, *turn) for (name, size), turn in zip(cases, turns, strict=False)
    )


def check_large(native: ModuleType, path: str, kind: str) -> int:
    """Outputs that no cache holds are written past it; many threads."""
    # getconf must not run under the preloaded sanitizer.
    clean = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    asked = subprocess.run(
        ["getconf", "LEVEL3_CACHE_SIZE"], capture_output=True, text=True, env=clean, check=False
    )
    cache = int(asked.stdout) if asked.stdout.strip().isdigit() else 0
    chips = min((cache or 48 << 20) * 3 // 4, 1 << 30) // 600_011 + 2
    source = np.random.default_rng(0).integers(-128, 128, 600_011, np.int8)
    output, seeds = np.empty((chips, source.size), np.int8), list(range(chips))
    launch(native, path, 4, source, output, seeds, 1e-3, kind, (1, 0, 1, 1))
    *_, read = by_reference(source, [chips - 1], 1e-3, kind, (1, 0, 1, 1))
    return same(output[-1], read[0], path, "large", kind)


def check_rest(native: ModuleType, path: str) -> int:
    """Every cell failing; nothing to do; arguments that must be refused."""
    one = np.array([5], np.int8)
    calls = 0
    for kind in KINDS:
        output = np.empty((1, 1), np.int8)
        launch(native, path, 1, one, output, [1], 1.0, kind, (0, 0, 1, 1))
        calls += same(output, by_reference(one, [1], 1.0, kind, (0, 0, 1, 1))[2], path, kind, "every cell")
    launch(native, path, 3, one[:0], one[:0], [1], 1e-2, "flip", (0, 0, 1, 1))
    launch(native, path, 3, one, one, [], 1e-2, "flip", (0, 0, 1, 1))
    for place in [(0, 1, 24, 2), (0, 1, 16, 5000), (0, 1, 16, 0), (1 << 50, 0, 1, 1)]:
        try:
            launch(native, path, 1, one, one.copy(), [1], 1e-2, "flip", place)
        except ValueError:
            continue
        raise SystemExit(f"accepted: {place}")
    return calls + 2


def main() -> None:
    native = load(Path(sys.argv[1]))
    cases = itertools.product(KINDS, PLACES, SIZES, RATES)
    calls = sum(check(native, *case) for case in cases) + check_formats(native) + check_protected(native)
    for path in native.cpu_paths():
        calls += check_rest(native, path) + sum(check_large(native, path, kind) for kind in ("flip", "stuck"))
    print(
        f"sanitizers: {calls} calls over {', '.join(native.cpu_paths())}: all equal to the reference, no report"
    )


if __name__ == "__main__":
    main()
