"""The CUDA kernel's own text, compiled for the CPU (tests/cuda_on_cpu), against the reference: what a machine without a
GPU can know about it. With a GPU, tests/core/test_kernel_bits.py runs the kernel itself."""

import importlib.util
import itertools
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from faultsim.formats import Format
from faultsim.formats.operators import describe_image
from faultsim.hit_table import build_hit_table
from faultsim.kernel import ops, reference
from tests.core import format_reads

ROOT = Path(__file__).parents[2]
INCLUDES = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests/cuda_on_cpu'}"]
STUBS = """
#include "codec.h"
namespace faultsim {
void launch_cpu(const Job&, int, const char*) {}
void launch_protected_cpu(const ProtectedJob&, int, const char*) {}
void launch_decode_cpu(const DecodeJob&, const char*) {}
const char* const* cpu_paths(int* count) { static const char* none[1]; *count = 0; return none; }
}
"""


def kernel_text() -> tuple[str, int]:
    """launch_cuda.cu and the parts it includes as one C++ text, and how many barriers it has. One thread block for
    each processor is enough here."""
    parts: list[str] = []

    def expand(path: Path) -> str:
        """The text of a file with the parts that it includes, each of them once."""

        def include(part: re.Match) -> str:
            found = ROOT / "csrc/cuda" / part[1]
            if found.name in parts:
                return ""
            parts.append(found.name)
            return expand(found)

        return re.sub(r'#include "(?:cuda/)?(\w+\.cuh)"\n', include, path.read_text())

    text = expand(ROOT / "csrc/launch_cuda.cu")
    assert len(parts) == len(list((ROOT / "csrc/cuda").iterdir())), (
        "launch_cuda.cu has changed: adapt this test"
    )
    text = re.sub(r"#pragma once\n|#include <cuda.*?>\n", "", text).replace('#include "../', '#include "')
    text, blocks = re.subn(r"(constexpr uint32_t kBlocksPerProcessor = )\d+;", r"\g<1>1;", text)
    text, launches = re.subn(
        r"(\w+_kernel(?:<[\w, ]+>)?)\s*<<<grid, kThreads, 0, stream>>>\((.*?)\);",
        r"launch_on_cpu(grid, kThreads, [&] { \1(\2); });",
        text,
        flags=re.S,
    )
    assert (blocks, launches) == (1, 4), "launch_cuda.cu has changed: adapt this test"
    numbers = itertools.count()
    text = re.sub(r"__syncthreads\(\)", lambda _: f"__syncthreads({next(numbers)})", text)
    return '#include "cuda_on_cpu.h"\n' + text, next(numbers)


def compiler() -> str:
    found = shutil.which("g++")
    if found is None:
        pytest.skip("no g++")
    return found


@pytest.fixture(scope="module")
def kernel():
    return build_kernel()


@cache
def build_kernel():
    """bindings.cpp and launch_cuda.cu as a CPU extension module."""
    pybind11 = pytest.importorskip("pybind11")
    gcc = compiler()
    folder = Path(tempfile.mkdtemp(prefix="cuda_on_cpu"))
    (folder / "kernel.cpp").write_text(kernel_text()[0])
    (folder / "stubs.cpp").write_text(STUBS)
    includes = [*INCLUDES, f"-I{pybind11.get_include()}", f"-I{sysconfig.get_paths()['include']}"]
    sources = [ROOT / "csrc/bindings.cpp", folder / "kernel.cpp", folder / "stubs.cpp"]
    module = folder / "_native.so"
    flags = ["-O1", "-std=c++17", "-shared", "-fPIC", "-w", "-ffp-contract=off"]
    subprocess.run([gcc, *flags, *includes, *map(str, sources), "-o", str(module)], check=True)
    spec = importlib.util.spec_from_file_location("_native", module)
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    sys.modules.pop("_native", None)
    return found


