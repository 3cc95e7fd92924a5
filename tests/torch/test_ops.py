"""Are the operators good torch citizens: schemas, fake kernels, torch.compile, errors, devices, streams, memory?"""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from faultsim import ops, reference
from faultsim.errors import FaultsimError
from faultsim.faults import FaultKind, FaultModel
from faultsim.hit_table import CELLS
from faultsim.native import native
from faultsim.sram import BLOCK_BYTES, SRAM, Placement

CALL = torch.ops.faultsim
FLIP = FaultModel()


def arguments(device: str = "cpu", seeds=(1, 2), rate: float = 1e-2, model: FaultModel = FLIP, base: int = 0):
    return (
        ops.encode_chips(seeds, device),
        ops.encode_rate(rate, device),
        ops.encode_kind(model),
        ops.encode_addresses(model, base),
    )


def numbers(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """offset and access"""
    return torch.tensor([3], device=device), torch.tensor([4], device=device)


def weights_of(*shape: int, device: str = "cpu") -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(-128, 128, shape, dtype=torch.int8, generator=generator).to(device)


@pytest.mark.parametrize(
    ("kind", "shape", "extra"),
    [
        (FaultKind.FLIP, (5, 6, 3), False),
        (FaultKind.STUCK_AT_RANDOM, (40, 130), True),
        (FaultKind.TRANSIENT, (0, 4), True),
        (FaultKind.STUCK_AT_1, (), False),
    ],
)
def test_opcheck(device, kind, shape, extra):
    """Schema (mutation, aliasing), fake kernels and tracing with dynamic shapes, by torch's own checker."""
    weights = weights_of(*shape, device=device)
    common = arguments(device, model=FaultModel(kind)) + (numbers(device) if extra else ())
    single = arguments(device, [1], model=FaultModel(kind)) + (numbers(device) if extra else ())
    axis = len(shape) - 1
    scale = torch.rand(shape[axis] if shape else 1, device=device)
    torch.library.opcheck(CALL.corrupt.default, (weights, *common))
    torch.library.opcheck(CALL.corrupt_.default, (weights, *single))
    torch.library.opcheck(CALL.fault_mask.default, (weights, *common))
    for dtype in ops.FLOATS:
        torch.library.opcheck(CALL.corrupt_dequantize.default, (weights, scale, axis, dtype, *common))
        out = torch.empty(2, *shape, dtype=dtype, device=device)
        torch.library.opcheck(CALL.corrupt_dequantize.out, (weights, scale, axis, *common), {"out": out})


def test_opcheck_of_strided_weights(device):
    image = weights_of(4, 6, 5, 7, device=device).to(memory_format=torch.channels_last)
    for weights in (image, image.transpose(0, 3), image[:, ::2]):
        torch.library.opcheck(CALL.corrupt.default, (weights, *arguments(device)))
        torch.library.opcheck(CALL.corrupt_.default, (weights.clone(), *arguments(device, [1])))
        torch.library.opcheck(CALL.fault_mask.default, (weights, *arguments(device)))


def faulty_sum(weights, scale, chips, table, rule, place):
    """All operators in one function; `rule` and `place` are numbers, so a compiler treats them as constants."""
    read = CALL.corrupt(weights, chips, table, rule, place)
    copy = weights.clone()
    CALL.corrupt_(copy, chips[:1], table, rule, place)
    floats = CALL.corrupt_dequantize(weights, scale, 0, torch.float32, chips, table, rule, place)
    out = torch.empty_like(floats)
    CALL.corrupt_dequantize.out(weights, scale, 0, chips, table, rule, place, out=out)
    failing, states = CALL.fault_mask(weights, chips, table, rule, place)
    return read + 1, copy, floats + 1, out * 2, failing ^ states


@pytest.mark.parametrize(
    ("backend", "dynamic"),
    [("eager", False), ("eager", True), ("aot_eager", False), ("aot_eager", True), ("inductor", True)],
)
def test_compiled_is_eager(device, backend, dynamic):
    """No graph break, the same results; with dynamic shapes one graph serves other shapes and chip counts."""
    if backend == "inductor" and device == "cuda":
        pytest.importorskip("triton", reason="inductor needs it on GPUs")
    torch._dynamo.reset()
    graphs = CompileCounterWithBackend(backend)
    compiled = torch.compile(faulty_sum, backend=graphs, fullgraph=True, dynamic=dynamic)
    for rows, columns, chips in [(6, 700, 2), (9, 801, 3), (4, 5000, 5)]:
        weights, scale = weights_of(rows, columns, device=device), torch.rand(rows, device=device)
        common = arguments(device, range(chips))
        for got, want in zip(
            compiled(weights, scale, *common), faulty_sum(weights, scale, *common), strict=True
        ):
            assert torch.equal(got, want)
    assert graphs.frame_count == 1 if dynamic else graphs.frame_count <= 3


def test_fake_tensors_tell_shapes_without_data():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode() as mode:
        weights = mode.from_tensor(weights_of(3, 5))
        common = [mode.from_tensor(x) if isinstance(x, torch.Tensor) else x for x in arguments()]
        scale = torch.ones(5)
        assert CALL.corrupt(weights, *common).shape == (2, 3, 5)
        floats = CALL.corrupt_dequantize(weights, scale, 1, torch.bfloat16, *common)
        assert floats.shape == (2, 3, 5)
        assert floats.dtype == torch.bfloat16
        assert [mask.dtype for mask in CALL.fault_mask(weights, *common)] == [torch.uint8] * 2
        with pytest.raises(TypeError, match="int8"):
            CALL.corrupt(weights.float(), *common)
        # what the real kernels refuse
        chips, table, rule, place = common
        for odd, place_, message in (
            ([3, 0], place, "unknown fault kind"),
            ([1, 2**33 + 1], place, "above one"),
            ([1], place, "a kind and a probability"),
            (rule, [-1, 0, 1, 1], "base address -1"),
            (rule, [0, -1, 1, 1], "blocks"),
            (rule, [0, 0, 24, 2], "divisor of the block's 4096"),
            (rule, [0, 0, 16, 5000], "repeat 5000"),
            (rule, [0, 0, 16], "base, blocks, word and repeat"),
        ):
            with pytest.raises(ValueError, match=message):
                CALL.corrupt(weights, chips, table, odd, place_)


# -- the kernel's numbers, and its vector paths ----------------------------------------------------------------------


def test_python_knows_the_kernels_numbers():
    """What Python repeats because lighter modules need it, and what the operators read."""
    kernel = native()
    assert kernel.BLOCK_BYTES == BLOCK_BYTES == CELLS // 8
    assert ops.BASE_END == kernel.MOST_BASE
    assert kernel.KINDS.keys() == {"flip", "stuck", "transient"}
    assert kernel.OUTPUTS.keys() == {
        "mask",
        "int8",
        *(str(dtype).removeprefix("torch.") for dtype in ops.FLOATS),
    }
    assert ops.encode_kind(FaultModel("stuck_at_1"))[1] == kernel.CERTAIN["stuck"]
    assert ops.encode_kind(FaultModel("transient", read_error=1))[1] == kernel.CERTAIN["transient"]
    for kind in FaultKind:
        assert ops.encode_kind(FaultModel(kind))[0] in kernel.KINDS.values()


@pytest.mark.parametrize("kind", ["flip", "stuck", "transient"])
def test_a_read_by_the_reference_is_that_of_a_hand_count(kind):
    """All six cases of (stored, fail, value) that exist, in one byte; the kernels are compared with the reference."""
    stored, fail, value = (np.array([bits], np.uint8) for bits in (0b101010, 0b111100, 0b110000))
    if kind == "flip":
        value = np.zeros(1, np.uint8)
    expected = {"flip": 0b010110, "stuck": 0b110010, "transient": 0b011010}[kind]
    assert reference.read_word(kind, stored.view(np.int8), fail, value).tolist() == [expected]


def test_a_cpu_path_is_chosen_for_a_block_of_code(monkeypatch):
    chosen = []

    class Kernel:
        def __getattr__(self, name):
            return getattr(native(), name)

        def launch_cpu(self, job, threads, path):
            chosen.append(path)
            native().launch_cpu(job, threads, path)

    monkeypatch.setattr(ops, "_KERNEL", Kernel())
    assert ops.list_cpu_paths()[-1] == "portable"
    with ops.use_cpu_path("portable"):
        CALL.corrupt(weights_of(9), *arguments())
        with pytest.raises(FaultsimError, match=r"no vector path 'sse9': it has .*portable"):
            ops.use_cpu_path("sse9").__enter__()
    CALL.corrupt(weights_of(9), *arguments())
    assert chosen == ["portable", ops.list_cpu_paths()[0]]


# -- wrong arguments --------------------------------------------------------------------------------------------


def broken(name: str):
    """(operator, arguments) with one thing wrong."""
    weights, (chips, table, rule, place) = weights_of(4, 6), arguments()
    scale, out = torch.ones(1), torch.zeros(2, 4, 6)
    dequantize = [weights, scale, -1, torch.float32]
    common = [chips, table, rule, place]
    match name:
        case "float weights":
            return CALL.corrupt, [weights.float(), *common]
        case "float weights in place":
            return CALL.corrupt_, [weights.float(), chips[:1], *common[1:]]
        case "uint8 weights":
            return CALL.fault_mask, [weights.to(torch.uint8), *common]
        case "chips of 32 bits":
            return CALL.corrupt, [weights, chips.int(), *common[1:]]
        case "chips in two dimensions":
            return CALL.corrupt, [weights, chips[None], *common[1:]]
        case "float table":
            return CALL.corrupt, [weights, chips, table.double(), rule, place]
        case "no table":
            return CALL.corrupt, [weights, chips, table[:1], rule, place]
        case "two offsets":
            return CALL.corrupt, [weights, *common, torch.tensor([1, 2])]
        case "access of 32 bits":
            return CALL.corrupt, [weights, *common, None, torch.tensor([1], dtype=torch.int32)]
        case "two chips in place":
            return CALL.corrupt_, [weights, *common]
        case "scale count":
            return CALL.corrupt_dequantize, [weights, torch.ones(5), 1, torch.float32, *common]
        case "scale dtype":
            return CALL.corrupt_dequantize, [weights, scale.double(), -1, torch.float32, *common]
        case "axis too large":
            return CALL.corrupt_dequantize, [weights, scale, 2, torch.float32, *common]
        case "axis too small":
            return CALL.corrupt_dequantize, [weights, scale, -2, torch.float32, *common]
        case "output dtype":
            return CALL.corrupt_dequantize, [*dequantize[:3], torch.float64, *common]
        case "out shape":
            return partial(CALL.corrupt_dequantize.out, out=out[:1]), [*dequantize[:3], *common]
        case "out strides":
            return partial(CALL.corrupt_dequantize.out, out=torch.zeros(2, 6, 4).mT), [
                *dequantize[:3],
                *common,
            ]
        case "out dtype":
            return partial(CALL.corrupt_dequantize.out, out=out.to(torch.int8)), [*dequantize[:3], *common]
        case "unknown kind":
            return CALL.corrupt, [weights, chips, table, [3, 0], place]
        case "probability above one":
            return CALL.corrupt, [weights, chips, table, [1, 2**33 + 1], place]
        case "word":
            return CALL.corrupt, [weights, chips, table, rule, [0, 1, 24, 2]]
        case "negative base":
            return CALL.corrupt, [weights, chips, table, rule, [-1, 0, 1, 1]]
    raise AssertionError(name)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("float weights", TypeError, "weights must be int8, not torch.float32"),
        ("float weights in place", TypeError, "weights must be int8"),
        ("uint8 weights", TypeError, "weights must be int8, not torch.uint8"),
        ("chips of 32 bits", TypeError, "chips must be int64, not torch.int32"),
        ("chips in two dimensions", ValueError, "chips"),
        ("float table", TypeError, "table must be int64"),
        ("no table", ValueError, "table"),
        ("two offsets", ValueError, "offset"),
        ("access of 32 bits", TypeError, "access must be int64"),
        ("two chips in place", ValueError, "one chip only, not 2"),
        ("scale count", ValueError, "scale has 5 numbers, axis 1 needs 6"),
        ("scale dtype", TypeError, "scale must be float32, not torch.float64"),
        ("axis too large", ValueError, "axis 2 of weights with 2 dimensions"),
        ("axis too small", ValueError, "axis -2"),
        ("output dtype", TypeError, "float64 must be float32, bfloat16 or float16"),
        ("out shape", ValueError, r"out must be a contiguous tensor \[2, 4, 6\]"),
        ("out strides", ValueError, "out must be a contiguous tensor"),
        ("out dtype", TypeError, "int8 must be float32, bfloat16 or float16"),
        ("unknown kind", ValueError, "unknown fault kind"),
        ("probability above one", ValueError, "above one"),
        ("word", ValueError, "divisor of the block's 4096"),
        ("negative base", (ValueError, TypeError), "base|incompatible"),
    ],
)
def test_wrong_arguments(name, error, message):
    """A clear message, and nothing written."""
    call, arguments = broken(name)
    tensors = [x for x in arguments if isinstance(x, torch.Tensor)]
    before = [x.clone() for x in tensors]
    with pytest.raises(error, match=message):
        call(*arguments)
    assert all(
        torch.equal(
            a,
            b,
        )
        for a, b in zip(tensors, before, strict=True)
    )


