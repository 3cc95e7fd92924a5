"""The CUDA kernel's own text, compiled for the CPU (tests/cuda_on_cpu), against the oracle: what a machine without a
GPU can know about it. With a GPU, tests/core/test_kernel_bits.py runs the kernel itself."""

import importlib.util
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

from faultsim import reference
from faultsim.draw import draw_table

ROOT = Path(__file__).parents[2]
THREADS = 4  # of a block; few, so that each has many hits and words
STUBS = """
#include "launch.h"
namespace faultsim {
void launch_cpu(const Job&, int, const char*) {}
const char* const* cpu_paths(int* count) { static const char* none[1]; *count = 0; return none; }
}
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    """bindings.cpp and launch_cuda.cu as a CPU extension module."""
    pybind11 = pytest.importorskip("pybind11")
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++")
    folder = tmp_path_factory.mktemp("cuda_on_cpu")
    text = (ROOT / "csrc/launch_cuda.cu").read_text()
    text = re.sub(r"#include <cuda.*?>\n", "", text)
    text, threads = re.subn(r"(constexpr uint32_t kThreads = )\d+;", rf"\g<1>{THREADS};", text)
    text, memory = re.subn(r"extern __shared__ uint4 shared\[\];[^\n]*", "", text)
    text, launches = re.subn(
        r"fault_kernel<kind, type>\s*<<<.*?>>>\((.*?)\);",
        r"launch_on_cpu(blocks, kThreads, [&] { fault_kernel<kind, type>(\1); });",
        text,
        flags=re.S,
    )
    assert (threads, memory, launches) == (1, 1, 1), "launch_cuda.cu has changed: adapt this test"
    (folder / "kernel.cpp").write_text('#include "cuda_on_cpu.h"\n' + text)
    (folder / "stubs.cpp").write_text(STUBS)
    includes = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests/cuda_on_cpu'}", f"-I{pybind11.get_include()}"]
    includes.append(f"-I{sysconfig.get_paths()['include']}")
    sources = [ROOT / "csrc/bindings.cpp", folder / "kernel.cpp", folder / "stubs.cpp"]
    module = folder / "_native.so"
    flags = ["-O1", "-std=c++17", "-shared", "-fPIC", "-w", "-ffp-contract=off", "-pthread"]
    subprocess.run([compiler, *flags, *includes, *map(str, sources), "-o", str(module)], check=True)
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
    kernel, source, kind, ones, rate, output, *, base=0, arrays=0, word=16, repeat=1, scales=None, run=1
):
    table = draw_table(rate)
    seeds = np.array(SEEDS, np.uint64).view(np.int64)
    out = np.zeros((len(seeds), source.size), OUTPUTS[output])
    states = np.zeros((len(seeds), source.size), np.uint8)
    access = np.array([3], np.int64)
    job = kernel.Job(
        source=source.ctypes.data,
        output=out.ctypes.data,
        states=states.ctypes.data,
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
        arrays=arrays,
        word=word,
        repeat=repeat,
        seeds=seeds.ctypes.data,
        array_offset=0,
        access=access.ctypes.data,
    )
    kernel.launch_cuda(job, 0, 0)
    return out, states


PLACES = [
    {},
    {"base": 4001},
    {"arrays": 3, "base": 5},
    {"arrays": 2, "word": 16, "repeat": 16},
    {"arrays": 2, "word": 32, "repeat": 3, "base": 48},
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
            floats = reference.dequantise(expected, scales[channel], 1, output)
            assert np.array_equal(got.view(np.uint8), floats.view(np.uint8))


def test_all_cells_fail(kernel):
    weights = np.arange(-128, 128, dtype=np.int8).repeat(2)
    got, _ = launch(kernel, weights, "flip", 0, 1.0, "int8")
    assert np.array_equal(got, np.stack([~weights] * 2))