KINDS = {"flip": 0, "stuck": 1, "transient": 2}
OUTPUTS = {
    "int8": np.int8,
    "float32": np.float32,
    "bfloat16": np.uint16,
    "float16": np.uint16,
    "mask": np.uint8,
}
SEEDS = [5, 2**63 + 1]
WHOLE = {"stuck": 2**33, "transient": 2**32}


def launch(
    kernel,
    source,
    kind,
    ones,
    rate,
    output,
    *,
    base=0,
    blocks=0,
    word=16,
    repeat=1,
    scales=None,
    run=1,
    seeds=SEEDS,
    device=0,
    image=None,
):
    """`image`: arguments of read_image() where the source is an image of a format."""
    table = build_hit_table(rate)
    seeds = np.array(seeds, np.uint64).view(np.int64)
    out = np.zeros((len(seeds), source.size if image is None else image["numbers"]), OUTPUTS[output])
    states = np.zeros((len(seeds), source.size), np.uint8)
    access = np.array([3], np.int64)
    job = kernel.Job(
        source=0 if output == "mask" else source.ctypes.data,  # what is not needed is null
        output=out.ctypes.data,
        value=states.ctypes.data if output == "mask" else 0,
        weights=source.size,
        chips=len(seeds),
        type=list(OUTPUTS).index(output),
        scales=0 if scales is None else scales.ctypes.data,
        scale_count=0 if scales is None else scales.size,
        scale_run=run,
        table=table.ctypes.data,
        thresholds=table.size - 2,
        kind=KINDS[kind],
        ones=round(ones * WHOLE.get(kind, 0)),
        base=base,
        blocks=blocks,
        word=word,
        repeat=repeat,
        seeds=seeds.ctypes.data,
        block_offset=0,
        access=access.ctypes.data,
    )
    if image is not None:
        job.read_image(**image)
    kernel.launch_cuda(job, device, 0)
    return out, states


PLACES = [
    {},
    {"base": 4001},
    {"blocks": 3, "base": 5},
    {"blocks": 2, "word": 16, "repeat": 16},
    {"blocks": 2, "word": 32, "repeat": 3, "base": 48},
]


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize(("kind", "ones"), [("flip", 0), ("stuck", 0.5), ("stuck", 0.2), ("transient", 0.3)])
def test_bits(kernel, kind, ones, place):
    rng = np.random.default_rng(7)
    weights = rng.integers(-128, 128, 12_345).astype(np.int8)
    scales = rng.random(7).astype(np.float32)
    for rate in (0.0, 1e-3, 0.05, 0.4):  # at 0.4 thousands of cells are hit with both states
        for source in (weights, weights[1:1000]):  # the second one not aligned
            args = (SEEDS, rate, kind)
            expected = reference.corrupt(source, *args, ones=ones, access=3, **place)
            got, _ = launch(kernel, source, kind, ones, rate, "int8", **place)
            assert np.array_equal(got, expected)
            masks = [
                reference.fault_mask(source.size, seed, rate, kind, ones, access=3, **place) for seed in SEEDS
            ]
            failing, states = launch(kernel, source, kind, ones, rate, "mask", **place)
            assert np.array_equal(failing, [mask for mask, _ in masks])
            assert np.array_equal(states, [state for _, state in masks])
        run = 11
        channel = np.arange(weights.size) // run % scales.size
        for output in ("float32", "bfloat16", "float16"):
            got, _ = launch(kernel, weights, kind, ones, rate, output, **place, scales=scales, run=run)
            expected = reference.corrupt(weights, *args, ones=ones, access=3, **place)
            floats = reference.dequantize(expected, scales[channel], 1, output)
            assert np.array_equal(got.view(np.uint8), floats.view(np.uint8))


def test_all_cells_fail(kernel):
    weights = np.arange(-128, 128, dtype=np.int8).repeat(2)
    got, _ = launch(kernel, weights, "flip", 0, 1.0, "int8")
    assert np.array_equal(got, np.stack([~weights] * 2))


