"""Do only integers decide about faults on the GPU, and do its kernels keep everything in registers? nvcc tells."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
KERNELS = {(kind, output) for kind in range(3) for output in range(5)}  # 3 fault kinds, 5 outputs (launch.h)
INT8, MASK = 0, 4


def kernel_of(line: str) -> tuple[int, int] | None:
    """Kind and output of the kernel whose mangled name stands in a line."""
    name = re.search(r"fault_kernelILNS_4KindE(\d)ELNS_6OutputE(\d)E", line)
    return (int(name[1]), int(name[2])) if name else None


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


def test_int8_and_mask_kernels_hold_no_floating_point_instruction(compiled):
    """Checked in PTX: below it, integer divisions use a float reciprocal of their own (and are exact)."""
    floats: dict[tuple[int, int], int] = {}
    kernel = None
    for line in compiled[0].splitlines():
        if ".entry" in line:
            kernel = kernel_of(line)
            floats[kernel] = 0
        elif ".func" in line:
            kernel = None
        code = line.split("//")[0]
        if kernel and not code.lstrip().startswith(".reg"):
            floats[kernel] += bool(re.search(r"\.(f16|bf16|f16x2|bf16x2|f32|f64|tf32)\b", code))
    assert floats.keys() == KERNELS
    for (kind, output), count in floats.items():
        if output in (INT8, MASK):
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
    assert seen == KERNELS