def job(**changed: int) -> object:
    """The kernel's job of nothing, with some arguments changed."""
    names = (
        "source output value weights chips type scales scale_count scale_run table thresholds kind ones base blocks "
        "word repeat seeds block_offset access"
    )
    return native().Job(**{**dict.fromkeys(names.split(), 0), "scale_run": 1, "repeat": 1, **changed})


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("weights", -1),
        ("weights", 2**40 + 1),
        ("chips", 2**32),
        ("base", -5),
        ("blocks", 2**64),
        ("kind", 3),
        ("type", 5),
        ("ones", 1),  # of flips, which have no values
        ("repeat", 0),
        ("source", -(2**70)),
    ],
)
def test_numbers_that_the_kernel_refuses_are_one_line(name, number):
    job()
    with pytest.raises(ValueError, match=rf"^{name} is {number}; it must be from \d+ to \d+$"):
        job(**{name: number})


def test_a_cuda_error_says_what_failed():
    if torch.cuda.is_available():
        pytest.skip("there is no such error on a machine with a GPU")
    with pytest.raises(RuntimeError, match=r"^(cudaGetDevice on CUDA device 0: cudaError|this build)"):
        native().launch_cuda(
            job(source=1, output=1, weights=1, chips=1, table=1, seeds=1), device=0, stream=0
        )