@pytest.mark.parametrize(("kind", "ones"), [("flip", 0), ("stuck", 0.2)])
def test_chips_in_any_number_of_blocks(kernel, kind, ones):
    """Seven chips of two arrays and a bit: three blocks draw seven chips each, or more blocks fewer (device n of the
    stand-in has n + 1 processors, of one block each): 7, 4, 3, 2 and 1."""
    weights = np.random.default_rng(8).integers(-128, 128, 2 * 4096 + 48).astype(np.int8)
    seeds = [2**63 + i for i in range(7)]
    expected = reference.corrupt(weights, seeds, 0.02, kind, ones=ones, access=3)
    scales = np.array([0.37], np.float32)
    floats = reference.dequantize(expected, scales, None, "bfloat16")
    for processors in (1, 4, 7, 12, 19, 132):
        options = {"seeds": seeds, "device": processors - 1}
        got, _ = launch(kernel, weights, kind, ones, 0.02, "int8", **options)
        assert np.array_equal(got, expected), processors
        got, _ = launch(kernel, weights, kind, ones, 0.02, "bfloat16", scales=scales, **options)
        assert np.array_equal(got.view(np.uint8), floats.view(np.uint8)), processors


@pytest.mark.parametrize("output", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("base", [0, 8, 4093, 4096])
def test_scales(kernel, output, base):
    """Runs of one scale shorter and longer than what a thread, a block and the tensor hold."""
    weights = np.random.default_rng(9).integers(-128, 128, 3 * 4096 + 100).astype(np.int8)
    stored = reference.corrupt(weights, SEEDS, 1e-3, "flip", base=base)
    for run, count in [
        (1, 2),
        (1, 3000),
        (3, 5),
        (8, 3),
        (9, 64),
        (576, 7),
        (1024, 2),
        (4097, 3),
        (10**6, 5),
        (7, 1),
    ]:
        scales = np.random.default_rng(run).random(count).astype(np.float32)
        got, _ = launch(kernel, weights, "flip", 0, 1e-3, output, base=base, scales=scales, run=run)
        channel = np.arange(weights.size) // run % count
        floats = reference.dequantize(stored, scales[channel], 1, output)
        assert np.array_equal(got.view(np.uint8), floats.view(np.uint8)), (run, count)


FORMATS = [
    *(f"int{bits}" for bits in range(2, 9)), "uint2", "uint8", "int3-unpacked", "int4-asymmetric",
    "uint8-asymmetric", "int8-asymmetric", "float32", "float16", "bfloat16-zero", "float32-clamp", "float16-zero",
    "bfloat16", "bfloat16-clamp", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fn-scaled-clamp",
    "float8_e5m2-scaled-zero",
]  # fmt: skip


@pytest.mark.parametrize("output", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("name", FORMATS)
def test_formats(kernel, name, output):
    """The CPU's bits: one scale, and channels whose runs are shorter and longer than the threads of a block; images
    that begin and end inside an array; few faults, and so many that numbers of every kind are not finite."""
    shape, stored = [9, 31, 53], Format.parse(name)
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(len(name))) * 3
    for axis in (-1, 0, 1) if stored.width <= 8 and not name.startswith("float8_e4m3fn") else (-1,):
        axis = -1 if name == "float8_e5m2" else axis
        codes, grid = stored.encode(weight, axis)
        image = stored.pack(codes)
        used = image.numpy() if stored.cells < 8 else image.numpy()[: weight.numel() * stored.cells // 8]
        scale = grid.scale.reshape(-1).contiguous()
        center = None if grid.center is None else grid.center.reshape(-1).contiguous()
        run = weight[(0,) * (axis + 1)].numel() if axis >= 0 else 1
        for kind, rate, place in [
            ("flip", 1e-3, {"base": 4096 - 8}),
            ("flip", 0.3, {}),
            ("stuck", 0.02, {"base": 64, "blocks": 2, "word": 16, "repeat": 3}),
        ]:
            got, _ = launch(
                kernel, used.view(np.int8), kind, 0.5, rate, output, scales=scale.numpy(), run=run, **place,
                image=describe_image(stored, weight.numel(), center),
            )  # fmt: skip
            want = torch.ops.faultsim.corrupt_decode(
                image, name, shape, getattr(torch, output), scale, center, axis,
                ops.encode_chips(SEEDS), ops.encode_rate(rate), [KINDS[kind], 2**32 if kind == "stuck" else 0],
                [place.get("base", 0), place.get("blocks", 0), place.get("word", 16), place.get("repeat", 1)],
                access=torch.tensor([3]),
            )  # fmt: skip
            assert got.tobytes() == want.view(torch.uint8).numpy().tobytes(), (axis, kind, place)


def test_recorded_reads(kernel, vectors):
    """The answers that the reference and the CPU are compared with."""
    for name, *expected in vectors("format_reads.txt"):
        stored, read = Format.parse(name), {}
        image = format_reads.make_image(stored)
        used = image if stored.cells < 8 else image[: format_reads.WEIGHTS * stored.cells // 8]
        scale, center = format_reads.encode_grid(stored)
        center = None if center is None else torch.from_numpy(center)
        about = describe_image(stored, format_reads.WEIGHTS, center)
        for output, bits in format_reads.BITS.items():
            numbers, _ = launch(
                kernel, used.view(np.int8), "flip", 0, format_reads.RATE, output, scales=scale,
                seeds=[format_reads.SEED], image=about,
            )  # fmt: skip
            read[output] = numbers[0].view(bits)
        clean = format_reads.decode(stored, image, "float32")
        assert format_reads.answer(clean, read) == expected, name


def test_images_at_odd_addresses(kernel):
    """Words that no 64-bit load may fetch, and a last one that ends behind the image."""
    stored = Format.parse("bfloat16")
    codes = torch.arange(2051).bfloat16()
    image = np.concatenate([np.zeros(3, np.uint8), stored.pack(codes).numpy()])[3 : 3 + 2 * 2051]
    got, _ = launch(
        kernel, image.view(np.int8), "flip", 0, 0.0, "float32", scales=np.ones(1, np.float32),
        image=describe_image(stored, 2051),
    )  # fmt: skip
    assert np.array_equal(got, np.stack([codes.float().numpy()] * 2))


@pytest.fixture(scope="module")
def races(tmp_path_factory):
    """races.cpp under the thread sanitizer, and the number of barriers in launch_cuda.cu."""
    gcc = compiler()
    library = subprocess.run([gcc, "-print-file-name=libtsan.so"], capture_output=True, text=True, check=True)
    if not Path(library.stdout.strip()).is_absolute():
        pytest.skip("g++ has no libtsan")
    folder = tmp_path_factory.mktemp("races")
    text, barriers = kernel_text()
    (folder / "kernel.cpp").write_text(text)
    flags = ["-O1", "-g", "-std=c++17", "-w", "-fsanitize=thread", f"-I{folder}", *INCLUDES]
    program = folder / "races"
    source = str(ROOT / "tests/cuda_on_cpu/races.cpp")
    subprocess.run([gcc, *flags, source, "-o", str(program)], check=True)
    return program, barriers


def run_races(program: Path, left_out: int) -> subprocess.CompletedProcess:
    environment = {"TSAN_OPTIONS": "halt_on_error=1 exitcode=66"}
    return subprocess.run(
        [program, str(left_out)], capture_output=True, text=True, check=False, env=environment
    )


def test_no_two_threads_race(races):
    """Every kind and every output, whole arrays and parts."""
    run = run_races(races[0], -1)
    assert run.returncode == 0, run.stderr


def test_without_any_one_barrier_threads_race(races):
    """The sanitizer sees what it is there to see, and no barrier of the kernel is there for nothing."""
    program, barriers = races
    assert barriers > 0
    for left_out in range(barriers):
        run = run_races(program, left_out)
        assert run.returncode == 66, f"barrier {left_out}: {run.stderr}"
        assert "data race" in run.stderr
