"""Do the operators keep to the tensors' device, to streams and graphs, and to the memory of their output?"""

import subprocess
import sys

import pytest
import torch

from faultsim.faults import FaultModel
from faultsim.kernel import ops
from faultsim.sram import SRAM, Placement
from tests.torch.operator_calls import CALL, arguments, numbers, weights_of


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


# In a process of its own, because the peak of a process never falls.
PEAK = """
import resource, sys, torch
from faultsim.kernel import ops
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