@pytest.mark.cuda
def test_tensors_of_different_devices_are_refused():
    weights = weights_of(9, device="cuda")
    chips, table, rule, place = arguments("cuda")
    for wrong in ([chips.cpu(), table], [chips, table.cpu()]):
        with pytest.raises(ValueError, match=r"is on cpu, the weights are on cuda"):
            CALL.corrupt(weights, *wrong, rule, place)
    with pytest.raises(ValueError, match="scale is on cpu"):
        CALL.corrupt_dequantize(weights, torch.ones(1), -1, torch.float32, chips, table, rule, place)
    with pytest.raises(ValueError, match="out must be"):
        CALL.corrupt_dequantize.out(
            weights, torch.ones(1, device="cuda"), -1, chips, table, rule, place, out=torch.empty(2, 9)
        )


# -- GPU: device, stream, graph ---------------------------------------------------------------------------------


@pytest.mark.cuda
def test_weights_of_another_device_than_the_current_one():
    if torch.cuda.device_count() < 2:
        pytest.skip("one GPU only")
    want = CALL.corrupt(weights_of(9000), *arguments())
    with torch.cuda.device(0):
        got = CALL.corrupt(weights_of(9000, device="cuda:1"), *arguments("cuda:1"))
        assert torch.cuda.current_device() == 0
    assert got.device == torch.device("cuda:1")
    assert torch.equal(got.cpu(), want)


