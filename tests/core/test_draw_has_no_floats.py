"""Do only integers decide about faults on the GPU, and do its kernels keep everything in registers and move 16 bytes at
a time? nvcc tells."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
KERNELS = {(kind, output) for kind in range(3) for output in range(5)}  # 3 fault kinds, 5 outputs (launch.h)
CODECS = {("protected", kind) for kind in range(3)} | {("decode", 0)}  # cuda/codec.cuh
FORMATS = {
    (f"format {kind}", output) for kind in range(3) for output in (1, 2, 3)
}  # cuda/format.cuh: to floats
ALL = KERNELS | CODECS | FORMATS
INT8, FLOAT32, MASK = 0, 1, 4


def kernel_of(line: str) -> tuple[int | str, int] | None:
    """Kind and output of the kernel whose mangled name stands in a line; for a codec's kernel, its name and kind."""
    name = re.search(r"(fault|format)_kernelILNS_4KindE(\d)ELNS_6OutputE(\d)E", line)
    if name:
        return int(name[2]) if name[1] == "fault" else f"format {name[2]}", int(name[3])
    name = re.search(r"(protected|decode)_kernel(?:ILNS_4KindE(\d)E)?", line)
    return (name[1], int(name[2] or 0)) if name else None


@pytest.fixture(scope="module", params=["sm_75", "sm_90"])
def compiled(request, tmp_path_factory) -> tuple[str, str]:
    """PTX of the CUDA launcher for the oldest and the newest architecture that is built, and ptxas' report."""
    if shutil.which("nvcc") is None:
        pytest.skip("nvcc is not on the PATH")
    if not CSRC.is_dir():
        pytest.skip("the sources are not here")
    folder = tmp_path_factory.mktemp(request.param)
    command = ["nvcc", "-std=c++17", "-O3", f"-arch={request.param}", "-Xptxas", "-v", "-cubin", "--keep"]
    command += ["--keep-dir", str(folder), "-o", str(folder / "kernel.cubin"), str(CSRC / "launch_cuda.cu")]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    (ptx,) = folder.glob("*.ptx")
    return ptx.read_text(), run.stderr + run.stdout


def instructions(ptx: str) -> dict[tuple, list[str]]:
    """The lines of each kernel, without comments and register declarations."""
    lines: dict[tuple, list[str]] = {}
    kernel = None
    for line in ptx.splitlines():
        if ".entry" in line:
            kernel = kernel_of(line)
            lines[kernel] = []
        elif ".func" in line:
            kernel = None
        code = line.split("//")[0].strip()
        if kernel and not code.startswith(".reg"):
            lines[kernel].append(code)
    return lines


def test_int8_and_mask_kernels_hold_no_floating_point_instruction(compiled):
    """Checked in PTX: below it, integer divisions use a float reciprocal of their own (and are exact)."""
    floats = {
        kernel: sum(bool(re.search(r"\.(f16|bf16|f16x2|bf16x2|f32|f64|tf32)\b", code)) for code in lines)
        for kernel, lines in instructions(compiled[0]).items()
    }
    assert floats.keys() == ALL
    for (kind, output), count in floats.items():
        if (kind, output) in CODECS or (output in (INT8, MASK) and (kind, output) in KERNELS):
            assert count == 0, f"kind {kind}, output {output}: {count} floating-point instructions"
        else:  # one conversion and one multiplication for each weight: the search does see floats
            assert count > 0


def test_no_kernel_spills_to_local_memory(compiled):
    """No stack frame, no spilled register."""
    seen = set()
    kernel = None
    for line in compiled[1].splitlines():
        kernel = kernel_of(line) or kernel
        if "bytes stack frame" in line and kernel:
            assert re.findall(r"(\d+) bytes", line) == ["0", "0", "0"], (
                f"kind, output {kernel}: {line.strip()}"
            )
            seen.add(kernel)
    assert seen == ALL


def test_whole_arrays_move_16_bytes_at_a_time(compiled):
    """Each thread stores 16 bytes of output and loads the weights of as many; masks in shared memory are cleared in 16
    bytes, and read in as many as the weights. Narrower stores are those of the loop for single weights."""
    loads = {INT8: "v4.u32", FLOAT32: "u32", MASK: None}
    kernels = instructions(compiled[0])
    assert kernels.keys() == ALL
    for kind, output in KERNELS:
        lines = kernels[kind, output]
        where = f"kind {kind}, output {output}"
        element = {INT8: 1, MASK: 1, FLOAT32: 4}.get(output, 2)
        groups = 4096 // 128 // (16 // element)  # of 16 bytes of output, for each of 128 threads
        text = "\n".join(lines)
        wide = re.findall(r"\bst\.global\.v4\.u32\b", text)
        assert len(wide) == groups * (2 if output == MASK else 1), where  # failing cells and their states
        assert len(re.findall(r"\bst\.global\b", text)) == len(wide) + (2 if output == MASK else 1), where
        source = loads.get(output, "v2.u32")
        if source:
            assert len(re.findall(rf"\bld\.global\.{source}\b", text)) >= groups, where
            assert len(re.findall(rf"\bld\.shared\.{source}\b", text)) >= groups, where
        assert len(re.findall(r"\bst\.shared\.v4\.u32\b", text)) == (2 if kind == 0 else 4), where