@pytest.mark.cuda
def test_side_streams():
    """Work is queued on the current stream, behind what made its inputs and before what reads its output."""
    want = CALL.corrupt(weights_of(9000) ^ 5, *arguments())
    first = arguments("cuda")
    base = weights_of(9000, device="cuda")
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(
            50_000_000
        )  # without stream order, the kernel would read before the weights are made
        late = base ^ 5
        got = CALL.corrupt(late, *first)
        again = got.clone()
    assert not stream.query()  # the call did not wait for the GPU
    stream.synchronize()
    assert torch.equal(again.cpu(), want)


@pytest.mark.cuda
@pytest.mark.parametrize("place", Placement)
@pytest.mark.parametrize("kind", ["flip", "stuck_at_random", "transient"])
def test_a_captured_graph_draws_new_chips_at_each_replay(kind, place):
    """All operators in one graph; each replay as on the CPU, which is held to the reference elsewhere."""
    model = FaultModel(kind, SRAM(place, 4096))
    weights, scale = weights_of(4, 5000, device="cuda"), torch.rand(4, device="cuda")
    chips, table, rule, layout = arguments("cuda", model=model)
    call = (table, rule, layout, *numbers("cuda"))
    copy, out = weights.clone(), torch.empty(2, 4, 5000, device="cuda")

    def everything() -> tuple[torch.Tensor, ...]:
        copy.copy_(weights)
        CALL.corrupt_(copy, chips[:1], *call)
        CALL.corrupt_dequantize.out(weights, scale, 0, chips, *call, out=out)
        floats = [CALL.corrupt_dequantize(weights, scale, 0, dtype, chips, *call) for dtype in ops.FLOATS]
        return (
            CALL.corrupt(weights, chips, *call),
            copy,
            out,
            *floats,
            *CALL.fault_mask(weights, chips, *call),
        )

    everything()  # modules are loaded before the capture
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = everything()
    there, numbers_there = weights.cpu(), call[-2:]
    for step in range(3):
        seeds = [100 * step, 2**63 + step]
        chips.copy_(ops.encode_chips(seeds))
        numbers_there[0].fill_(step)
        numbers_there[1].fill_(7 * step)
        graph.replay()
        on_cpu = (*arguments("cpu", seeds, model=model), torch.tensor([step]), torch.tensor([7 * step]))
        read, dequantized = CALL.corrupt(there, *on_cpu), []
        for dtype in (torch.float32, *ops.FLOATS):
            dequantized.append(CALL.corrupt_dequantize(there, scale.cpu(), 0, dtype, *on_cpu))
        want = (read, read[0], *dequantized, *CALL.fault_mask(there, *on_cpu))
        assert all(torch.equal(a.cpu(), b) for a, b in zip(found, want, strict=True))


@pytest.mark.cuda
def test_gpu_memory_is_the_output_alone():
    weights = weights_of(64 << 20, device="cuda")
    scale, common = torch.ones(1, device="cuda"), arguments("cuda", [1])
    for call, size in (
        (lambda: CALL.corrupt(weights, *common), 64 << 20),
        (lambda: CALL.corrupt_dequantize(weights, scale, -1, torch.float16, *common), 128 << 20),
        (lambda: CALL.corrupt_(weights, *common), 0),
    ):
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        assert torch.cuda.max_memory_allocated() - before <= size


# -- memory on the CPU ------------------------------------------------------------------------------------------

# In a process of its own, because the peak of a process never falls.
PEAK = """
import resource, sys, torch
from faultsim import ops
from faultsim.faults import FaultModel
call, kind, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(threads)
weights = torch.ones(64 << 20, dtype=torch.int8)
model = FaultModel(kind)
common = ops.encode_chips([1]), ops.encode_rate(1e-2), ops.encode_kind(model), ops.encode_addresses(model)
ops_ = torch.ops.faultsim
run = {
    "corrupt": lambda w: ops_.corrupt(w, *common),
    "corrupt_": lambda w: ops_.corrupt_(w, *common),
    "float16": lambda w: ops_.corrupt_dequantize(w, torch.ones(1), -1, torch.float16, *common),
    "mask": lambda w: ops_.fault_mask(w, *common),
}[call]
run(weights[: 1 << 20].clone())  # libraries, tables and threads are there
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
kept = run(weights)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts other units elsewhere")
@pytest.mark.parametrize(
    ("call", "kind", "output"),
    [
        ("corrupt", "flip", 64 << 20),
        ("corrupt_", "stuck_at_random", 0),
        ("float16", "stuck_at_random", 128 << 20),
        ("mask", "transient", 128 << 20),
    ],
)
def test_memory_is_the_output_and_little_more(call, kind, output):
    """64 MiB of weights: the peak grows by the output, 64 KiB a thread, and 2 MiB for the allocator and stacks."""
    threads = 2
    run = subprocess.run(
        [sys.executable, "-c", PEAK, call, kind, str(threads)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) <= output + threads * (64 << 10) + (2 << 20)
